"""From rows of the embedded queue to jobs and records, and back."""
# Unhinged's own types leave open what its dicts hold.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from unhinged.engine import EPOCH, Engine
from unhinged.schema import table

from postlude.exceptions import ArgumentError
from postlude.queues._job import Job
from postlude.queues._queue import Lease
from postlude.queues._rows import foreign, read

if TYPE_CHECKING:
    import sqlite3

    from postlude.failures import FailureRecord

QUEUE = "postlude"
RUNS = table("r", QUEUE)
TASKS = table("t", QUEUE)
DIED = "$ClaimTimeout"
"""What unhinged writes for a run whose lease was not extended."""


def lease_of(row: Mapping[str, Any]) -> Lease:
    """Give a run that was taken as a lease; *row* has its `params` decoded."""
    job = job_of(row["task_id"], row["params"])
    return Lease(job, f"{row['task_id']}/{row['run_id']}", job.attempt + row["attempt"])


def job_of(task: str, text: object) -> Job:
    """Give the job of a task, or one that is refused for what the row holds."""
    try:
        return Job.read(text)
    except ArgumentError as exc:
        return foreign(task, exc)


def decoded(text: object) -> Any:
    """Give what JSON in a column says, or None where somebody else wrote it."""
    try:
        return json.loads(cast("str", text))
    except (ValueError, TypeError):
        return None


def moment(text: object) -> datetime:
    """Give the time that a column says; the present where it says none."""
    try:
        return datetime.fromisoformat(cast("str", text)).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        return datetime.now(UTC)


def record_of(row: sqlite3.Row) -> FailureRecord:
    """Give the record of a task that failed for good."""
    job = job_of(row["task_id"], decoded(row["params"]))
    reason = decoded(row["failure_reason"])
    text = (
        cast("dict[str, Any]", reason).get("record")
        if isinstance(reason, dict)
        else None
    )
    ended = moment(row["failed_at"]).timestamp()
    return read(text, job, job.attempt + row["attempt"], ended)


def mend(engine: Engine) -> None:
    """Make rows that somebody edited readable, so that they are refused one by one."""
    with engine.transaction() as database:
        database.execute(
            f"update {TASKS} set params = 'null' where not json_valid(params)"  # noqa: S608 - names of ours
        )
        for column in ("headers", "retry_strategy", "cancellation"):
            database.execute(
                f"update {TASKS} set {column} = null where not json_valid({column})"  # noqa: S608 - as above
            )
        database.execute(
            f"update {TASKS} set first_started_at = null "  # noqa: S608 - as above
            "where first_started_at not glob '????-??-??T??:??:??.??????'"
        )
        database.execute(
            f"update {RUNS} set claim_expires_at = ? where state = 'running' "  # noqa: S608 - as above
            "and claim_expires_at not glob '????-??-??T??:??:??.??????'",
            (EPOCH,),
        )


def delete(engine: Engine, task: str) -> None:
    """Take a task out, with all that belongs to it."""
    for prefix in "wcrt":
        engine.connection.execute(
            f"delete from {table(prefix, QUEUE)} where task_id = ?",  # noqa: S608 - as above
            (task,),
        )
