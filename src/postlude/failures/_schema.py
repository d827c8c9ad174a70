"""Between records and the rows of a database: the same columns in every store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from postlude.exceptions import StoreError
from postlude.failures._record import FailureRecord
from postlude.failures._store import ProcessRecord, Tally

VERSION = 1
"""Of the tables. A store of a newer version is refused, an older one is migrated."""

FAILURES = "postlude_failures"
TALLIES = "postlude_tallies"
PROCESSES = "postlude_processes"
META = "postlude_meta"

LENGTHS = {
    "id": 64,
    "name": 600,
    "function": 300,
    "state": 16,
    "host": 255,
    "kind": 16,
    "route": 300,
    "label": 64,
}
"""Characters of columns that can be part of a key. MySQL's keys end at 3,072 bytes, and
a character takes four: the key of the numbers needs 2,724."""

HOUR = 60
KEPT_FINE = 48 * HOUR
"""Minutes after which numbers are put together by the hour."""
_INTEGER = 2**31 - 1


def text(value: str, most: int | None = None) -> str:
    """Give *value* as every database takes it, at most *most* characters of it.

    PostgreSQL refuses NUL, and halves of surrogate pairs (of file names, say) have no
    place in UTF-8. Both are shown by a sign instead, here and nowhere else.
    """
    if "\0" in value:
        value = value.replace("\0", "\N{SYMBOL FOR NULL}")
    if not value.isascii():
        pairs = value.encode("utf-16-le", "surrogatepass")
        value = pairs.decode("utf-16-le", "replace")
    return value if most is None else value[:most]


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: text(value, LENGTHS.get(name)) if isinstance(value, str) else value
        for name, value in values.items()
    }


def _json(content: Mapping[str, object]) -> str:
    try:
        clean = {
            text(str(key)): text(value) if isinstance(value, str) else value
            for key, value in content.items()
        }
        return json.dumps(clean, default=str)
    except Exception:  # noqa: BLE001 - one record that cannot be written holds up all others
        return "{}"


def _mapping(content: str) -> dict[str, Any]:
    """Read a mapping; what somebody broke by hand hides no record."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def failure_row(record: FailureRecord) -> dict[str, Any]:
    """Give the row of a record: mappings as JSON, all else as it is."""
    row = _row(record._asdict())
    row["arguments"] = _json(record.arguments)
    row["unit"] = _json(record.unit)
    row["attempt"] = min(record.attempt, _INTEGER)
    return row


def failure(row: Mapping[str, Any]) -> FailureRecord:
    """Give the record of a row."""
    values = dict(row)
    values["arguments"] = {k: str(v) for k, v in _mapping(row["arguments"]).items()}
    values["unit"] = _mapping(row["unit"])
    return FailureRecord(**values)


def tally_rows(tallies: Iterable[Tally]) -> list[dict[str, Any]]:
    """Give the rows of numbers, each key once.

    In the same order in every process: rows that two processes add to are then locked
    one after another, and never in a ring.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for tally in tallies:
        row = _row(tally._asdict())
        key = tuple(row.values())[:5]
        known = rows.setdefault(key, row)
        if known is not row:
            known["count"] += row["count"]
            known["total"] += row["total"]
    return [rows[key] for key in sorted(rows)]


def process_row(record: ProcessRecord) -> dict[str, Any]:
    """Give the row of a process."""
    row = _row(record._asdict())
    row["id"] = text(record.id)[-LENGTHS["id"] :]  # its end tells processes apart
    running = [(text(name), text(site), began) for name, site, began in record.running]
    row["running"] = json.dumps(running)
    row["limits"] = json.dumps(record.limits)
    return row


def process(row: Mapping[str, Any]) -> ProcessRecord:
    """Give the process of a row."""
    values = dict(row)
    values["running"] = tuple(
        (str(n), str(s), float(t)) for n, s, t in json.loads(row["running"])
    )
    values["limits"] = json.loads(row["limits"])
    return ProcessRecord(**values)


def version(row: Sequence[Any] | None) -> int:
    """Give the version that a row of the meta table tells.

    Raises:
        StoreError: it tells none.
    """
    try:
        return int("" if row is None else row[0])
    except (TypeError, ValueError):
        raise StoreError(
            f"The failure store has a table {META} without a version. Usually another "
            "program uses that name, or the table was changed by hand. Name another "
            "database: POSTLUDE_FAILURES."
        ) from None


def newer(store: object, found: int) -> str:
    """Say that a newer version of Postlude made the tables of *store*."""
    return (
        f"The failure store {store} has tables of version {found}, and this Postlude "
        f"knows up to {VERSION}. Usually two versions share one store. Upgrade "
        "Postlude here, or name another store: POSTLUDE_FAILURES."
    )


def by_hour(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows of numbers put together by the hour."""
    return tally_rows(
        Tally(**{**row, "minute": row["minute"] // HOUR * HOUR}) for row in rows
    )
