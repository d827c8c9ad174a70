"""From the setting `queue` to an engine, and from an engine to what calls ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, cast

from postlude import _call, _process
from postlude._settings import in_force
from postlude.exceptions import NO_QUEUE, NoQueueError, SettingsError
from postlude.queues._carrier import Carrier
from postlude.queues._working import work

if TYPE_CHECKING:
    from postlude.queues._queue import Queue

ENGINES = {
    "sqlite": ("sqlite", "queue"),
    "absurd+postgresql": ("absurd", "absurd"),
    "procrastinate+postgresql": ("procrastinate", "procrastinate"),
    "dbos+postgresql": ("dbos", "dbos"),
    "celery+amqp": ("celery", "celery"),
    "celery+redis": ("celery", "celery"),
    "dramatiq+amqp": ("dramatiq", "dramatiq"),
    "dramatiq+redis": ("dramatiq", "dramatiq"),
    "rq+redis": ("rq", "rq"),
    "taskiq+amqp": ("taskiq", "taskiq"),
    "huey+sqlite": ("huey", "huey"),
    "huey+redis": ("huey", "huey"),
    "django": ("django", "django"),
}
"""Schemes of addresses: the module of `postlude.queues`, and the extra to install."""

_RETIRE = 1.0
"""Seconds in which an engine that the settings name no longer is told what is done."""
_spec: object = None


def open_queue(where: object) -> Queue:
    """Give the engine that *where* names; nothing is opened before its first use.

    Raises:
        SettingsError: it names none, or one that is not installed.
    """
    if not isinstance(where, str):
        return cast("Queue", where)
    scheme = where if where == "django" else where.partition("://")[0]
    if scheme not in ENGINES:
        known = ", ".join(
            name if name == "django" else f"{name}://" for name in ENGINES
        )
        raise SettingsError(
            f"queue is {where!r}, which names no engine. Usually the scheme is missing "
            f"or misspelt. Use one of: {known}; or give a `Queue`."
        )
    module, extra = ENGINES[scheme]
    try:
        engine = import_module(f"postlude.queues.{module}")
    except ImportError as exc:
        raise SettingsError(
            f"queue is {where!r}, and its engine cannot be loaded ({exc}). Usually it "
            f"is not installed here. Install it: pip install 'postlude[{extra}]'."
        ) from exc
    opened: Queue = engine.open_queue(where)
    return opened


def find_here() -> None:
    """Let modules of this folder be found: a worker imports functions by their names.

    Python does that for `python -m`, and not for a command like `celery`.
    """
    if os.getcwd() not in sys.path:  # noqa: PTH109 - as it stands in sys.path
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above


def install(where: object) -> None:
    """Have the options of calls use the engine that *where* names; none for None.

    Raises:
        SettingsError: it names none, or one that is not installed.
    """
    global _spec
    before = _call.carrier
    if (before is not None or where is None) and (where is _spec or where == _spec):
        return
    carrier = None if where is None else Carrier(open_queue(where))
    _spec, _call.carrier = where, carrier
    if isinstance(before, Carrier):
        before.retire(monotonic() + _RETIRE)
    if _work_here not in _process.servers:
        _process.servers.append(_work_here)
        _process.enders.append(lambda: _with_carrier(lambda one: one.end()))
        _process.closers.append(
            lambda until: _with_carrier(lambda one: one.stop(until))
        )
        _process.forks.append(lambda: _with_carrier(lambda one: one.forked()))
    if _process.serving:
        _work_here()


def carrier() -> Carrier:
    """Give what hands calls of this process to its engine.

    Raises:
        NoQueueError: none is configured.
    """
    if isinstance(_call.carrier, Carrier):
        return _call.carrier
    raise NoQueueError(NO_QUEUE.format(option="work", name="this process"))


def _with_carrier(do: Callable[[Carrier], object]) -> None:
    if isinstance(_call.carrier, Carrier):
        do(_call.carrier)


def _work_here() -> None:
    _with_carrier(lambda carrier: carrier.serve(_work))


def _work(carrier: Carrier, stop: Event) -> None:
    work(carrier, stop, in_force().queue_threads)
