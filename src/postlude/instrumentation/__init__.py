"""Hooks for those who watch: what became of each call, for logs, traces and metrics.

An instrument may stand around each call while it runs, and is told of its end, with a
`CallRecord` that has everything there is to know (E4). `install(instrument)` adds one.
Without any, nothing is gathered.
"""

from postlude.instrumentation._instruments import Instrument, install, uninstall
from postlude.instrumentation._record import CallRecord

__all__ = ["CallRecord", "Instrument", "install", "uninstall"]
