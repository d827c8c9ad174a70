"""Run a command with all services there are: `python tests/services.py COMMAND...`.

PostgreSQL, MariaDB, Redis and RabbitMQ. A server is used where it answers: at the
address in its variables (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE; MYSQL_HOST,
MYSQL_TCP_PORT, MYSQL_USER, MYSQL_PWD; REDIS_URL; AMQP_URL), by default on this machine.
Else it is started from its installed programs, empty and on a free port, and ended with
the command. The tests find all of them in the same variables; TEST_SERVICES=all tells
them to.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql

PATIENCE = 120.0  # seconds; RabbitMQ takes 20 on a loaded machine
PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/lib/rabbitmq/bin",
    "/usr/sbin",
    "/usr/local/sbin",
)
"""Where Debian has programs that are not on everybody's PATH."""

Address = Mapping[str, str]


class MissingServiceError(Exception):
    """A server answers nowhere and cannot be started."""


@dataclass(frozen=True)
class Server:
    """How to find a server, and how to start one."""

    name: str
    package: str
    account: str
    address: Address
    """Its variables, with their usual values."""
    port: str
    """The variable that holds its port."""
    enter: Callable[[Address], None]
    """Go in there; raises `refusals` where it does not let us in."""
    refusals: tuple[type[Exception], ...]
    serve: str
    prepare: str = ""
    stop: signal.Signals = signal.SIGTERM
    environment: Address = field(default_factory=dict)
    also_end: str = ""
    """What ends the helpers that it leaves behind."""

    @property
    def usual_port(self) -> int:
        """Where it listens if nobody says otherwise."""
        value = self.address[self.port]
        return int(value) if value.isdigit() else urlsplit(value).port or 0

    def found(self) -> Address:
        """Return the address that the environment gives, or the usual one."""
        return {
            name: os.environ.get(name, value) for name, value in self.address.items()
        }

    def at(self, port: int) -> Address:
        """Return the usual address, but for the port."""
        value = self.address[self.port].replace(str(self.usual_port), str(port))
        return {**self.address, self.port: value}

    def refusal(self, address: Address) -> str | None:
        """Return why it lets nobody in there; None if it does."""
        try:
            self.enter(address)
        except self.refusals as exc:
            return str(exc).strip() or type(exc).__name__
        return None


def _postgresql(address: Address) -> None:
    psycopg.connect(
        host=address["PGHOST"],
        port=address["PGPORT"],
        user=address["PGUSER"],
        password=address["PGPASSWORD"],
        dbname=address["PGDATABASE"],
        connect_timeout=5,
    ).close()


def _mariadb(address: Address) -> None:
    pymysql.connect(
        host=address["MYSQL_HOST"],
        port=int(address["MYSQL_TCP_PORT"]),
        user=address["MYSQL_USER"],
        password=address["MYSQL_PWD"],
        connect_timeout=5,
    ).close()


def _ask(url: str, *words: bytes) -> bytes:
    """Say something to the server of a URL, and return the last answer's begin."""
    parts = urlsplit(url)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), 5) as connection:
        for word in words:
            connection.sendall(word)
            answer = connection.recv(1024)
    return answer


def _redis(address: Address) -> None:
    url = address["REDIS_URL"]
    parts = urlsplit(url)
    words = [b"PING\r\n"]
    if parts.password:
        who = f"{parts.username or 'default'} {unquote(parts.password)}"
        words.insert(0, f"AUTH {who}\r\n".encode())
    answer = _ask(url, *words)
    if not answer.startswith(b"+PONG"):
        raise ConnectionError(answer.decode(errors="replace"))


def _rabbitmq(address: Address) -> None:
    # AMQP 0-9-1, section 4.2.2: a server answers the header with a method frame (type
    # 1), or with the version that it speaks.
    answer = _ask(address["AMQP_URL"], b"AMQP\0\0\x09\x01")
    if not answer.startswith(b"\x01"):
        raise ConnectionError(f"it speaks no AMQP 0-9-1, but {answer[:8]!r}")


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
        port="PGPORT",
        enter=_postgresql,
        refusals=(psycopg.OperationalError,),
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
        port="MYSQL_TCP_PORT",
        enter=_mariadb,
        refusals=(pymysql.err.OperationalError,),
        prepare="mariadb-install-db --no-defaults --datadir={data} "
        "--auth-root-authentication-method=normal --skip-test-db",
        serve="mariadbd --no-defaults --datadir={data} --port={port} "
        "--bind-address=127.0.0.1 --socket={data}/socket --pid-file={data}/pid",
    ),
    Server(
        name="Redis",
        package="redis-server",
        account="redis",
        address={"REDIS_URL": "redis://127.0.0.1:6379/15"},
        port="REDIS_URL",
        enter=_redis,
        refusals=(OSError,),
        serve="redis-server --port {port} --bind 127.0.0.1 --dir {folder}",
    ),
    Server(
        name="RabbitMQ",
        package="rabbitmq-server",
        account="rabbitmq",
        address={"AMQP_URL": "amqp://guest:guest@127.0.0.1:5672//"},
        port="AMQP_URL",
        enter=_rabbitmq,
        refusals=(OSError,),
        serve="rabbitmq-server",
        environment={
            "HOME": "{folder}",
            "RABBITMQ_NODENAME": "postlude-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": "{port}",
            "RABBITMQ_DIST_PORT": "{second}",
            "ERL_EPMD_PORT": "{third}",
            "RABBITMQ_MNESIA_BASE": "{data}",
            "RABBITMQ_LOG_BASE": "{folder}",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": "{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "{folder}/none",
            "RABBITMQ_CONFIG_FILE": "{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "{folder}/none",
        },
        # Erlang's own name server outlives whoever needed it first.
        also_end="epmd -kill",
    ),
)


@contextlib.contextmanager
def answering(server: Server) -> Iterator[Address]:
    """Give the variables of a server that answers, started here if need be.

    Raises:
        MissingServiceError: None answers, and none can be started.
    """
    address = server.found()
    refusal = server.refusal(address)
    if refusal is None:
        yield address
        return
    lines = filter(None, (server.prepare, server.serve, server.also_end))
    programs = {line.split()[0]: _find(line.split()[0]) for line in lines}
    elsewhere = any(name in os.environ for name in server.address)
    if elsewhere or not all(programs.values()):
        shown = " ".join(f"{name}={value}" for name, value in address.items())
        raise MissingServiceError(
            f"{server.name} does not let us in ({refusal}) with {shown}\n"
            f"Usually it is not running, or these variables say something else.\n"
            f"Start it, set these, or install it: apt install {server.package}"
        )
    with contextlib.ExitStack() as stack:
        # Not under build/: the account may have no way into the checkout.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postlude-"))
        yield stack.enter_context(_started(server, programs, Path(folder)))


@contextlib.contextmanager
def _started(
    server: Server, programs: Mapping[str, str], folder: Path
) -> Iterator[Address]:
    account = _account(server.account, folder)
    log = folder / "log"
    port, second, third = _free_ports(3)
    names = {"data": folder / "data", "folder": folder}
    names |= {"port": port, "second": second, "third": third}
    more = {name: value.format(**names) for name, value in server.environment.items()}

    def words(line: str) -> list[str]:
        program, *rest = line.split()
        return [programs[program], *(word.format(**names) for word in rest)]

    # A session of its own: Ctrl-C is for the tests, which still need their services.
    with log.open("wb") as output:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": output,
            "stderr": output,
            "cwd": folder,
            "env": os.environ | more,
            "start_new_session": True,
            **account,
        }
        if (
            server.prepare
            and subprocess.run(words(server.prepare), check=False, **options).returncode
        ):
            raise _failed(server, log)
        process = subprocess.Popen(words(server.serve), **options)
    try:
        address = server.at(port)
        deadline = time.monotonic() + PATIENCE
        while server.refusal(address) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise _failed(server, log)
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(server.stop)
        process.wait(PATIENCE)
        if server.also_end:
            quiet = {**options, "stdout": subprocess.DEVNULL, "stderr": None}
            subprocess.run(words(server.also_end), check=False, **quiet)


def _account(name: str, folder: Path) -> dict[str, object]:
    """Give the folder to whom the server runs as: not to root, whom most refuse."""
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam(name)
    except KeyError:
        who = pwd.getpwnam("nobody")
    os.chown(folder, who.pw_uid, who.pw_gid)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _failed(server: Server, log: Path) -> MissingServiceError:
    said = log.read_text(errors="replace")[-2_000:]
    return MissingServiceError(
        f"{server.name} did not start:\n{said}\n"
        f"Usually its installation is incomplete, or the disk is full.\n"
        f"Install it again: apt install --reinstall {server.package}"
    )


def _find(program: str) -> str:
    """Return the path of a program, the newest of several versions; "" for none."""
    found = [
        path for place in PLACES for path in Path("/").glob(f"{place[1:]}/{program}")
    ]
    # Debian's packages before PATH, which may have a wrapper for root's use only.
    return str(max(found, key=_version)) if found else shutil.which(program) or ""


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parts if part.isdigit())


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody has now, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def main(command: list[str]) -> int:
    """Run a command with all services and return its status."""
    with contextlib.ExitStack() as stack:
        variables = {"TEST_SERVICES": "all"}
        for server in SERVERS:
            try:
                variables |= stack.enter_context(answering(server))
            except MissingServiceError as exc:
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
