"""The commands about the queue: be its worker, look at it, carry it elsewhere."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from postlude import configure, drain, settings
from postlude.cli._output import CommandError, Output, duration, leave, plural, shown
from postlude.cli._places import App, Json, prepare
from postlude.exceptions import SettingsError
from postlude.queues import Job, Leasing, Queue, open_queue, run
from postlude.queues._opening import carrier
from postlude.queues._working import work as work_on

_SECOND = 2

At = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="ADDRESS",
        help="The queue: sqlite:///postlude-queue.db, celery+amqp://... Default: "
        "POSTLUDE_QUEUE, or what --app configures.",
    ),
]


def work(
    ctx: typer.Context,
    threads: Annotated[
        int, typer.Option("--threads", "-t", min=1, help="Jobs at a time.")
    ] = 4,
    at: At = None,
    app: App = None,
) -> None:
    """Run the jobs of the queue until Ctrl-C or SIGTERM.

    What runs then comes to its end, within the setting `grace`; a second signal ends
    at once, and another worker takes what was left.
    """
    output = ctx.find_object(Output) or Output()
    place = _place(at, app)
    configure(queue=place, queue_threads=0)
    settings()
    ours = carrier()
    _show_log()
    stop = threading.Event()
    with _signals(stop):
        output.note(f"Working on {ours.queue!r} with {plural(threads, 'thread')}.")
        if ours.queue.can.leases:
            work_on(ours, stop, threads)
        else:
            ours.queue.work(run, stop, threads)
    drain()


@contextmanager
def _signals(stop: threading.Event) -> Generator[None]:
    """Set *stop* at the first SIGTERM or SIGINT, and leave at the second."""
    seen = 0

    def heard(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        stop.set()
        if seen >= _SECOND:
            drain(0)
            leave(128 + number)

    before = {n: signal.signal(n, heard) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_log() -> None:
    """Write the log to the standard error, if the application has set up none."""
    logger = logging.getLogger("postlude")
    if not logger.hasHandlers():
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")


def status(
    ctx: typer.Context, at: At = None, app: App = None, json: Json = False
) -> None:
    """Say what the engine promises, and how much waits and has failed in it."""
    output = ctx.find_object(Output) or Output()
    queue = open_queue(_place(at, app))
    waiting = len(_leasing(queue).waiting()) if queue.can.leases else None
    failed = len(list(queue.failed())) if queue.can.keeps_failures else None
    if json:
        promises = queue.can._asdict()
        numbers = {"waiting": waiting, "failed": failed}
        output.json({"engine": queue.name, **numbers, "promises": promises})
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("engine", shown(queue.name))
    table.add_row("waiting", _number(waiting))
    table.add_row("failed", _number(failed))
    for name, words in _PROMISES.items():
        table.add_row(words, _shown(getattr(queue.can, name)))
    output.print(table)


_PROMISES = {
    "at_least_once": "at least once",
    "leases": "durable calls run in the web process first",
    "transactional": "written in the caller's transaction",
    "delays": "delays",
    "keys": "keys",
    "embedded": "threads of the web process work on it",
    "recovery": "a dead process's job begins again within",
}


def _number(number: int | None) -> Text:
    return Text("ask the engine's own tools" if number is None else f"{number:,}")


def _shown(value: object) -> Text:
    if isinstance(value, bool):
        return Text("yes", "green") if value else Text("no", "yellow")
    if value == float("inf"):
        return Text("never", "yellow")
    return Text(duration(cast("float", value)))


def move(
    ctx: typer.Context,
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Where the jobs go.")
    ],
    at: At = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Carry what waits on one queue to another; what runs stays where it is.

    A job is written there before it is taken out here, so a crash in between leaves it
    in both, and its id is the same.
    """
    output = ctx.find_object(Output) or Output()
    source, target = open_queue(_place(at, app)), open_queue(to)
    if not source.can.leases:
        raise CommandError(
            f"What waits on {source.name} cannot be taken out from here. Usually the "
            "move was meant the other way round. Let its workers finish it, with the "
            "new queue configured for what is new."
        )
    moved = 0
    try:
        with _progress(output, source) as jobs:
            for token, job in jobs:
                _carry(_leasing(source), target, token, job)
                moved += 1
    finally:
        if json:
            output.json({"moved": moved})
        else:
            output.print(f"{plural(moved, 'job')} moved to {target.name}.")


def _carry(source: Leasing, target: Queue, token: str, job: Job) -> None:
    if not target.can.delays:
        job = job._replace(delay=0.0)
    if not target.can.keys:
        job = job._replace(key=None)
    target.put([job])
    source.finish([token])


@contextmanager
def _progress(output: Output, source: Queue) -> Generator[Any]:
    jobs = _leasing(source).waiting()
    notes = output.notes
    if not notes.is_terminal:
        yield jobs
        return
    bar = Progress(BarColumn(), MofNCompleteColumn(), console=notes, transient=True)
    with bar:
        yield bar.track(jobs)


def _leasing(queue: Queue) -> Leasing:
    return cast("Leasing", queue)


def _place(at: str | None, app: str | None) -> object:
    prepare(app)
    place = at or settings().queue
    if place is None:
        raise SettingsError(
            "No queue is named. Usually the command was started without the "
            "environment of the application, or the application configures it in code. "
            "Name it: `--queue sqlite:///postlude-queue.db`, POSTLUDE_QUEUE, or "
            "`--app module:attribute`."
        )
    return place
