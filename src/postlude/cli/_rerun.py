"""The command that runs calls again."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Annotated, NamedTuple

import typer
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

from postlude import drain
from postlude.cli._failures import All, Ids, chosen
from postlude.cli._output import STATES, Output, duration, leave, safe, shown
from postlude.cli._places import App, Json, Name, Since, State, Where, opened
from postlude.cli._records import SHORT
from postlude.exceptions import ArgumentError, RecordGoneError, StoreError
from postlude.failures import FailureRecord, FailureStore, _retry
from postlude.queues._failed import WithFailedJobs

_FEW = 20
"""Calls whose good end gets a line of its own."""
_WORDS = {
    "done": "done",
    "failed": "failed again",
    "timed_out": "timed out",
    "lost": "lost",
    "queued": "queued",
    "refused": "cannot be run again",
    "gone": "gone meanwhile",
    "ready": "would run",
}
_INTERRUPTED = 130


class _Ended(NamedTuple):
    """What became of one record."""

    record: FailureRecord
    state: str
    """That of the call; or `refused`, `gone`, `ready` if it was not run."""
    text: str | None = None
    """What it raised, or why it was not run."""
    seconds: float | None = None
    attempt: int | None = None

    def as_json(self) -> dict[str, object]:
        """Give it for machines."""
        return {
            "id": self.record.id,
            "name": self.record.name,
            "function": self.record.function,
            "state": self.state,
            "text": self.text,
            "seconds": self.seconds,
            "attempt": self.attempt,
        }


def retry(  # noqa: PLR0913, PLR0917 - Typer makes options of parameters
    ctx: typer.Context,
    ids: Ids = None,
    every: All = False,
    name: Name = None,
    state: State = None,
    since: Since = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would run, and what cannot."),
    ] = False,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Run calls again, here and now, one after another, oldest first.

    Failed jobs of a queue go back to it, for one more run there.

    What ends well is forgotten. What fails again stays, with its new traceback and one
    attempt more. Exits with 1 if anything failed or could not be run.
    """
    output = ctx.find_object(Output) or Output()
    # What calls print must not stand in the JSON.
    apart = redirect_stdout(sys.stderr) if json else nullcontext()
    with apart:
        store = opened(output, where, app)
        records = chosen(store, ids, name, state, since, every)
        _keep_quiet()
        work = _Work(output, store, records, _check if dry_run else _run, json)
        work.go()
    work.sum_up()
    leave(work.code())


def _keep_quiet() -> None:
    """Let what is printed here be all, if the application has set up no log."""
    logger = logging.getLogger("postlude")
    if not logger.hasHandlers():
        logger.addHandler(logging.NullHandler())


def _run(store: FailureStore, record: FailureRecord) -> _Ended:
    if isinstance(store, WithFailedJobs) and store.requeue(record):
        return _Ended(record, "queued", None, None, record.attempt + 1)
    try:
        result = _retry.retry(record, store)
    except ArgumentError as exc:
        return _Ended(record, "refused", str(exc))
    except RecordGoneError as exc:
        return _Ended(record, "gone", str(exc))
    text = None if result.failure is None else _why(result.failure)
    attempt = record.attempt + 1
    return _Ended(record, result.state, text, result.seconds, attempt)


def _why(failure: FailureRecord) -> str:
    """Say what a call raised, and what to change if it is known."""
    hint = failure.hint
    if _NO_CONTEXT in (failure.exception or ""):
        hint = "import the application: --app module:attribute, or POSTLUDE_APP"
    return f"{failure.exception}" + ("" if hint is None else f"\nhint: {hint}")


_NO_CONTEXT = "Working outside of application context"
"""What Flask and Quart say where there is no application."""


def _check(_store: FailureStore, record: FailureRecord) -> _Ended:
    try:
        _retry.check(record)
    except ArgumentError as exc:
        return _Ended(record, "refused", str(exc))
    shown = ", ".join(f"{name}={value}" for name, value in record.arguments.items())
    return _Ended(record, "ready", f"{record.function}({shown})")


class _Work:
    """Records, what is done with each, and what became of it."""

    def __init__(
        self,
        output: Output,
        store: FailureStore,
        records: list[FailureRecord],
        run: Callable[[FailureStore, FailureRecord], _Ended],
        json: bool,
    ) -> None:
        self._output = output
        self._store = store
        self._records = records
        self._run = run
        self._json = json
        self._ended: list[_Ended] = []
        self._interrupted = False
        self._error: str | None = None

    def go(self) -> None:
        """Do it, until somebody presses Ctrl-C or the store fails."""
        with self._progress() as advance:
            for record in self._records:
                try:
                    ended = self._patiently(record)
                except StoreError as exc:
                    self._error = str(exc)
                    return
                self._ended.append(ended)
                if not self._json:
                    self._say(ended)
                advance()
                if self._interrupted:
                    return

    def _patiently(self, record: FailureRecord) -> _Ended:
        """Work in a thread: Ctrl-C is for this command, not for the call."""
        results: list[_Ended] = []
        errors: list[BaseException] = []
        over = threading.Event()

        def work() -> None:
            try:
                results.append(self._run(self._store, record))
            except BaseException as exc:  # noqa: BLE001 - raised again below
                errors.append(exc)
            over.set()

        threading.Thread(target=work, daemon=True).start()
        try:
            over.wait()
        except KeyboardInterrupt:
            self._interrupted = True
            self._wait_or_go(over)
        if errors:
            raise errors[0]
        return results[0]

    def _wait_or_go(self, over: threading.Event) -> None:
        try:
            self._output.error(_WAITING)
            over.wait()
        except KeyboardInterrupt:
            drain(0)  # and what ran is in the store, as before
            leave(_INTERRUPTED)

    @contextmanager
    def _progress(self) -> Generator[Callable[[], None]]:
        """Show how far it is, if that is worth it and somebody looks."""
        notes = self._output.notes
        if len(self._records) == 1 or not notes.is_terminal:
            yield lambda: None
            return
        bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=notes,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        task = bar.add_task("", total=len(self._records))
        with bar:
            yield lambda: bar.advance(task)

    def _say(self, ended: _Ended) -> None:
        if ended.state == "done" and len(self._records) > _FEW:
            return
        output = self._output
        line = Text.assemble(
            (_WORDS[ended.state], STATES.get(ended.state, "")),
            "  ",
            (safe(ended.record.id[:SHORT]), "cyan"),
            f"  {safe(ended.record.name)}",
        )
        if ended.seconds is not None:
            line.append(f"  {duration(ended.seconds)}", "dim")
        output.print(line, wrap=False)
        if ended.text is not None:
            output.print(Padding(shown(ended.text, lines=True), (0, 0, 0, 4)))

    def sum_up(self) -> None:
        """Say what became of all, in one line or one document."""
        counts = Counter(ended.state for ended in self._ended)
        left = len(self._records) - len(self._ended)
        if self._json:
            self._output.json(
                {
                    "results": [ended.as_json() for ended in self._ended],
                    "counts": {word: counts[word] for word in _WORDS},
                    "left": left,
                }
            )
        else:
            words = [f"{n:,} {_WORDS[state]}" for state, n in counts.items()]
            if left:
                words.append(f"{left:,} not run")
            text = ", ".join(words) + "." if words else "Nothing to run."
            self._output.print(text)
        if self._error is not None:
            self._output.error(self._error)

    def code(self) -> int:
        """Give the exit code."""
        if self._interrupted:
            return _INTERRUPTED
        if self._error is not None:
            return 2
        fine = all(ended.state in {"done", "ready", "queued"} for ended in self._ended)
        return int(not fine)


_WAITING = "interrupted; waiting for the call that runs. Ctrl-C again gives it up."
