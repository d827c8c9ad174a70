"""The journal: when did each step of an order begin and end, and did it fail.

Times are `time.monotonic`, which all processes of one machine share on Linux and macOS,
so the runner can lay them beside the moment it had the answer's last byte.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from shop.addresses import addresses

OWN_WORK = "own work"
EFFECTS = (
    "confirmation mail",
    "analytics event",
    "inventory sync",
    "cache invalidation",
)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Entry:
    """One step of one order; times in seconds of `time.monotonic`."""

    step: str
    order: int
    began: float
    ended: float
    error: str | None = None


def watched(step: str) -> Callable[[F], F]:
    """Note in the journal each call of a function that takes the order's id first."""

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(order_id: int) -> Any:
                with noted(step, order_id):
                    return await function(order_id)

            return cast(F, awaited)

        @wraps(function)
        def called(order_id: int) -> Any:
            with noted(step, order_id):
                return function(order_id)

        return cast(F, called)

    return decorate


@contextmanager
def noted(step: str, order_id: int = 0) -> Iterator[Entry]:
    """Note a block in the journal; the order's id may be set on the entry inside."""
    entry = Entry(step, order_id, began=time.monotonic(), ended=0.0)
    try:
        yield entry
    except BaseException as error:
        entry.error = repr(error)
        raise
    finally:
        entry.ended = time.monotonic()
        append(addresses().journal, asdict(entry))


def read(journal: Path) -> list[Entry]:
    """Return all complete entries so far."""
    return [Entry(**note) for note in notes(journal)]


def notes(file: Path) -> list[dict[str, Any]]:
    """Return all complete lines of a file that may not be there yet."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text("utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def append(file: Path, note: dict[str, Any]) -> None:
    """Add one line in a single write, so that lines of several threads never mix."""
    line = json.dumps(note) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
