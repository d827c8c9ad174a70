"""Run a command with PostgreSQL and MariaDB: `python tests/databases.py COMMAND...`.

A server is used where it answers: at the address in the variables of its own clients
(PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE; MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_USER,
MYSQL_PWD), by default on this machine. Else it is started from its installed programs,
empty and on a free port, and ended with the command. The tests find both in the same
variables; TEST_DATABASES=all tells them to.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pymysql

PATIENCE = 60.0  # seconds; an empty server starts in a few on a loaded machine
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/local/sbin")
"""Where Debian has programs that are not on everybody's PATH."""


class MissingDatabaseError(Exception):
    """A server answers nowhere and cannot be started."""


@dataclass(frozen=True)
class Server:
    """How to find a database server, and how to start one."""

    name: str
    package: str
    account: str
    address: dict[str, str]
    """Its clients' variables, with their usual values; host, port and user first."""
    connect: Callable[[dict[str, str]], contextlib.AbstractContextManager[object]]
    refused: type[Exception]
    prepare: str
    serve: str
    stop: signal.Signals

    def found(self) -> dict[str, str]:
        """Return the address that the environment gives, or the usual one."""
        return {
            name: os.environ.get(name, value) for name, value in self.address.items()
        }

    def refusal(self, address: dict[str, str]) -> str | None:
        """Return why it lets nobody in there; None if it does."""
        try:
            with self.connect(address):
                return None
        except self.refused as exc:
            return str(exc).strip()


def _postgresql(address: dict[str, str]) -> psycopg.Connection:
    return psycopg.connect(
        host=address["PGHOST"],
        port=address["PGPORT"],
        user=address["PGUSER"],
        password=address["PGPASSWORD"],
        dbname=address["PGDATABASE"],
        connect_timeout=5,
    )


def _mariadb(address: dict[str, str]) -> pymysql.Connection:
    return pymysql.connect(
        host=address["MYSQL_HOST"],
        port=int(address["MYSQL_TCP_PORT"]),
        user=address["MYSQL_USER"],
        password=address["MYSQL_PWD"],
        connect_timeout=5,
    )


SERVERS = (
    Server(
        name="PostgreSQL",
        package="postgresql",
        account="postgres",
        address={
            "PGHOST": "127.0.0.1",
            "PGPORT": "5432",
            "PGUSER": "postgres",
            "PGPASSWORD": "",
            "PGDATABASE": "postgres",
        },
        connect=_postgresql,
        refused=psycopg.OperationalError,
        prepare="initdb --auth=trust --username=postgres --no-sync --pgdata={data}",
        serve="postgres -D {data} -p {port} -h 127.0.0.1 -k {data} -F",
        stop=signal.SIGINT,  # SIGTERM waits for the clients
    ),
    Server(
        name="MariaDB",
        package="mariadb-server",
        account="mysql",
        address={
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_TCP_PORT": "3306",
            "MYSQL_USER": "root",
            "MYSQL_PWD": "",
        },
        connect=_mariadb,
        refused=pymysql.err.OperationalError,
        prepare="mariadb-install-db --no-defaults --datadir={data} "
        "--auth-root-authentication-method=normal --skip-test-db",
        serve="mariadbd --no-defaults --datadir={data} --port={port} "
        "--bind-address=127.0.0.1 --socket={data}/socket --pid-file={data}/pid",
        stop=signal.SIGTERM,
    ),
)


@contextlib.contextmanager
def answering(server: Server) -> Iterator[dict[str, str]]:
    """Give the variables of a server that answers, started here if need be.

    Raises:
        MissingDatabaseError: None answers, and none can be started.
    """
    address = server.found()
    refusal = server.refusal(address)
    if refusal is None:
        yield address
        return
    programs = [_find(line.split()[0]) for line in (server.prepare, server.serve)]
    elsewhere = [name for name in server.address if name in os.environ]
    if elsewhere or not all(programs):
        where = "{2}@{0}:{1}".format(*address.values())
        raise MissingDatabaseError(
            f"{server.name} does not let us in at {where} ({refusal}).\n"
            f"Usually it is not running, or {', '.join(address)} say something else.\n"
            f"Start it, set these, or install it: apt install {server.package}"
        )
    with contextlib.ExitStack() as stack:
        # Not under build/: the account may have no way into the checkout.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postlude-"))
        yield stack.enter_context(_started(server, programs, Path(folder)))


@contextlib.contextmanager
def _started(
    server: Server, programs: list[str], folder: Path
) -> Iterator[dict[str, str]]:
    account = _account(server.account, folder)
    log, data, port = folder / "log", folder / "data", _free_port()

    def words(line: str, program: str) -> list[str]:
        return [program, *line.format(data=data, port=port).split()[1:]]

    # A session of its own: Ctrl-C is for the tests, which still need their databases.
    with log.open("wb") as output:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": output,
            "stderr": output,
            "cwd": folder,
            "start_new_session": True,
            **account,
        }
        prepared = subprocess.run(
            words(server.prepare, programs[0]), check=False, **options
        )
        if prepared.returncode:
            raise _failed(server, log)
        process = subprocess.Popen(words(server.serve, programs[1]), **options)
    try:
        _, port_variable, *_ = server.address
        address = server.address | {port_variable: str(port)}
        deadline = time.monotonic() + PATIENCE
        while server.refusal(address) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise _failed(server, log)
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(server.stop)
        process.wait(PATIENCE)


def _account(name: str, folder: Path) -> dict[str, object]:
    """Give the folder to whom the server runs as: not to root, which both refuse."""
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam(name)
    except KeyError:
        who = pwd.getpwnam("nobody")
    os.chown(folder, who.pw_uid, who.pw_gid)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _failed(server: Server, log: Path) -> MissingDatabaseError:
    said = log.read_text(errors="replace")[-2_000:]
    return MissingDatabaseError(
        f"{server.name} did not start:\n{said}\n"
        f"Usually its installation is incomplete, or the disk is full.\n"
        f"Install it again: apt install --reinstall {server.package}"
    )


def _find(program: str) -> str | None:
    """Return the path of a program, the newest one of several versions."""
    on_path = shutil.which(program)
    if on_path:
        return on_path
    found = [
        path for place in PLACES for path in Path("/").glob(f"{place[1:]}/{program}")
    ]
    return str(max(found, key=_version)) if found else None


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parts if part.isdigit())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(command: list[str]) -> int:
    """Run a command with all databases and return its status."""
    with contextlib.ExitStack() as stack:
        variables = {"TEST_DATABASES": "all"}
        for server in SERVERS:
            try:
                variables |= stack.enter_context(answering(server))
            except MissingDatabaseError as exc:
                sys.stderr.write(f"{exc}\n")
                return 1
        try:
            return subprocess.run(
                command, check=False, env=os.environ | variables
            ).returncode
        except KeyboardInterrupt:  # the command has had it too
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
