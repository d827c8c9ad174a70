"""Django's own database: `POSTLUDE = {"FAILURES": "django"}` in its settings.

Add `postlude.integrations.django` to `INSTALLED_APPS` and run `manage.py migrate`; the
admin shows the failures then. A database router may give them a database of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import IntegrityError, connections, router, transaction
from django.db.models import F, Q

from postlude.exceptions import SettingsError, StoreError
from postlude.failures import _schema
from postlude.failures._record import FailureRecord
from postlude.failures._store import Batch, ProcessRecord, Tally

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

__all__ = ["DjangoFailureStore"]

_T = TypeVar("_T")
_APP = "postlude.integrations.django"
_TRIES = 5
"""Times that a transaction is tried which others were in the way of."""
_IN_THE_WAY = {"40001", "40P01", 1213, 1205, 1020}
"""What PostgreSQL (SQLSTATE) and MySQL (number) say of deadlocks and their like."""
_AT_ONCE = 50
"""Records in one statement: MySQL takes some megabytes at a time."""
_TALLY = ("minute", "kind", "function", "route", "label")


class DjangoFailureStore:
    """Keeps records and numbers in a database of Django's. Any thread, any process."""

    immediate = False

    def __init__(self) -> None:
        """Use the database that the routers give for the app `postlude`.

        Raises:
            SettingsError: the app is not installed.
        """
        if apps.apps_ready and not apps.is_installed(_APP):
            raise SettingsError(_NO_APP)

    def __repr__(self) -> str:
        return "<DjangoFailureStore>"

    # -- writing ------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Keep all of *batch* in one transaction.

        Raises:
            StoreError: the database cannot be used now, and nothing was kept.
        """
        failures = {record.id: _schema.failure_row(record) for record in batch.failures}
        tallies = _schema.tally_rows(batch.tallies)
        process = [_schema.process_row(batch.process)] if batch.process else []

        def put(alias: str) -> None:
            _put(_model("Failure"), alias, list(failures.values()))
            for row in tallies:
                _add(alias, row)
            _put(_model("Process"), alias, process)

        self._change(put)

    def forget(self, ids: Iterable[str]) -> int:
        """Take records out; gives how many were there."""
        wanted = sorted({_schema.text(one) for one in ids})

        def take_out(alias: str) -> int:
            every = _rows("Failure", alias)
            return sum(
                every.filter(id__in=wanted[i : i + 500]).delete()[0]
                for i in range(0, len(wanted), 500)
            )

        return self._change(take_out)

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is older than *before*, and the oldest beyond *keep*."""
        fine = int(time.time() // 60) - _schema.KEPT_FINE

        def take_out(alias: str) -> int:
            failures = _rows("Failure", alias)
            gone, _ = failures.filter(ended__lt=before).delete()
            if keep is not None:
                gone += _drop_beyond(failures, keep)
            _rows("Tally", alias).filter(minute__lt=before // 60).delete()
            _rows("Process", alias).filter(seen__lt=before).delete()
            _roll_up(alias, fine)
            return gone

        return self._change(take_out)

    # -- reading ------------------------------------------------------------

    def list(
        self,
        *,
        limit: int | None = None,
        since: float | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Sequence[FailureRecord]:
        """Give records, oldest first; with *limit* the newest so many.

        Raises:
            StoreError: the database cannot be read.
        """
        wanted = Q()
        if since is not None:
            wanted &= Q(ended__gte=since)
        if name is not None:
            one = _schema.text(name)
            wanted &= Q(name=one) | Q(function=one)
        if state is not None:
            wanted &= Q(state=_schema.text(state))

        def read(alias: str) -> Sequence[FailureRecord]:
            found = _rows("Failure", alias).filter(wanted).order_by("-ended", "-id")
            rows = found.values(*FailureRecord._fields)[:limit]
            return [_schema.failure(row) for row in reversed(rows)]

        return self._use(read)

    def find(self, prefix: str) -> Sequence[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        prefix = _schema.text(prefix)

        def read(alias: str) -> Sequence[FailureRecord]:
            found = _rows("Failure", alias).filter(id__startswith=prefix)
            rows = found.order_by("ended", "id").values(*FailureRecord._fields)[:10]
            # SQLite compares without regard to case.
            return [_schema.failure(r) for r in rows if r["id"].startswith(prefix)]

        return self._use(read)

    def count(self) -> int:
        """Give the number of records kept."""
        return self._use(lambda alias: _rows("Failure", alias).count())

    def tallies(self, since: float) -> Sequence[Tally]:
        """Give the numbers of all minutes from *since* (Unix seconds) on."""

        def read(alias: str) -> Sequence[Tally]:
            found = _rows("Tally", alias).filter(minute__gte=since // 60)
            rows = found.order_by("minute").values(*Tally._fields)
            return [Tally(**row) for row in rows]

        return self._use(read)

    def processes(self, since: float) -> Sequence[ProcessRecord]:
        """Give the processes seen from *since* (Unix seconds) on."""

        def read(alias: str) -> Sequence[ProcessRecord]:
            found = _rows("Process", alias).filter(seen__gte=since)
            rows = found.order_by("host", "pid").values(*ProcessRecord._fields)
            return [_schema.process(row) for row in rows]

        return self._use(read)

    # -- the database -------------------------------------------------------

    def close(self) -> None:
        """Close this thread's connection, unless a transaction is open on it."""
        connection = connections[_alias()]
        if not connection.in_atomic_block:
            connection.close()

    def _change(self, work: Callable[[str], _T]) -> _T:
        """Do *work* in one transaction; again, if others were in the way."""

        def transact(alias: str) -> _T:
            for left in reversed(range(_TRIES)):
                try:
                    with transaction.atomic(using=alias):
                        return work(alias)
                except DatabaseError as exc:
                    inside = connections[alias].in_atomic_block
                    if inside or not left or not _is_in_the_way(exc):
                        raise
                    time.sleep(0.02 * (_TRIES - left))
            raise AssertionError("the last try returns or raises")

        return self._use(transact)

    def _use(self, work: Callable[[str], _T]) -> _T:
        """Do *work* with the alias of the database.

        A thread of Postlude's gets its connection from nobody else, and nobody else
        closes it: so it is closed here as Django does it around a request.
        """
        try:
            alias = _alias()
            connection = connections[alias]
            if connection.in_atomic_block:  # of whoever asks, and so it stays his
                return _translated(alias, work)
            connection.close_if_unusable_or_obsolete()
            was_open = connection.connection is not None
            try:
                return _translated(alias, work)
            finally:
                if not was_open or connection.errors_occurred:
                    connection.close_if_unusable_or_obsolete()
        except (AppRegistryNotReady, ImproperlyConfigured) as exc:
            raise StoreError(
                f"The failure store is Django's database, and Django is not set up: "
                f"{exc}. Usually the program was not started by Django. Use `manage.py "
                "postlude`, or call `django.setup()` first."
            ) from exc


_NO_APP = (
    "failures is 'django', and Django has no tables for them: the app "
    f"{_APP!r} is not among INSTALLED_APPS. Usually it was forgotten. Add it, and run "
    "`manage.py migrate postlude`."
)


def _model(name: str) -> Any:
    try:
        return apps.get_model("postlude", name)
    except LookupError:
        raise StoreError(_NO_APP) from None


def _alias() -> str:
    return router.db_for_write(_model("Failure"))


def _rows(name: str, alias: str) -> QuerySet[Any, Any]:
    rows: QuerySet[Any, Any] = _model(name)._default_manager.using(alias)
    return rows


def _put(model: type[Model], alias: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows; those that are there already are replaced."""
    features = connections[alias].features
    every = model._default_manager.using(alias)
    new = [model(**row) for row in rows]
    if not features.supports_update_conflicts:
        every.filter(pk__in=[row["id"] for row in rows]).delete()
        every.bulk_create(new, _AT_ONCE)
        return
    with_target = features.supports_update_conflicts_with_target
    every.bulk_create(
        new,
        _AT_ONCE,
        update_conflicts=True,
        unique_fields=["id"] if with_target else None,
        update_fields=[
            field.name for field in model._meta.concrete_fields if not field.primary_key
        ],
    )


def _add(alias: str, row: dict[str, Any]) -> None:
    """Add to a number, or begin it; another process may do so at the same time."""
    every = _rows("Tally", alias)
    this = every.filter(**{name: row[name] for name in _TALLY})
    more = {"count": F("count") + row["count"], "total": F("total") + row["total"]}
    if this.update(**more):
        return
    try:
        with transaction.atomic(using=alias):
            every.create(**row)
    except IntegrityError:
        this.update(**more)


def _drop_beyond(failures: QuerySet[Any, Any], keep: int) -> int:
    newest = failures.order_by("-ended", "-id").values("ended", "id")[keep : keep + 1]
    for last in newest:
        older = Q(ended__lt=last["ended"]) | Q(ended=last["ended"], id__lte=last["id"])
        return failures.filter(older).delete()[0]
    return 0


def _roll_up(alias: str, fine: int) -> None:
    """Put the numbers of the minutes before *fine* together by the hour."""
    every = _rows("Tally", alias)
    # Locked: another process that does the same waits here, and finds nothing then.
    old = every.filter(minute__lt=fine).alias(rest=F("minute") % _schema.HOUR)
    old = old.exclude(rest=0).select_for_update()
    found = {row.pop("pk"): row for row in old.values("pk", *Tally._fields)}
    for row in _schema.by_hour(found.values()):
        _add(alias, row)
    keys = list(found)
    for i in range(0, len(keys), 500):
        every.filter(pk__in=keys[i : i + 500]).delete()


def _is_in_the_way(exc: DatabaseError) -> bool:
    original: Any = exc.__cause__
    codes = {getattr(original, "sqlstate", None), *exc.args[:1]}
    return bool(_IN_THE_WAY & codes)


def _translated(alias: str, work: Callable[[str], _T]) -> _T:
    try:
        return work(alias)
    except DatabaseError as exc:
        raise _refused(alias, exc) from exc


def _refused(alias: str, exc: DatabaseError) -> StoreError:
    said = (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
    what = f"The failure store, Django's database {alias!r}, cannot be used: {said}. "
    if _lacks_tables(alias):
        return StoreError(
            f"{what}Usually its tables have not been made yet. Run `manage.py migrate "
            f"postlude --database {alias}`."
        )
    return StoreError(
        f"{what}Usually the server is down or does not let us in. Look at "
        f"DATABASES[{alias!r}], or name another store: POSTLUDE_FAILURES."
    )


def _lacks_tables(alias: str) -> bool:
    connection = connections[alias]
    if connection.in_atomic_block and connection.needs_rollback:
        return False
    try:
        there = connection.introspection.table_names()
    except DatabaseError:
        return False
    names = ("Failure", "Tally", "Process")
    return not {_model(name)._meta.db_table for name in names} <= set(there)
