"""What Procrastinate's own worker runs: Postlude's jobs, and the rescue of some."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import procrastinate

from postlude import _call
from postlude._settings import in_force, settings
from postlude.exceptions import SettingsError
from postlude.queues._running import exhausted, run
from postlude.queues.procrastinate import QUEUE, ProcrastinateQueue

if TYPE_CHECKING:
    from procrastinate.jobs import Job

    from postlude.queues._queue import Verdict


class _FailedError(Exception):
    """Tells Procrastinate that a job failed; what failed is recorded already."""

    def __init__(self, verdict: Verdict) -> None:
        record = verdict.record
        super().__init__(
            None if record is None else f"{record.name}: {record.exception}"
        )
        self.verdict = verdict


class _Retry(procrastinate.BaseRetryStrategy):
    def get_retry_decision(
        self, *, exception: BaseException, job: Job
    ) -> procrastinate.RetryDecision | None:
        del job
        if isinstance(exception, _FailedError) and exception.verdict.state == "again":
            pause = exception.verdict.pause
            return procrastinate.RetryDecision(
                retry_at=datetime.now(UTC) + timedelta(seconds=pause)
            )
        return None


def _queue() -> ProcrastinateQueue:
    settings()
    carrier: Any = _call.carrier
    queue = None if carrier is None else carrier.queue
    if isinstance(queue, ProcrastinateQueue):
        return queue
    raise SettingsError(NOT_CONFIGURED.format(queue=in_force().queue))


def _run_job(context: procrastinate.JobContext, /, **args: object) -> None:
    """Run one job of Postlude's."""
    job = context.job
    verdict = run(cast("str", args.get("job")), job.attempts)
    if verdict.state == "done":
        return
    if verdict.state == "failed" and verdict.record is not None:
        queue = _queue()
        with queue.database.use() as connection:
            queue.note(connection, f"{job.id}/{job.attempts}", verdict.record)
    raise _FailedError(verdict)


def _rescue(timestamp: int) -> None:
    """Give back the jobs of dead workers, which Procrastinate does not do by itself."""
    del timestamp
    for lease, seen in _queue().exhausted():
        exhausted(lease, seen)


def tasks() -> procrastinate.Blueprint:
    """Give Postlude's tasks for an app of Procrastinate's of your own.

    `app.add_tasks_from(postlude.queues.procrastinate.tasks(), namespace="postlude")`
    """
    blueprint = procrastinate.Blueprint()
    blueprint.task(name="run", queue=QUEUE, pass_context=True, retry=_Retry())(_run_job)
    rescue = blueprint.task(name="rescue", queue=QUEUE)(_rescue)
    blueprint.periodic(cron="* * * * *", periodic_id=QUEUE)(rescue)
    return blueprint


def _make_app() -> procrastinate.App:
    address = _queue().database.address
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=address))
    app.add_tasks_from(tasks(), namespace=QUEUE)
    return app


NOT_CONFIGURED = (
    "Procrastinate's worker runs Postlude's tasks, and the setting queue is {queue!r}. "
    "Usually POSTLUDE_QUEUE is missing where the worker starts. Set it to the address "
    "that the web process has: procrastinate+postgresql://..."
)


def __getattr__(name: str) -> procrastinate.App:
    """Make the app when somebody asks for it, with the settings that hold then."""
    if name == "app":
        return _make_app()
    raise AttributeError(name)
