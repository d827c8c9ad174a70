"""The databases of the demo: SQLite, and PostgreSQL where one can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shop.postgresql import NoServerError, open_server
from shop.settings import BadSettingError

KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Database:
    """A kind of database of which there can be as many as wanted."""

    title: str
    fresh: Callable[[Path], AbstractContextManager[str]]
    """Makes an empty one, for a shop that has this folder; gives its address."""


@dataclass(frozen=True, slots=True)
class Databases:
    """Those that can be had, and what to say of the one that cannot."""

    found: list[Database]
    missing: str | None


@contextmanager
def open_databases(kinds: tuple[str, ...], required: bool) -> Iterator[Databases]:
    """Give the databases of these kinds for as long as the block lasts.

    Raises:
        NoServerError: PostgreSQL is `required`, and there is none.
    """
    found = [SQLITE] if "sqlite" in kinds else []
    if "postgresql" not in kinds:
        yield Databases(found, None)
        return
    with ExitStack() as stack:
        missing = None
        try:
            server = stack.enter_context(open_server())
            found.append(Database(server.title, lambda folder: server.database()))
        except NoServerError as error:
            if required:
                raise
            missing = str(error)
        yield Databases(found, missing)


def wanted(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds that DATABASES names; none when it is not set.

    Raises:
        BadSettingError: it names another.
    """
    names = environ.get("DATABASES", "").lower().replace(",", " ").split()
    for name in names:
        if name not in KINDS:
            raise BadSettingError(
                f"DATABASES={name} is not one of {', '.join(KINDS)}.",
                "the demo knows these two only, or a typing slip.",
                f"DATABASES={','.join(KINDS)} make demo-rollback",
            )
    return tuple(names)


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'shop.sqlite3'}"


SQLITE = Database("SQLite", _sqlite)
