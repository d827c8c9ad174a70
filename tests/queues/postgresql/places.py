"""Databases on the real server, each with the tables of one engine."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg


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


@contextmanager
def database(engine: str) -> Iterator[str]:
    """Give the address of an engine in a database of its own."""
    name = f"postlude_{secrets.token_hex(6)}"
    queue = f"{engine}+{Server().address(name)}"
    maintenance = Server().address(os.environ.get("PGDATABASE", "postgres"))
    with psycopg.connect(maintenance, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        # Power failures are not tested here, and each commit waits for the disk else.
        server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        try:
            install(queue)
            yield queue
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def place(engine: str, **settings: str) -> Iterator[Mapping[str, str]]:
    """Give the environment of processes that use such an engine."""
    with database(engine) as queue:
        yield {"POSTLUDE_QUEUE": queue, "POSTLUDE_QUEUE_LEASE": "2", **settings}


@contextmanager
def site_of_tasks(**settings: str) -> Iterator[Mapping[str, str]]:
    """Give the environment of processes of a Django project with tasks in rows."""
    with database("django") as queue:
        yield {
            "POSTLUDE_QUEUE": "django",
            "POSTLUDE_QUEUE_LEASE": "2",
            **django_environment(queue.partition("+")[2]),
            **settings,
        }


def django_environment(address: str) -> dict[str, str]:
    """Give the environment in which Django finds its settings."""
    here = Path(__file__).parent
    return {
        "SHOP_DATABASE": address,
        "DJANGO_SETTINGS_MODULE": "site_of_tasks",
        "PYTHONPATH": f"{here}{os.pathsep}{here.parent / 'kill'}",
    }


def install(queue: str) -> None:
    """Make the tables of an engine, by the commands that the documentation gives."""
    engine, _, address = queue.partition("+")
    for name, *options in COMMANDS[engine]:
        done = subprocess.run(
            [
                Path(sys.executable).parent / name,
                *(option.format(address=address) for option in options),
            ],
            check=False,
            capture_output=True,
            env={
                **os.environ,
                "POSTLUDE_QUEUE": queue,
                "ABSURD_DATABASE_URL": address,
                **(django_environment(address) if engine == "django" else {}),
            },
        )
        assert done.returncode == 0, done.stderr.decode()


COMMANDS = {
    "absurd": (("absurdctl", "init"), ("absurdctl", "create-queue", "postlude")),
    "dbos": (("dbos", "migrate", "--sys-db-url={address}"),),
    "django": (("django-admin", "migrate"),),
    "procrastinate": (
        (
            "procrastinate",
            "--app=postlude.queues.procrastinate.app",
            "schema",
            "--apply",
        ),
    ),
}
