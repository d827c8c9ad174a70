"""D4: what a call holds of SQLAlchemy, SQLModel and Flask-SQLAlchemy, with the fix."""

from dataclasses import dataclass

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, StaticPool, create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    registry,
    relationship,
    scoped_session,
    sessionmaker,
)
from sqlmodel import Field, SQLModel
from sqlmodel import Session as SQLModelSession

from postlude import _captures, _request_bound, defer
from postlude.integrations.flask import Postlude


class Base(DeclarativeBase):
    """What the tables of the tests have in common."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    lines: Mapped[list["Line"]] = relationship(back_populates="order")

    def mail(self):
        """Send a mail about it."""


class Line(Base):
    """A line of an order; its key has two parts."""

    __tablename__ = "lines"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[Order] = relationship(back_populates="lines")


class Plain(Base):
    """A row without relations."""

    __tablename__ = "plain"

    key: Mapped[str] = mapped_column(primary_key=True)


class Hero(SQLModel, table=True):
    """A model of SQLModel."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


@dataclass
class Imperative:
    """A class that SQLAlchemy maps from outside."""

    key: str


registry(metadata=Base.metadata).map_imperatively(Imperative, Plain.__table__)


@pytest.fixture
def engine():
    """An engine with three tables, one connection, and a count of its statements."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    SQLModel.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def statements(engine):
    """All statements of the engine, from here on."""
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return statements


@pytest.fixture
def session(engine):
    """A session as it is by default: a commit expires what is in it."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def lasting(engine):
    """A session whose commit expires nothing."""
    with Session(engine, expire_on_commit=False) as session:
        yield session


def stored(session, *instances):
    """Add instances to a session and commit them."""
    session.add_all(instances)
    session.commit()
    return instances[0]


def take(order):
    """Take what a mail about it needs."""


def text(what, fix, place="its argument `order`"):
    """Put together what the warning of an instance says."""
    return (
        f"The deferred call {__name__}:take holds an instance of {what} of a "
        f"SQLAlchemy session ({place}). Usually a commit expires it or the end of the "
        "request closes its session, and the call cannot load what is missing then. "
        + fix
    )


BY_ID = "Pass order.id and load it again in the call."


def test_an_instance_in_a_session(session, statements, warned):
    """It warns, names the key, and looks without a statement or a refresh (D4)."""
    order = stored(session, Order(name="book"))
    del statements[:]
    assert warned(take, order) == [text("Order", BY_ID)]
    assert statements == []
    assert "name" not in vars(order)  # still expired
    assert order.name == "book"


def test_an_instance_that_is_loaded(session, warned):
    """In a session that will expire it, it warns before the commit too (D4)."""
    order = stored(session, Order(name="book"))
    session.refresh(order, ["name", "lines"])
    assert warned(take, order) == [text("Order", BY_ID)]


def test_an_instance_that_has_no_key_yet(session, statements, warned):
    """Before the flush there is no id to pass, and the fix says so (D4)."""
    order = Order(name="book")
    session.add(order)
    fix = "Flush its session first, then do this: " + BY_ID
    assert warned(take, order) == [text("Order", fix)]
    assert statements == []
    assert order in session.new


def test_a_detached_instance(session, statements, warned):
    """An expired one can never be loaded any more (D4)."""
    order = stored(session, Order(name="book"))
    session.close()
    del statements[:]
    assert warned(take, order) == [text("Order", BY_ID)]
    assert statements == []


def test_a_detached_instance_with_a_relation_that_is_not_loaded(session, warned):
    """Its columns are there, its lines are not (D4)."""
    order = stored(session, Order(name="book"))
    assert order.name == "book"
    session.close()
    assert warned(take, order) == [text("Order", BY_ID)]


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_an_instance_that_keeps_all_it_has(closed, lasting, warned):
    """With `expire_on_commit=False` and all of it loaded nothing is missing (D4)."""
    order = Order(name="book", lines=[])
    stored(lasting, order, Plain(key="a"))
    plain = lasting.get(Plain, "a")
    if closed:
        lasting.close()
    assert warned(take, order) == []
    assert warned(take, plain) == []
    assert (order.lines, plain.key) == ([], "a")


def test_an_instance_that_lacks_something(lasting, warned):
    """With `expire_on_commit=False` a relation that is not loaded is missing (D4)."""
    stored(lasting, Order(name="book"))
    lasting.expunge_all()
    order = lasting.scalars(select(Order)).one()
    assert warned(take, order) == [text("Order", BY_ID)]


def test_a_transient_instance(warned):
    """What no session knows is an object like any other (D4)."""
    assert warned(take, Order(name="book")) == []
    assert warned(take, object.__new__(Order)) == []
    assert warned(take, Hero(name="ada")) == []


def test_a_deleted_instance(session, warned):
    """There is nothing left to load: the values themselves must be passed (D4)."""
    order = stored(session, Order(name="book"))
    session.delete(order)
    session.flush()
    fix = "It is deleted: pass the values that the call needs."
    assert warned(take, order) == [text("Order", fix)]
    session.commit()


def test_a_key_of_two_parts(session, warned):
    """The fix names every attribute of the key (D4)."""
    line = Line(number=1)
    stored(session, Order(name="book", lines=[line]))
    fix = "Pass (order.order_id, order.number) and load it again in the call."
    assert warned(take, line) == [text("Line", fix)]


def test_an_attribute_that_is_not_named_like_its_column(session, warned):
    """The fix names the attribute of the class, and the variable of a closure (D4)."""
    plain = stored(session, Plain(key="a"))
    (message,) = warned(lambda: plain.key)
    assert "(`plain`, which its body uses)" in message
    assert message.endswith("Pass plain.key and load it again in the call.")


def test_a_method_of_an_instance(session, warned):
    """A bound method of an instance holds the instance (D4)."""
    order = stored(session, Order(name="book"))
    (message,) = warned(order.mail)
    assert message.endswith(BY_ID)


def test_many_instances(session, warned):
    """A list of them, or a relation, is one warning with one fix for all (D4)."""
    order = stored(session, Order(name="book", lines=[Line(number=1), Line(number=2)]))
    place = "`order[0]` in its argument `order`"
    fix = "Pass [each.id for each in order] and load them again in the call."
    assert warned(take, [order, order]) == [text("Order", fix, place)]
    assert len(warned(lambda lines: lines, order.lines)) == 1


def test_a_class_that_is_mapped_from_outside(session, warned):
    """A mapped class needs no base of SQLAlchemy's (D4)."""
    instance = stored(session, Imperative("a"))
    fix = "Pass order.key and load it again in the call."
    assert warned(take, instance) == [text("Imperative", fix)]
    assert warned(take, Imperative("b")) == []


def test_sqlmodel(engine, warned):
    """Models and sessions of SQLModel are SQLAlchemy's (D4)."""
    with SQLModelSession(engine) as session:
        hero = stored(session, Hero(name="ada"))
        assert warned(take, hero) == [text("Hero", BY_ID)]
        assert "holds a SQLAlchemy session" in warned(lambda: session)[0]


def test_a_session(session, warned):
    """An open session, and a closed one, belong to their request (D4)."""
    (message,) = warned(lambda session: 1, session)
    assert message == (
        f"The deferred call {__name__}:test_a_session.<locals>.<lambda> holds a "
        "SQLAlchemy session (its argument `session`). Usually it is the request's own: "
        "it is closed with the request, and the request may be using it at the same "
        "moment. Open one in the call: `with Session.begin() as session:`."
    )
    assert len(warned_elsewhere := _found(session.commit)) == 1
    assert warned_elsewhere[0].place == "the object whose method it is"
    session.close()
    assert len(_found(take, session)) == 1


def _found(fn, *args):
    held = _captures.everything(fn, args)
    judged = ((one, _request_bound.judge(one)) for one in held)
    return [found._replace(place=one.place) for one, found in judged if found]


def test_what_belongs_to_the_application(engine, session):
    """Engines, factories and registries of sessions may be passed (D4)."""
    factory = sessionmaker(engine)
    for harmless in (engine, factory, scoped_session(factory), select(Order), Order):
        assert _found(take, harmless) == []


def test_connections_and_results(engine, session):
    """A connection, and what still reads from one (D4)."""
    with engine.connect() as connection:
        result = connection.execute(select(Order))
        holders = [connection, result, result.scalars(), result.mappings()]
        holders.append(session.execute(select(Order)))
        fixes = {found.fix for holder in holders for found in _found(take, holder)}
        assert [len(_found(take, holder)) for holder in holders] == [1] * 5
        assert fixes == {
            "Take a connection in the call, or pass what was read from it."
        }
        result.close()


async def test_asyncio(warned):
    """The asyncio twins, and instances of their sessions (D4)."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        (found,) = _found(take, connection)
        assert found.what == "a database connection, or what reads from one"
        result = await connection.stream(select(Order))
        assert len(_found(take, result)) == 1
        await result.close()
    async with AsyncSession(engine) as session:
        order = Order(name="book")
        session.add(order)
        await session.commit()
        assert warned(take, order) == [text("Order", BY_ID)]
        (found,) = _found(take, session)
        fix = "Open one in the call: `async with Session.begin() as session:`."
        assert found.fix == fix
    await engine.dispose()


outer = set()


def test_flask_sqlalchemy(reported):
    """`db.session` gives the call a session of its own; its instances warn (D4)."""
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)
    Postlude(app)
    seen = []

    class Item(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    def count(session):
        seen.append(session.query(Item).count())
        seen.append(session() is outer.pop())

    @app.post("/")
    def add():
        db.create_all()
        item = Item()
        db.session.add(item)
        db.session.commit()
        with pytest.warns(match=r"Pass item\.id and load it again in the call\."):
            defer(lambda: seen.append(type(item).__name__))
        outer.add(db.session())
        defer(count, db.session)
        return ""

    app.test_client().post("/")
    assert seen == ["Item", 1, False]
    assert reported() == []
    with app.app_context():
        db.engine.dispose()
