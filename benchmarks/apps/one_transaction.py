"""An order with one transaction and one deferred call in it, with and without gates.

As people write it: FastAPI, a session as a dependency, the ORM. SQLite in memory: a
database with a wire would only hide what the gate costs.
"""

import itertools
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from postlude import defer
from postlude.integrations.fastapi import install

tick = itertools.count().__next__
engine = create_engine(
    "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
)
sessions: sessionmaker[Session] = sessionmaker(engine)


class Base(DeclarativeBase):
    """The table's home."""


class Order(Base):
    """What is ordered."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


Base.metadata.create_all(engine)


async def session_of_request() -> AsyncIterator[Session]:
    """Give a session, and commit what the endpoint did."""
    with sessions.begin() as session:
        yield session


async def nothing(_order: int) -> None:
    """Stand for a call that costs nothing itself."""
    tick()


app = FastAPI()


@app.get("/")
async def order(session: Annotated[Session, Depends(session_of_request)]) -> int:
    """Look somebody up, write a row, and defer one call, in one transaction."""
    session.scalars(select(Order).where(Order.id == 1)).first()
    made = Order(email="someone@example.org")
    session.add(made)
    session.flush()
    defer(nothing, made.id)
    return made.id


@app.get("/ran")
async def ran() -> int:
    """Tell the count of calls that have run; a tick of its own."""
    return tick()


install(app)
if os.environ["BENCH_VARIANT"] == "gates":
    from postlude.transactions import sqlalchemy

    sqlalchemy.install()
