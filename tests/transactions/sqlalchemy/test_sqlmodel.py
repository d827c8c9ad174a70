"""B3 and C2 with SQLModel, whose sessions are SQLAlchemy's."""

import pytest
from sqlmodel import Field, Session, SQLModel, create_engine, select

from postlude import DeferScope, defer


class Item(SQLModel, table=True):
    """An item."""

    id: int | None = Field(default=None, primary_key=True)


def call():
    """Stand for a call."""


@pytest.fixture
def engine(database):
    """An engine of SQLModel's."""
    engine = create_engine(database.url)
    SQLModel.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_the_ends(engine, end):
    """Its own `Session` class is seen as any other (A2, A4, C2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Item())
        deferred = defer(call)
        getattr(session, end)()
    assert deferred.state == ("done" if end == "commit" else "dropped")


def test_reading(engine):
    """`session.exec()` of a select is no writing."""
    with DeferScope(), Session(engine) as session:
        session.exec(select(Item)).all()
        deferred = defer(call)
    assert deferred.state == "done"
