import sys
from pathlib import Path

import pytest
from tortoise import Tortoise

# The models stand in a module beside this file, and the importlib mode of pytest puts
# no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))


def url_of(database):
    """Give the address of a database of the tests, as Tortoise writes it."""
    if database.kind == "sqlite":
        return f"sqlite://{database.name}"
    where = f"{database.host}:{database.port}/{database.name}"
    return f"asyncpg://{database.user}:{database.password}@{where}"


@pytest.fixture
async def db(async_database):
    """Tortoise with an empty table of orders, on each of the servers."""
    # Tortoise keeps the text of statements by the name of the connection.
    name = async_database.kind
    await Tortoise.init(
        config={
            "connections": {name: url_of(async_database)},
            "apps": {"shop": {"models": ["models"], "default_connection": name}},
        }
    )
    await Tortoise.generate_schemas()
    yield
    await Tortoise.close_connections()
