"""The command line: `postlude failures list`, and the others.

It needs the extra `postlude[cli]`. Exit codes: 0 fine; 1 something failed again, or was
found; 2 the command or the store is wrong; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from postlude.cli._app import app
from postlude.cli._output import Output, program
from postlude.exceptions import PostludeError

if TYPE_CHECKING:
    from postlude.failures import FailureStore

__all__ = ["main"]

_USAGE = 2


def main(arguments: list[str] | None = None, store: FailureStore | None = None) -> int:
    """Run a command; gives its exit code.

    Args:
        arguments: without the program's name; default: those of the process.
        store: where failures are, if no `--store` says so.
    """
    for stream in (sys.stdout, sys.stderr):
        # Of text that the terminal has no letters for, its number is shown.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")
    output = Output(store)
    try:
        app(args=arguments, prog_name=program(), obj=output)
    except SystemExit as exc:
        return _code(exc.code)
    except PostludeError as exc:
        output.error(str(exc))
        return _USAGE
    return 0


def _code(code: object) -> int:
    return code if isinstance(code, int) else int(code is not None)
