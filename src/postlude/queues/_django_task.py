"""The one task that Django's workers run for Postlude."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import django

from postlude._settings import settings
from postlude.queues import django as engine
from postlude.queues._job import Job
from postlude.queues._running import run

_FIRST = (6, 0)
"""Django that has tasks; before it they were a package of the same names."""
_tasks: Any = import_module(
    "django.tasks" if django.VERSION >= _FIRST else "django_tasks"
)


class JobFailedError(Exception):
    """Tells Django that a job failed; what failed is recorded already."""


def _run_job(context: Any, text: str) -> None:
    """Run one job of Postlude's, and have it run again after a failure."""
    settings()
    runs = max(0, context.attempt - 1)
    with engine.alive(context.task_result):
        verdict = run(text, runs)
    if verdict.state == "again":
        job = Job.read(text)
        attempt = job.attempt + runs + 1
        engine.mine().put([job._replace(attempt=attempt, delay=verdict.pause)])
    elif verdict.state == "failed":
        record = verdict.record
        raise JobFailedError(record and f"{record.name}: {record.exception}")


# Django finds it by the function's own name, and not by that of the variable.
_run_job.__name__ = _run_job.__qualname__ = "run_job"
run_job: Any = _tasks.task(takes_context=True)(_run_job)
