"""The engines on PostgreSQL, each with a database of its own on the real server.

Without `TEST_DATABASES=all` none is run: `make test` needs no server.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from postlude import _call, _settings
from postlude.queues import Job, open_queue

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))

ALL = os.environ.get("TEST_DATABASES") == "all"
LEASING = ["procrastinate"]
collect_ignore_glob = [] if ALL else ["test_*.py"]


@dataclass(frozen=True)
class Server:
    """Where PostgreSQL is, as its own clients' variables say."""

    host: str = os.environ.get("PGHOST", "127.0.0.1")
    port: int = int(os.environ.get("PGPORT", "5432"))
    user: str = os.environ.get("PGUSER", "postgres")
    password: str = os.environ.get("PGPASSWORD", "")

    def address(self, name: str) -> str:
        """Give libpq's address of a database there."""
        password = f":{quote(self.password)}" if self.password else ""
        return f"postgresql://{self.user}{password}@{self.host}:{self.port}/{name}"


def made(name: str, engine: str) -> str:
    """Make a database with the tables of an engine; gives its address."""
    address = Server().address(name)
    with psycopg.connect(
        Server().address(os.environ.get("PGDATABASE", "postgres")), autocommit=True
    ) as server:
        server.execute(f"CREATE DATABASE {name}")
    install(address, engine)
    return address


def install(address: str, engine: str) -> None:
    """Make the tables of an engine, by the command that the documentation gives."""
    bin_ = Path(sys.executable).parent
    commands = {
        "procrastinate": [
            bin_ / "procrastinate",
            "--app=postlude.queues.procrastinate.app",
            "schema",
            "--apply",
        ],
    }
    queue = f"{engine}+{address}"
    subprocess.run(
        commands[engine],
        check=True,
        capture_output=True,
        env={**os.environ, "POSTLUDE_QUEUE": queue},
    )


def removed(name: str) -> None:
    """Take a database away."""
    with psycopg.connect(
        Server().address(os.environ.get("PGDATABASE", "postgres")), autocommit=True
    ) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module", params=LEASING)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a queue in a database that this file has for itself."""
    name = f"postlude_{secrets.token_hex(6)}"
    try:
        yield f"{request.param}+{made(name, request.param)}"
    finally:
        removed(name)


@pytest.fixture
def queue(address: str) -> Iterator[object]:
    """An engine with no jobs."""
    _settings.reset()
    queue = open_queue(address)
    yield queue
    queue.close()
    engine, _, libpq = address.partition("+")
    with psycopg.connect(libpq, autocommit=True) as connection:
        connection.execute(EMPTY[engine])


EMPTY = {"procrastinate": "truncate procrastinate_jobs, procrastinate_workers cascade"}


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """Leave no queue to the next test."""
    yield
    _settings.reset()
    _call.carrier = None


def job(n: int = 0, **options: object) -> Job:
    """Make a job."""
    fields = {"name": f"job-{n}", "function": "shop:deliver", "payload": "[[], {}]"}
    return Job(id=secrets.token_hex(8), **fields, **options)


@pytest.fixture
def make_job():
    """Make jobs."""
    return job
