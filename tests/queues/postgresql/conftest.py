"""The engines on PostgreSQL, each with a database of its own on the real server.

Without `TEST_SERVICES=all` none is run: `make test` needs no server.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from postlude import _call, _settings
from postlude.queues import Job, open_queue

sys.path.insert(0, str(Path(__file__).parent))

from places import database

ALL = os.environ.get("TEST_SERVICES") == "all"
LEASING = ["absurd", "procrastinate"]
collect_ignore_glob = [] if ALL else ["test_*.py"]
if find_spec("dbos") is None:  # with the oldest SQLAlchemy there is none
    collect_ignore_glob += ["test_*dbos.py"]


@pytest.fixture(scope="module", params=LEASING)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a queue in a database that this file has for itself."""
    with database(request.param) as address:
        yield address


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


EMPTY = {
    "absurd": "truncate absurd.t_postlude, absurd.r_postlude",
    "procrastinate": "truncate procrastinate_jobs, procrastinate_workers cascade",
}


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
