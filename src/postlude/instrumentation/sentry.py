"""Sentry: failures with the place that deferred them, and a transaction per call.

```python
from postlude.instrumentation import sentry

sentry.install()        # after sentry_sdk.init(...)
```
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger

from postlude import _names
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Generator

    from postlude._call import DeferredCall
    from postlude.instrumentation._record import CallRecord

__all__ = ["Sentry", "install"]


class Sentry:
    """Reports what calls raise, with the tags that their request had set.

    Each call has a transaction of its own in the trace of its request.
    """

    @contextmanager
    def around(self, call: DeferredCall) -> Generator[None]:
        """Run the call in a transaction, and report what it raises."""
        function = _names.qualified(call.fn)
        trace = {
            "sentry-trace": sentry_sdk.get_traceparent() or "",
            "baggage": sentry_sdk.get_baggage() or "",
        }
        with sentry_sdk.isolation_scope() as scope:  # a copy of the request's
            scope.set_tag("postlude.function", function)
            scope.set_context(
                "postlude", {"id": call.id, "name": call.name, "site": call.site}
            )
            transaction = sentry_sdk.continue_trace(
                trace, op="function", name=function, source="function", origin="manual"
            )
            with sentry_sdk.start_transaction(transaction) as running:
                try:
                    yield
                except Exception as exc:
                    sentry_sdk.capture_exception(exc)
                    raise
                running.set_status("ok")

    def ended(self, record: CallRecord) -> None:
        """Report a call that was lost or given up: no exception tells of it."""
        if record.state not in {"lost", "timed_out"}:
            return
        with sentry_sdk.new_scope() as scope:
            scope.set_tag("postlude.function", record.function)
            scope.set_context(
                "postlude",
                {"id": record.id, "name": record.name, "site": record.site},
            )
            state = record.state.replace("_", " ")
            text = f"deferred call {record.function} {state}"
            sentry_sdk.capture_message(text, level="error")


def install() -> Sentry:
    """Have Sentry watch every call. Postlude's own log lines make no events then."""
    ignore_logger("postlude")
    made = Sentry()
    _instruments.install(made)
    return made
