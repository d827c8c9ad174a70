"""docs/transactions.md is true: its truth table, and all of its code, are run here."""

import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
    sessionmaker,
)

import postlude
from postlude import DeferScope, configure, defer, transaction
from postlude.integrations import fastapi

PAGE = (Path(__file__).parents[2] / "docs/transactions.md").read_text()
TABLE = re.findall(r"^\| ((?:succeeded|failed) \| .*) \|$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class UndoError(Exception):
    """What makes a unit fail."""


# -- the truth table ------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE)
def test_the_truth_table(row, drained, logged):
    """Each cell says what becomes of a call (B3, C1, C2)."""
    unit, ends, *cells = (cell.strip() for cell in row.split("|"))
    if ends == "never ends":
        configure(commit_wait=0.05)
    asked = []
    with suppress(UndoError), DeferScope():
        tx = transaction("orders.db")
        if ends != "none was open":
            tx.__enter__()
        calls = [
            defer(bool).named("0"),
            defer(bool).named("1").after_commit(False),
            defer(bool).named("2").always(),
            defer(bool).named("3").when(lambda outcome: asked.append(outcome) or True),
        ]
        if ends in {"committed", "rolled back"}:
            tx.commit() if ends == "committed" else tx.rollback()
        if unit == "failed":
            raise UndoError
    if ends == "never ends":
        for name in "023":
            logged.wait_for(f"deferred call {name} was lost")
    found = [told(call, asked) for call in calls]
    tx.commit()
    drained()
    assert len(cells) == 4
    for cell, (state, outcome) in zip(cells, found, strict=True):
        expected = cell.partition(":")[0].partition(",")[0]
        if "asked" in cell:
            check_asked(cell, outcome)
            expected = "runs"
        assert state == (cell if cell.startswith("dropped") else expected)


def told(call, asked):
    """Say what became of a call, in the words of the table."""
    words = {"done": "runs", "pending": "waits"}
    state = words.get(call.state, call.state)
    if call.state == "dropped":
        state = f"dropped: `{call.reason}`"
    return state, asked[0] if asked else None


def check_asked(cell, outcome):
    """See that a rule was asked about an outcome as a cell describes it."""
    names = {"both": ("ok", "committed")}
    name, value = re.search(r"`?(?:outcome\.)?(\w+)`? (?:is|are) (\w+)$", cell).groups()
    for each in names.get(name, (name,)):
        assert str(getattr(outcome, each)) == value


# -- the code ---------------------------------------------------------------------


class Base(DeclarativeBase):
    """What the tables of the page have in common."""


class Order(Base):
    """An order, as the page has it."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


class Activity(Base):
    """What the page writes from a call."""

    __tablename__ = "activities"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]


class OrderIn(BaseModel):
    """What a client sends."""

    email: str


@pytest.fixture
def page(tmp_path, monkeypatch):
    """What the code of the page takes as given."""
    monkeypatch.chdir(tmp_path)
    engine = create_engine("sqlite:///orders.db")
    Base.metadata.create_all(engine)
    sent = []
    yield {
        "Activity": Activity,
        "Order": Order,
        "Session": sessionmaker(engine),
        "defer": defer,
        "engine": engine,
        "postlude": postlude,
        "send_confirmation": lambda *args: sent.append(args),
        "sent": sent,
        "sqlite3": sqlite3,
    }
    engine.dispose()


def run(number, page, **more):
    """Run a block of the page."""
    exec(compile(BLOCKS[number], f"block {number}", "exec"), page | more)  # noqa: S102 - its own documentation


def define(number, name, page, **more):
    """Run a block of the page that defines something."""
    scope = page | more
    exec(compile(BLOCKS[number], f"block {number}", "exec"), scope)  # noqa: S102 - as above
    return scope[name]


def test_all_of_the_code_is_here():
    """A block that is added to the page needs a test here."""
    assert len(BLOCKS) == 7


def test_the_first_example(page):
    """Sent when the dependency has committed, after the response (B3)."""
    engine = create_async_engine("sqlite+aiosqlite:///orders.db")

    async def get_session():
        async with AsyncSession(engine) as session:
            yield session
            assert page["sent"] == []
            await session.commit()

    app = FastAPI()
    fastapi.install(app)
    run(
        0,
        page,
        app=app,
        OrderIn=OrderIn,
        Session=Annotated[AsyncSession, Depends(get_session)],
    )
    with TestClient(app) as client:
        assert client.post("/orders", json={"email": "a"}).json() == {"ok": True}
    assert page["sent"] == [("a",)]


@pytest.mark.parametrize("fails", [False, True])
def test_a_raw_driver(page, fails):
    """The block stands outside that of the driver (B3, C2)."""
    email = None if fails else "a"  # a column that must not be NULL
    with DeferScope(), suppress(sqlite3.IntegrityError):
        run(1, page, email=email)
    assert page["sent"] == ([] if fails else [("a",)])


@pytest.mark.parametrize("fails", [False, True])
def test_before_and_in_a_transaction(page, fails):
    """What was deferred before does not wait (B3)."""
    visits = []
    with DeferScope(), suppress(Exception):
        run(
            2,
            page,
            order=Order(email=None if fails else "a"),
            count_visit=lambda: visits.append(1),
        )
    assert (visits, page["sent"]) == ([1], [] if fails else [()])


def test_a_savepoint(page):
    """It drops its own calls (C2)."""
    told = []

    class NoBonusError(Exception):
        pass

    with DeferScope():
        run(
            3,
            page,
            NoBonus=NoBonusError,
            always_told=lambda: told.append("always"),
            tell_of_the_bonus=lambda: told.append("bonus"),
        )
    assert told == ["always"]


def test_a_dependency_that_commits(page):
    """After the answer (B3)."""
    app = FastAPI()
    fastapi.install(app)
    get_session = define(4, "get_session", page)

    @app.post("/{email}")
    def create(email: str, session: Annotated[object, Depends(get_session)]):
        session.add(Order(email=email))
        defer(lambda: seen.append(stored(page)))

    seen = []
    with TestClient(app) as client:
        client.post("/a")
    assert seen == [["a"]]


def test_a_call_with_a_session_of_its_own(page):
    """What it writes is committed (S9)."""
    with DeferScope():
        defer(define(5, "record_activity", page), 7)
    with page["Session"]() as session:
        assert list(session.scalars(select(Activity.order_id))) == [7]


def test_a_gate_of_your_own(page):
    """`begin`, and a word at the end (B3)."""
    with DeferScope():
        run(6, page)


def stored(page):
    """Give the orders that others see."""
    with page["Session"]() as session:
        return list(session.scalars(select(Order.email)))
