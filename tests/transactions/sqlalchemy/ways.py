"""The ways to write in a session; each finds one order, or none."""

from orders import Order
from sqlalchemy import delete, insert, select, text, update


def flush(session):
    """Write as the unit of work does."""
    session.add(Order(name="x"))
    session.flush()


def pend(session):
    """Add, and never flush."""
    session.add(Order(name="x"))


def remove(session):
    """Delete, and never flush."""
    session.delete(session.scalars(select(Order)).one())


def change(session):
    """Change, and never flush."""
    session.scalars(select(Order)).one().name = "x"


def orm_insert(session):
    """Insert in bulk."""
    session.execute(insert(Order), [{"name": "x"}, {"name": "y"}])


def orm_update(session):
    """Update in bulk."""
    session.execute(update(Order).values(name="x"))


def orm_delete(session):
    """Delete in bulk."""
    session.execute(delete(Order))


def bulk_save(session):
    """Save in the old way."""
    session.bulk_save_objects([Order(name="x")])


def words(session):
    """Write in words."""
    session.execute(text("/* x */ UPDATE orders SET name = 'x'"))


def core(session):
    """Write on the session's connection."""
    session.connection().execute(insert(Order.__table__).values(name="x"))


def raw(session):
    """Write past the compiler."""
    session.connection().exec_driver_sql("DELETE FROM orders")


def without_parameters(session):
    """Write with the driver's call that takes none."""
    connection = session.connection()
    options = {"no_parameters": True}
    connection.exec_driver_sql("DELETE FROM orders", execution_options=options)


WAYS = [
    flush,
    pend,
    remove,
    change,
    orm_insert,
    orm_update,
    orm_delete,
    bulk_save,
    words,
    core,
    raw,
    without_parameters,
]
