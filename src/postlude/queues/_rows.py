"""Failed jobs in an engine's own row, and what stands for a row that is no job."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from postlude.failures import FailureRecord
from postlude.queues._job import Job

if TYPE_CHECKING:
    from postlude.exceptions import ArgumentError
    from postlude.queues._queue import Lease

DIED = "the process that ran it ended before the job did"


def plain(record: FailureRecord) -> str:
    """Give a record as JSON."""
    return json.dumps(record._asdict(), default=str)


def dead(lease: Lease) -> str:
    """Give the record, as JSON, of a job whose last process died."""
    return plain(_without_record(lease.job, lease.attempt, time.time()))


def read(text: object, job: Job, attempt: int, ended: float | None) -> FailureRecord:
    """Give back what `plain()` gave, or what is known of *job* if there is nothing."""
    try:
        fields: Any = json.loads(text) if isinstance(text, str) else None
        return FailureRecord(**fields)
    except (ValueError, TypeError):
        return _without_record(job, attempt, ended or 0.0)


def foreign(ident: object, exc: ArgumentError) -> Job:
    """Stand for a row that holds no job, so that it is refused like any other."""
    return Job(id=str(ident), name=str(exc)[:200], function="", payload="[[], {}]")


def _without_record(job: Job, attempt: int, ended: float) -> FailureRecord:
    return FailureRecord(
        id=job.id,
        name=job.name,
        function=job.function,
        arguments={},
        state="failed",
        unit=dict(job.unit),
        site=job.site,
        exception=DIED,
        traceback=None,
        started=None,
        ended=ended,
        attempt=attempt,
        payload=job.payload,
    )
