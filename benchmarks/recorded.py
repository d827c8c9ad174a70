"""`python -m benchmarks.recorded`: print what records cost, in microseconds.

A thousand calls a second, as a busy process has them, go to a SQLite file. Timed is
what the thread or loop that runs a call does for the store: nobody else pays for it.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import postlude
from benchmarks.figures import percentile
from postlude import DeferScope, _reporting, defer
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 2_000
PAUSE = 0.001
_now = time.perf_counter_ns


def nothing(_order_id: int, _email: str) -> None:
    """End well."""


def fail(_order_id: int, _email: str) -> None:
    """Fail."""
    raise ConnectionError("no mail server")


def _timed(fn: Callable[..., object], times: list[int]) -> Callable[..., object]:
    def timed(*args: object) -> object:
        began = _now()
        result = fn(*args)
        times.append(_now() - began)
        return result

    return timed


def _defer(fn: Callable[..., object]) -> list[int]:
    """Defer *fn* again and again, and time `defer()` itself."""
    times: list[int] = []
    for number in range(CALLS):
        with DeferScope():
            began = _now()
            defer(fn, number, "ada@example.com")
            times.append(_now() - began)
        time.sleep(PAUSE)
    return times


def _watch() -> dict[str, list[int]]:
    """Time from now on what is done for the store around calls that run."""
    times: dict[str, list[int]] = {"before": [], "after": [], "told": [], "made": []}
    around: Any = _instruments.Around
    around.__enter__ = _timed(around.__enter__, times["before"])
    around.__exit__ = _timed(around.__exit__, times["after"])
    _instruments.tell = _timed(_instruments.tell, times["told"])
    _reporting._record = _timed(_reporting._record, times["made"])  # noqa: SLF001 - what a failure costs
    return times


def main() -> None:
    """Run calls that end well and calls that fail, without a store and with one."""
    logging.getLogger("postlude").disabled = True  # the log is not the store
    without = _defer(nothing)
    with tempfile.TemporaryDirectory() as folder:
        postlude.configure(failures=str(Path(folder, "postlude.db")))
        store = postlude.failure_store()
        _defer(nothing)  # warm
        with_store = _defer(nothing)
        times = _watch()
        _defer(nothing)
        parts = zip(times["before"], times["after"], times["told"], strict=True)
        counted = list(map(sum, parts))
        _defer(fail)
        postlude.drain()
        if (kept := store.count()) != CALLS:
            raise SystemExit(f"{kept} of {CALLS} failures are in the store")
    json.dump(
        {
            "defer": _p99(with_store) - _p99(without),
            "counted": _p99(counted),
            "failed": _p99(times["made"]),
            "failed_p50": percentile([*map(float, times["made"])], 0.5) / 1_000,
        },
        sys.stdout,
    )


def _p99(times: list[int]) -> float:
    return percentile([*map(float, times)], 0.99) / 1_000


if __name__ == "__main__":
    main()
