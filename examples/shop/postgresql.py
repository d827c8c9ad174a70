"""PostgreSQL for the demo: the server that answers, or one from installed binaries."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg import sql
from sqlalchemy import URL

from shop.opening import ShopError
from shop.processes import Process, Processes
from shop.signals import uninterrupted

PLACES = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # the PostgreSQL project's own packages for Red Hat
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
"""Where initdb is when it is not on PATH."""
NAMED = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGUSER")
"""Whoever sets one of these means a certain server."""
FIX = """install it (apt install postgresql, brew install postgresql@17), or name a
       server: PGHOST=... PGUSER=... PGPASSWORD=... before the same command"""
START_SECONDS = 30.0
SUPERUSER = "postgres"


class NoServerError(ShopError):
    """No PostgreSQL can be had; its text says what, why and the fix."""

    def __init__(self, happened: str, cause: str) -> None:
        """Say it in the three beats."""
        super().__init__(f"no PostgreSQL for the demo: {happened}", cause, FIX)


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server that lets us in."""

    title: str
    login: dict[str, str]
    """What psycopg needs besides the variables of libpq."""

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database for as long as the block lasts; give SQLAlchemy's address."""
        name = f"postlude_demo_{secrets.token_hex(4)}"
        quoted = sql.Identifier(name)
        with _connection(self.login) as server:
            try:
                server.execute(sql.SQL("CREATE DATABASE {}").format(quoted))
                yield self._address(name, server.info)
            finally:
                with uninterrupted():
                    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                    server.execute(drop.format(quoted))

    @staticmethod
    def _address(name: str, info: psycopg.ConnectionInfo) -> str:
        """Return the address; a socket's folder does not go where hosts do."""
        a_socket = info.host.startswith("/")
        return URL.create(
            "postgresql+psycopg",
            username=info.user,
            password=info.password or None,
            host=None if a_socket else info.host,
            port=None if a_socket else info.port,
            database=name,
            query={"host": info.host, "port": str(info.port)} if a_socket else {},
        ).render_as_string(hide_password=False)


@contextmanager
def open_server() -> Iterator[Server]:
    """Give the server that the variables of libpq name, or the one on the usual port.

    Where none of them is set and nobody lets us in, one is started in a folder of its
    own, if its programs are installed.

    Raises:
        NoServerError: there is none, and none can be started.
    """
    try:
        server = _running()
    except psycopg.OperationalError as error:
        refusal = str(error).strip().splitlines()[0].rstrip(".")
    else:
        yield server
        return
    if named := [name for name in NAMED if name in os.environ]:
        raise NoServerError(
            f"{refusal}.", f"it does not run, or {named[0]} is not what it must be."
        )
    programs = _programs()
    if programs is None:
        raise NoServerError(f"{refusal}.", "none runs, and initdb is not installed.")
    with _started(programs) as server:
        yield server


def _running() -> Server:
    """Return a server that runs and lets us in.

    Raises:
        psycopg.OperationalError: there is none.
    """
    hosts = [{}] if "PGHOST" in os.environ else [{"host": "127.0.0.1"}, {}]
    users = [{}] if "PGUSER" in os.environ else [{}, {"user": SUPERUSER}]
    refusals = []
    for host, user in product(hosts, users):
        try:
            return _server(host | user)
        except psycopg.OperationalError as error:
            refusals.append(error)
    raise refusals[0]


def _server(login: dict[str, str]) -> Server:
    with _connection(login) as connection:
        allowed = connection.execute(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        if allowed != (True,):
            role = connection.info.user
            raise psycopg.OperationalError(f"{role} may not create databases there")
        number = connection.info.server_version // 10_000
    return Server(f"PostgreSQL {number}", login)


def _connection(login: dict[str, str]) -> psycopg.Connection:
    usual = {} if "PGDATABASE" in os.environ else {"dbname": "postgres"}
    return psycopg.connect(**usual, **login, autocommit=True, connect_timeout=5)


def _programs() -> Path | None:
    """Return the folder with initdb and postgres; the newest, if none is on PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [name for place in PLACES for name in Path("/").glob(place)]
    folders = [folder for folder in folders if (folder / "initdb").exists()]
    return max(folders, key=_version, default=None)


def _version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]


@contextmanager
def _started(programs: Path) -> Iterator[Server]:
    """Run a server that only we can reach: by a socket in a folder of its own.

    Raises:
        NoServerError: it does not start.
    """
    with TemporaryDirectory(prefix="postlude-pg-") as name, Processes(Path(name)) as ps:
        user = _owner(name)
        data = f"{name}/data"
        initdb = ps.start(
            "initdb",
            [
                *(f"{programs}/initdb", "-D", data, "-U", SUPERUSER, "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            {},
            user=user,
        )
        if initdb.wait() != 0:
            raise _not_started(initdb)
        process = ps.start(
            "PostgreSQL",
            [
                *(f"{programs}/postgres", "-D", data, "-k", name, "-p", "5432"),
                *("-c", "listen_addresses=", "-c", "fsync=off"),
            ],
            {},
            user=user,
        )
        yield _await_server(process, {"host": name, "user": SUPERUSER})


def _await_server(process: Process, login: dict[str, str]) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while process.running and time.monotonic() < deadline:
        try:
            return _server(login)
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise _not_started(process)


def _owner(folder: str) -> str | None:
    """Return as whom the server must run: it refuses to run as root.

    Raises:
        NoServerError: root has nobody to run it as.
    """
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(SUPERUSER)
    except KeyError:
        raise NoServerError(
            "none runs, and it refuses to be started by root.",
            f"there is no user {SUPERUSER} on this machine to start it as.",
        ) from None
    os.chown(folder, account.pw_uid, account.pw_gid)
    return SUPERUSER


def _not_started(process: Process) -> NoServerError:
    *_, said = process.log_tail().splitlines()
    return NoServerError(
        f"none runs, and {process.name} did not start one.", f"it said: {said}"
    )
