"""What the tests of all transaction files share: databases, and nothing left behind.

SQLite is always there. `TEST_SERVICES=all` adds PostgreSQL and MariaDB, found
by the variables of their own clients: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE,
and MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_USER, MYSQL_PWD.
"""

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import psycopg
import pymysql
import pytest

import postlude
from postlude import _background, _defer, _process, _reporting, _runner, _settings, wsgi

# The waiting of the core's tests serves here too, and the project of Django's: the
# importlib mode has no path to them.
sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[1] / "integrations/django/probes"))

import in_process
from stage.waiting import PATIENCE, Listener

ALL = os.environ.get("TEST_SERVICES") == "all"
KINDS = ["sqlite", "postgresql", "mariadb"] if ALL else ["sqlite"]
ASYNC_KINDS = [kind for kind in KINDS if kind != "mariadb"]  # no driver of it here


@dataclass(frozen=True)
class Database:
    """A fresh database of a test's own."""

    kind: str
    name: str
    """The file of SQLite, elsewhere the database's name on its server."""
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        """Its address for SQLAlchemy."""
        return self._url(postgresql="postgresql+psycopg", mariadb="mariadb+pymysql")

    @property
    def async_url(self) -> str:
        """Its address for SQLAlchemy's asyncio extension."""
        return self._url(sqlite="sqlite+aiosqlite", postgresql="postgresql+asyncpg")

    @property
    def shown(self) -> str:
        """How records name it: without driver, user and password."""
        return f"{self.kind}://{self._server(False)}/{self.name}"

    def _url(self, **drivers: str) -> str:
        scheme = drivers.get(self.kind, self.kind)
        return f"{scheme}://{self._server(True)}/{self.name}"

    def _server(self, login: bool) -> str:
        if self.kind == "sqlite":
            return ""
        password = f":{quote(self.password)}" if self.password else ""
        who = f"{self.user}{password}@" if login else ""
        return f"{who}{self.host}:{self.port}"


def _sqlite(folder: Path) -> Iterator[Database]:
    yield Database("sqlite", str(folder / "test.db"))


def _postgresql() -> Iterator[Database]:
    name = f"postlude_{secrets.token_hex(6)}"
    host = os.environ.get("PGHOST", "127.0.0.1")
    port = int(os.environ.get("PGPORT", "5432"))
    user = os.environ.get("PGUSER", "postgres")
    password = os.environ.get("PGPASSWORD", "")
    try:
        server = psycopg.connect(
            host=host,
            port=port,
            user=user,
            password=password or None,
            dbname=os.environ.get("PGDATABASE", "postgres"),
            autocommit=True,
            connect_timeout=5,
        )
    except psycopg.OperationalError as exc:
        pytest.fail(_missing("PostgreSQL", f"{user}@{host}:{port}", "PGHOST", exc))
    with server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield Database("postgresql", name, host, port, user, password)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _mariadb() -> Iterator[Database]:
    name = f"postlude_{secrets.token_hex(6)}"
    host = os.environ.get("MYSQL_HOST", "127.0.0.1")
    port = int(os.environ.get("MYSQL_TCP_PORT", "3306"))
    user = os.environ.get("MYSQL_USER", "root")
    password = os.environ.get("MYSQL_PWD", "")
    try:
        server = pymysql.connect(
            host=host, port=port, user=user, password=password, connect_timeout=5
        )
    except pymysql.err.OperationalError as exc:
        pytest.fail(_missing("MariaDB", f"{user}@{host}:{port}", "MYSQL_HOST", exc))
    with server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield Database("mariadb", name, host, port, user, password)
        finally:
            cursor.execute(f"DROP DATABASE {name}")


def _missing(server: str, where: str, variable: str, exc: Exception) -> str:
    return (
        f"No {server} answers at {where} ({exc}). Usually it is not running, or "
        f"elsewhere. Start it, set {variable} and its siblings, or run without "
        "TEST_SERVICES=all."
    )


def _make(kind: str, folder: Path) -> Iterator[Database]:
    if kind == "sqlite":
        return _sqlite(folder)
    return _postgresql() if kind == "postgresql" else _mariadb()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database on each of the servers."""
    yield from _make(request.param, tmp_path)


@pytest.fixture(params=ASYNC_KINDS)
def async_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Database]:
    """A fresh database on each of the servers that have an async driver here."""
    yield from _make(request.param, tmp_path)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """A fresh database in a file, where the server makes no difference."""
    yield from _make("sqlite", tmp_path)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process as if new, and see that it leaves no call behind."""
    monkeypatch.setattr(wsgi, "_said", True)  # pytest leaves SIGTERM to the system
    monkeypatch.setattr(_reporting, "_store", None)
    monkeypatch.setattr(_background, "_warned", set())
    monkeypatch.setattr(_defer, "_warned", set())
    _settings.reset()
    yield
    attempts = 600
    while (left := _units()) and (attempts := attempts - 1):
        time.sleep(0.005)
    postlude.drain(0)
    assert left == [], "the test, or Postlude, left units behind"
    assert _runner.running == {}, "the test, or Postlude, left calls behind"
    _settings.reset()


def _units() -> list[postlude.DeferScope]:
    return [
        scope for runner in list(_process.runners) for scope in _process.units(runner)
    ]


@pytest.fixture(scope="session", autouse=True)
def _everything_installed():
    """Have every adapter at once: an ORM speaks for the driver that it stands on."""
    in_process.configure()
    for name in (
        "asyncpg",
        "django",
        "peewee",
        "pony",
        "psycopg",
        "sqlalchemy",
        "tortoise",
        "zope",
    ):
        import_module(f"postlude.transactions.{name}").install()


@pytest.fixture
def drained():
    """Wait until every call has settled that can."""

    def drained() -> None:
        postlude.drain(PATIENCE)

    return drained


@pytest.fixture
def logged() -> Iterator[Listener]:
    """What the logger "postlude" was told in this test."""
    logger = logging.getLogger("postlude")
    listener = Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    yield listener
    logger.setLevel(level)
    logger.removeHandler(listener)
