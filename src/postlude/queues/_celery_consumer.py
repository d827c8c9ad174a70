"""What the workers of Postlude's own Celery app do with messages that are no tasks.

Celery logs and drops them; a queue that only Postlude writes to records them as well.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from postlude.exceptions import ArgumentError
from postlude.queues._running import refuse

_base: Any = import_module("celery.worker.consumer").Consumer


class Consumer(_base):  # type: ignore[misc]  # Celery has no types
    """Celery's consumer, with a record of each message that it refuses."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Record what is not JSON."""
        _record(message.body, exc)
        parent: Any = super()
        parent.on_decode_error(message, exc)

    def on_unknown_message(self, body: object, message: Any) -> None:
        """Record what is no message of Celery's."""
        _record(body, "it is no task")
        parent: Any = super()
        parent.on_unknown_message(body, message)

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        """Record a task that nobody registered."""
        _record(body, f"there is no task {exc}")
        parent: Any = super()
        parent.on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        """Record a task whose fields are wrong."""
        _record(body, exc)
        parent: Any = super()
        parent.on_invalid_task(body, message, exc)


def _record(body: object, why: object) -> None:
    error = ArgumentError(
        f"A message was refused ({why}). Usually another program writes to this "
        "queue. It was not run; look at who writes to it."
    )
    refuse(None, error, str(body)[:200])
