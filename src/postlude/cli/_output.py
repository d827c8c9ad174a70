"""What people and machines are shown, and how strangers' text is made harmless."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console, RenderableType
from rich.text import Text

from postlude.exceptions import PostludeError

if TYPE_CHECKING:
    from postlude.failures import FailureStore

_PIPED = 240
"""Columns where nobody looks: one record stays on one line for `grep`."""
_PIPE = 141
"""What a shell gives for a command whose output nobody reads: 128 + SIGPIPE."""
_KEPT = {"\n", "\t"}
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what steers a terminal, is invisible, or turns text round."""


class CommandError(PostludeError):
    """Raised for a command that cannot be carried out; the text is shown, no usage."""


def safe(text: object, lines: bool = False) -> str:
    """Give *text* with what a terminal would obey shown as its number.

    Args:
        text: of anybody's.
        lines: let line breaks and tabs be; otherwise they become numbers too.
    """
    return "".join(
        letter
        if unicodedata.category(letter) not in _HARMFUL or (lines and letter in _KEPT)
        else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def shown(text: object, style: str = "", lines: bool = False) -> Text:
    """Give *text* for Rich, which obeys nothing in it."""
    return Text(safe(text, lines), style)


class _Piped(Console):
    """Ends the command, in silence, when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        hang_up()


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None
    if not stream.isatty() and "COLUMNS" not in os.environ:
        width = _PIPED
    return _Piped(
        stderr=stderr, markup=False, highlight=False, emoji=False, width=width
    )


def program() -> str:
    """Give how this command was called: Django has it as `manage.py postlude`."""
    inside = sys.argv[1:2] == ["postlude"]
    return f"{Path(sys.argv[0]).name} postlude" if inside else "postlude"


class Output:
    """Where a command writes, and the store that it was given."""

    def __init__(self, store: FailureStore | None = None) -> None:
        self.given = store
        self.console = _console(stderr=False)
        self.notes = _console(stderr=True)
        """For what is no result: progress, errors."""
        self.where = ""
        """How the store was named on the command line, if it was."""

    @property
    def is_wide(self) -> bool:
        """Whether a table with all columns fits."""
        return self.console.width >= _WIDE

    def command(self, words: str) -> str:
        """Give a further command about the same store, to be copied."""
        return f"{program()} {words}{self.where}"

    def print(self, *parts: RenderableType, wrap: bool = True) -> None:
        """Write for people; in a pipe, without the blanks at the ends of lines."""
        if self.console.is_terminal:
            self.console.print(*parts, soft_wrap=not wrap)
            return
        with self.console.capture() as captured:
            self.console.print(*parts, soft_wrap=not wrap)
        _write("\n".join(line.rstrip() for line in captured.get().split("\n")))

    def json(self, value: object) -> None:
        """Write one JSON document; all but ASCII is escaped."""
        _write(json.dumps(value, indent=2, default=str) + "\n")

    def error(self, text: str) -> None:
        """Say what went wrong."""
        line = Text.assemble(("Error: ", "bold red"), safe(text, lines=True))
        self.notes.print(line, soft_wrap=not self.notes.is_terminal)

    def note(self, text: str) -> None:
        """Say something beside the result, to people only."""
        if self.console.is_terminal:
            self.print(shown(text, "dim"))


_WIDE = 96


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        hang_up()


def hang_up() -> NoReturn:
    """End the command: nobody reads what it says. Nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_PIPE)


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise SystemExit(code)


STATES = {
    "done": "green",
    "failed": "red",
    "timed_out": "yellow",
    "lost": "magenta",
    "refused": "yellow",
}
"""How the states look."""


def ago(seconds: float) -> str:
    """Say how long ago something was, short."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def duration(seconds: float) -> str:
    """Say how long something took, short."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < _MINUTES:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min"


_MINUTES = 120


def plural(number: int, one: str, many: str | None = None) -> str:
    """Give a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
