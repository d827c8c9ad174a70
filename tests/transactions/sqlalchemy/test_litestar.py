"""B3 and C2 with Litestar and its SQLAlchemy plugin, advanced-alchemy."""

import warnings

import pytest
from orders import Order, call, make_engine
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from postlude import defer
from postlude.asgi import PostludeMiddleware

with warnings.catch_warnings(action="ignore"):  # it uses what SQLAlchemy 2.1 deprecates
    from advanced_alchemy.extensions.litestar import (
        SQLAlchemyAsyncConfig,
        SQLAlchemyPlugin,
        SQLAlchemySyncConfig,
    )
    from litestar import Litestar, Request, get, post
    from litestar.di import NamedDependency
    from litestar.response import Redirect

# Its version for SQLAlchemy 2.0 calls what it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:advanced_alchemy")

CALLS = {}


@post("/orders/{name:str}")
async def create(request: Request, db_session: NamedDependency[AsyncSession]) -> None:
    """Add an order, and leave the rest to the plugin."""
    db_session.add(Order(name=request.path_params["name"]))
    CALLS[request.path_params["name"]] = defer(call)


@get("/orders/{name:str}")
async def read(request: Request, db_session: NamedDependency[AsyncSession]) -> None:
    """Only read."""
    await db_session.scalars(select(Order))
    CALLS[request.path_params["name"]] = defer(call)


@post("/moved/{name:str}", sync_to_thread=False)
def moved(request: Request, db_session: NamedDependency[AsyncSession]) -> Redirect:
    """Redirect: the plugin rolls such answers back."""
    db_session.add(Order(name=request.path_params["name"]))
    CALLS[request.path_params["name"]] = defer(call)
    return Redirect("/", status_code=303)


@post("/sync/{name:str}", sync_to_thread=True)
def create_sync(request: Request, db_session: NamedDependency[Session]) -> None:
    """Add an order in a thread."""
    db_session.add(Order(name=request.path_params["name"]))
    CALLS[request.path_params["name"]] = defer(call)


@pytest.fixture
def client(async_database, blockbuster):
    """Make a client of the shop, with the plugin's handler of that name."""
    blockbuster.deactivate()  # asyncpg looks for its password file
    CALLS.clear()
    engine = create_async_engine(async_database.async_url, poolclass=NullPool)

    def client(handler):
        config = SQLAlchemyAsyncConfig(
            engine_instance=engine, before_send_handler=handler
        )
        app = Litestar([create, read, moved], plugins=[SQLAlchemyPlugin(config)])
        return TestClient(PostludeMiddleware(app))

    with make_engine(async_database):
        yield client


def test_the_plugin_commits(client):
    """`autocommit` commits before the head is sent (A2, B3)."""
    with client("autocommit") as shop:
        assert shop.post("/orders/a").status_code == 201
        assert shop.get("/orders/b").status_code == 200
    assert {CALLS["a"].state, CALLS["b"].state} == {"done"}


def test_the_plugin_rolls_back(client):
    """It does so for redirects, which are a success to everybody else (C2)."""
    with client("autocommit") as shop:
        assert shop.post("/moved/a", follow_redirects=False).status_code == 303
    assert CALLS["a"].reason == "rollback"


def test_the_plugin_swallows_an_error_of_the_commit(client):
    """A 201, and nothing in the database: the call knows better (S10)."""
    with client("autocommit") as shop:
        shop.post("/orders/a")
        first = CALLS["a"]
        assert shop.post("/orders/a").status_code == 201
    assert (first.state, CALLS["a"].reason) == ("done", "rollback")


def test_the_plugin_only_closes(client):
    """Its default: who wrote must commit, who read need not (C2)."""
    with client(None) as shop:
        shop.post("/orders/a")
        shop.get("/orders/b")
    assert (CALLS["a"].reason, CALLS["b"].state) == ("rollback", "done")


def test_sync_sessions(database):
    """The same in threads (B3)."""
    CALLS.clear()
    with make_engine(database) as engine:
        config = SQLAlchemySyncConfig(
            engine_instance=engine, before_send_handler="autocommit"
        )
        app = Litestar([create_sync], plugins=[SQLAlchemyPlugin(config)])
        with TestClient(PostludeMiddleware(app)) as shop:
            assert shop.post("/sync/a").status_code == 201
    assert CALLS["a"].state == "done"
