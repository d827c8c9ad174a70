"""From the setting `failures` to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from postlude.exceptions import SettingsError

if TYPE_CHECKING:
    from postlude.failures._store import FailureStore

_FILES = (".db", ".sqlite", ".sqlite3")


def open_store(where: object, *, create: bool = True) -> FailureStore:
    """Give the store that *where* names; nothing is opened before its first use.

    Args:
        where: a path, an address, `memory`, `django`, or a store.
        create: make a SQLite file that is not there; without, using it is an error.

    Raises:
        SettingsError: *where* names no kind of store, or one that is not installed.
    """
    if not isinstance(where, str):
        return cast("FailureStore", where)
    if where == "memory":
        from postlude.failures.memory import MemoryFailureStore  # noqa: PLC0415

        return MemoryFailureStore(1_000)
    if where == "django":
        return _of_django()
    scheme, separator, rest = where.partition("://")
    if scheme == "sqlite" or (not separator and where.endswith(_FILES)):
        from postlude.failures.sqlite import SQLiteFailureStore  # noqa: PLC0415

        # As in SQLAlchemy's addresses: three slashes and a path, four if absolute.
        path = rest.removeprefix("/") if separator else where
        return SQLiteFailureStore(path, create=create)
    if not separator:
        raise SettingsError(
            f"failures is {where!r}, which names no store. Usually the ending of a "
            "file or the scheme of an address is missing. Use a path that ends in .db, "
            "'sqlite:///postlude.db', 'postgresql+psycopg://user@host/name', 'django' "
            "or 'memory'."
        )
    try:
        from postlude.failures.sqlalchemy import (  # noqa: PLC0415
            SQLAlchemyFailureStore,
        )
    except ImportError as exc:
        raise SettingsError(
            f"failures is an address of {scheme}, and SQLAlchemy is not installed. "
            "Such databases are reached through it. Install it with "
            "`pip install 'postlude[sqlalchemy]'`."
        ) from exc
    return SQLAlchemyFailureStore(where)


def _of_django() -> FailureStore:
    try:
        from postlude.failures.django import DjangoFailureStore  # noqa: PLC0415
    except ImportError as exc:
        raise SettingsError(
            "failures is 'django', and Django is not installed here. Usually the "
            "setting comes from the environment of another program. Name another "
            "store: POSTLUDE_FAILURES=sqlite:///postlude.db."
        ) from exc
    return DjangoFailureStore()
