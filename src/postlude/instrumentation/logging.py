"""A log line for every call that ends, with everything known of it as `extra`.

```python
from postlude.instrumentation import logging

logging.install()
```

Failures and drops are logged anyway; this is for those who want to see each call. The
fields begin with `postlude_`: a JSON formatter or structlog's `ExtraAdder` has them.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from postlude._log import logger
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude.instrumentation._record import CallRecord

__all__ = ["Logging", "install"]


class Logging:
    """Logs each call's end, at one level."""

    def __init__(self, level: int = logging.INFO) -> None:
        """Log at *level*."""
        self._level = level

    def around(self, _call: DeferredCall) -> AbstractContextManager[None]:
        """Do nothing: a call's begin is no news."""
        return nullcontext()

    def ended(self, record: CallRecord) -> None:
        """Log a call's end."""
        if not logger.isEnabledFor(self._level):
            return
        fields = {f"postlude_{name}": value for name, value in record._asdict().items()}
        fields["postlude_start_delay"] = record.start_delay
        fields["postlude_duration"] = record.duration
        text = "deferred call %s: %s"
        logger.log(self._level, text, record.name, record.state, extra=fields)


def install(level: int = logging.INFO) -> Logging:
    """Have every call's end logged by the logger `postlude`, at *level*."""
    made = Logging(level)
    _instruments.install(made)
    return made
