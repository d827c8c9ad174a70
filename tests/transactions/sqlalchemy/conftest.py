import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

# What these tests share is a module beside them, and the importlib mode of pytest puts
# no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from orders import Base, Order, begin_for_real, make_engine

from postlude.transactions import sqlalchemy as gates

if os.environ.get("TEST_SERVICES") != "all":
    collect_ignore = ["test_servers_only.py"]


@pytest.fixture(scope="session", autouse=True)
def _installed():
    gates.install()


@pytest.fixture
def engine(database):
    """An engine of a database with an empty table of orders, one for each server."""
    with make_engine(database) as engine:
        yield engine


@pytest.fixture
def sqlite_engine(sqlite):
    """The same on SQLite, where the server makes no difference."""
    with make_engine(sqlite) as engine:
        yield engine


@pytest.fixture
async def async_engine(async_database):
    """The same for asyncio."""
    engine = create_async_engine(async_database.async_url)
    begin_for_real(engine.sync_engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def stored():
    """Give the names of the orders that others see."""

    def stored(engine):
        with engine.connect() as connection:
            return sorted(connection.scalars(select(Order.name)))

    return stored
