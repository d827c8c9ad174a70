"""Which store a command means, and the application that its functions need."""

from __future__ import annotations

import shlex
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from postlude import settings
from postlude.cli._output import CommandError, Output, safe
from postlude.exceptions import SettingsError
from postlude.failures._opening import open_store
from postlude.failures._retry import surround
from postlude.queues import Queue, open_queue
from postlude.queues._failed import WithFailedJobs
from postlude.queues._opening import find_here

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractContextManager

    from postlude.failures import FailureRecord, FailureStore

_HERE = "postlude.db"
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_FULL = 32
"""Letters of an id."""

Where = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="ADDRESS",
        help="Where the failures are: a path or an address. Default: "
        "POSTLUDE_FAILURES, what --app configures, or postlude.db in this folder.",
    ),
]
Place = Annotated[
    str | None,
    typer.Argument(
        metavar="[STORE]", help="Where the records are, in place of --store."
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        envvar="POSTLUDE_APP",
        help="Import this application first, as in `uvicorn MODULE:ATTRIBUTE`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document for machines.")]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Only calls of this name, or this module:function."),
]
State = Annotated[
    str | None,
    typer.Option("--state", help="Only failed, timed_out or lost ones."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only from then on: 90s, 30m, 2h, 1d, 2w ago; or 2026-01-31T18:00.",
    ),
]


def opened(output: Output, where: str | None, app: str | None) -> FailureStore:
    """Give the store that the command means, with the application imported.

    Raises:
        SettingsError: none is named, or none of that name can be.
    """
    prepare(app)
    if where:
        output.where = f" --store {shlex.quote(where)}"
    place: object = where or output.given or settings().failures
    if place is None and Path(_HERE).exists():
        place = _HERE
    if (queue := _with_failures(place)) is not None:
        if place in {None, "memory"}:  # the engine's list outlives the processes
            return WithFailedJobs(open_store("memory"), queue)
        return WithFailedJobs(open_store(place, create=False), queue)
    if place is None:
        raise SettingsError(
            "No failure store is named. Usually the command was started in another "
            "folder than the application, or the application keeps its failures in "
            "memory. Name the store: `--store sqlite:///path/to/postlude.db`, or set "
            "POSTLUDE_FAILURES for the application and for this command."
        )
    if place == "memory":
        raise SettingsError(
            "The failure store is 'memory', which lives and ends with the process of "
            "the application. Nothing of it can be seen from here. Let the application "
            "keep its failures in a file: POSTLUDE_FAILURES=sqlite:///postlude.db."
        )
    return open_store(place, create=False)


def _with_failures(place: object) -> Queue | None:
    """Give the application's queue, if it keeps failed jobs that can be looked at."""
    if isinstance(place, WithFailedJobs) or (where := settings().queue) is None:
        return None
    queue = open_queue(where)
    return queue if queue.can.keeps_failures else None


def prepare(app: str | None) -> None:
    """Let modules of this folder be found, and import the application.

    Raises:
        SettingsError: there is none of that name.
    """
    find_here()
    if app:
        load(app)


def load(app: str) -> None:
    """Import an application, and have its calls run in its surroundings.

    Raises:
        SettingsError: there is none of that name.
    """
    module, _, path = app.partition(":")
    name, calls, _ = path.partition("()")
    try:
        found: Any = import_module(module)
        for part in name.split(".") if name else ():
            found = getattr(found, part)
        if calls:
            found = found()
    except (Exception, SystemExit) as exc:
        raise SettingsError(
            f"The application {app!r} cannot be imported: {type(exc).__name__}: {exc}. "
            "Usually the command was started outside the project's folder, or without "
            "its environment. Name it as in `uvicorn shop.main:app`, in that folder."
        ) from exc
    if hasattr(found, "app_context"):
        surround(_AppContext(found))


class _AppContext:
    """A fresh application context of Flask's, or Quart's, around each call (D4)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def sync(self) -> AbstractContextManager[object]:
        """Enter it for a call in a thread."""
        return cast("AbstractContextManager[object]", self._app.app_context())

    def asynchronous(self) -> AbstractAsyncContextManager[object]:
        """Enter it for a call on a loop."""
        context = self._app.app_context()
        if hasattr(context, "__aenter__"):
            return cast("AbstractAsyncContextManager[object]", context)
        return _in(context)


@asynccontextmanager
async def _in(context: AbstractContextManager[object]) -> AsyncGenerator[None]:
    with context:
        yield


def moment(text: str | None, option: str = "--since") -> float | None:
    """Understand `2h`, `1d` or an ISO date; gives Unix seconds.

    Raises:
        BadParameter: it is neither.
    """
    if text is None:
        return None
    text = text.strip()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip()
    try:
        if unit in _SECONDS:
            seconds = float(number) * _SECONDS[unit]
            if seconds >= 0:
                return time.time() - seconds
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is no time. Use 90s, 30m, 2h, 1d, 2w, or 2026-01-31T18:00.",
            param_hint=option,
        ) from None


def record_of(store: FailureStore, prefix: str) -> FailureRecord:
    """Give the one record whose id begins with *prefix*.

    Raises:
        CommandError: there is none, or more than one.
    """
    found = list(store.find(prefix)) if prefix else []
    exact = [record for record in found if record.id == prefix]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise CommandError(
            f"No failure has an id that begins with {prefix!r}. Usually it was run "
            "again or forgotten meanwhile. See what is there: `postlude failures list`."
        )
    length = _telling([record.id for record in found])
    lines = [f"\n  {safe(r.id[:length])}  {safe(r.name)}" for r in found]
    raise CommandError(
        f"{prefix!r} is the begin of several ids. Usually more letters tell them "
        f"apart. Use one of these:{''.join(lines)}"
    )


def _telling(ids: list[str]) -> int:
    """Give how many letters tell these ids apart."""
    for length in range(8, _FULL):
        if len({one[:length] for one in ids}) == len(ids):
            return length
    return _FULL


def complete_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of the newest failures to the shell; in trouble, none."""
    try:
        store = opened(Output(), ctx.params.get("where"), ctx.params.get("app"))
        found = (
            list(store.list(limit=100)) if not incomplete else store.find(incomplete)
        )
        return [(record.id[:8], safe(record.name)) for record in found]
    except Exception:  # noqa: BLE001 - a shell waits for words, not for errors
        return []
