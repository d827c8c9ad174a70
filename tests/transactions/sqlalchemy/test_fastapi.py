"""B3 with FastAPI: a `yield` dependency that commits after the response is the rule."""

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from orders import Order, make_engine
from serving import served, watched
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from postlude import defer
from postlude.integrations.fastapi import install

# From 0.118 on FastAPI ends a dependency with `yield` after the response, before that
# version ahead of it; either way the calls come after both.
EARLY = tuple(map(int, version("fastapi").split(".")[:2])) < (0, 118)
ENDS = ["commit", "last byte"] if EARLY else ["last byte", "commit"]


class Happened(list):
    """What has happened, in order; a test may wait for it."""

    def __init__(self):
        super().__init__()
        self.came = threading.Condition()

    def append(self, item):
        """Note what has happened."""
        with self.came:
            super().append(item)
            self.came.notify_all()

    def wait_for(self, *items):
        """Wait until all of that has happened."""
        with self.came:
            assert self.came.wait_for(lambda: set(items) <= set(self), 20), self


def of_request():
    """Stand for the session of a request; each test puts its own here."""


sync_shop, async_shop = APIRouter(), APIRouter()
SyncSession = Annotated[Session, Depends(of_request)]
ASession = Annotated[AsyncSession, Depends(of_request)]


@sync_shop.post("/orders/{name}")
def create(request: Request, name: str, session: SyncSession):
    """Add an order."""
    session.add(Order(name=name))
    request.app.state.note(name)


@sync_shop.post("/flush/{name}")
def flush(request: Request, name: str, session: SyncSession):
    """Add an order, and swallow that there is one."""
    session.add(Order(name=name))
    request.app.state.note(name)
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        request.app.state.note("refused")


@sync_shop.get("/orders/{name}")
def read(request: Request, name: str, session: SyncSession):
    """Look for an order."""
    request.app.state.note(name)
    if session.scalar(select(Order).where(Order.name == name)) is None:
        raise HTTPException(404)


@async_shop.post("/orders/{name}")
async def acreate(request: Request, name: str, session: ASession):
    """Add an order."""
    session.add(Order(name=name))
    request.app.state.note(name)


@async_shop.post("/flush/{name}")
async def aflush(request: Request, name: str, session: ASession):
    """Add an order, and swallow that there is one."""
    session.add(Order(name=name))
    request.app.state.note(name)
    try:
        await session.flush()
    except IntegrityError:
        await session.rollback()
        request.app.state.note("refused")


@async_shop.get("/orders/{name}")
async def aread(request: Request, name: str, session: ASession):
    """Look for an order."""
    found = await session.scalar(select(Order).where(Order.name == name))
    request.app.state.note(name)
    if found is None:
        raise HTTPException(404)


@pytest.fixture
def happened():
    """What has happened, in order."""
    return Happened()


@pytest.fixture
def engine(async_database):
    """An engine for the test's own eyes."""
    with make_engine(async_database, poolclass=NullPool) as engine:
        yield engine


@pytest.fixture(params=["sync", "async"])
def shop(request, async_database, engine, happened, blockbuster):
    """Make the shop, with sessions that commit after the endpoint, or only close."""
    blockbuster.deactivate()  # asyncpg looks for its password file
    asynchronous = create_async_engine(async_database.async_url, poolclass=NullPool)
    for one in engine, asynchronous.sync_engine:
        event.listen(one, "commit", lambda _: happened.append("commit"))

    def sync_session():
        with Session(engine) as session:
            yield session
            if app.state.commits:
                session.commit()

    async def async_session():
        async with AsyncSession(asynchronous) as session:
            yield session
            if app.state.commits:
                await session.commit()

    def call(name):
        with Session(engine) as session:
            found = session.scalar(select(Order).where(Order.name == name))
        happened.append(f"call {name}" if found else f"{name} is not there")

    def note(name):
        app.state.calls[name] = defer(call, name)

    sync = request.param == "sync"
    app = FastAPI()
    app.include_router(sync_shop if sync else async_shop)
    app.dependency_overrides[of_request] = sync_session if sync else async_session
    app.state.calls, app.state.note, app.state.commits = {}, note, True
    install(app)
    return app


def test_the_commit_comes_after_the_response(shop, happened):
    """The call waits for both: last byte, commit, call (B3)."""
    client = TestClient(watched(shop, happened))
    assert client.post("/orders/a").status_code == 200
    assert happened == [*ENDS, "call a"]


def test_the_same_over_a_socket(shop, happened):
    """On uvicorn, where nobody waits for the calls (B3)."""
    with served(watched(shop, happened)) as address:
        assert httpx.post(f"{address}/orders/a").status_code == 200
        happened.wait_for("call a")
    assert happened == [*ENDS, "call a"]


def test_closed_without_commit(shop, happened):
    """The order is lost, and with it the call; a request that read loses none (C2)."""
    client = TestClient(shop)
    client.post("/orders/a")
    shop.state.commits = False
    assert client.post("/orders/b").status_code == 200
    assert shop.state.calls["b"].reason == "rollback"
    assert client.get("/orders/a").status_code == 200
    assert shop.state.calls["a"].state == "done"
    assert happened == ["commit", "call a", "call a"]


def test_an_error_is_swallowed(shop):
    """A rollback under a 200: what was deferred before goes, after runs (C2)."""
    client = TestClient(shop)
    client.post("/orders/a")
    assert client.post("/flush/a").status_code == 200
    assert shop.state.calls["a"].reason == "rollback"
    assert shop.state.calls["refused"].state == "done"


def test_a_commit_that_fails_after_the_response(shop, happened):
    """The client may have its 200, the database has nothing, no call runs (S10)."""
    client = TestClient(watched(shop, happened), raise_server_exceptions=False)
    client.post("/orders/a")
    del happened[:]
    assert client.post("/orders/a").status_code == (500 if EARLY else 200)
    assert happened[0] == "last byte"
    assert not any(text.startswith("call") for text in happened)
    assert shop.state.calls["a"].reason == "rollback"


def test_an_unsuccessful_answer(shop):
    """Its call goes by the unit's outcome, whatever the session did (C1)."""
    assert TestClient(shop).get("/orders/none").status_code == 404
    assert shop.state.calls["none"].reason in {"outcome", "rollback"}


def test_requests_side_by_side(shop, happened):
    """Six at a time, each with its session; every call sees its own order."""
    names = [f"order{number}" for number in range(6)]
    with served(shop) as address, ThreadPoolExecutor(6) as pool:
        urls = [f"{address}/orders/{name}" for name in names]
        answers = list(pool.map(httpx.post, urls))
        assert {answer.status_code for answer in answers} == {200}
        happened.wait_for(*(f"call {name}" for name in names))
