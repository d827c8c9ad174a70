"""The command `postlude`, also `python -m postlude`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postlude.failures import FailureStore


def main(arguments: list[str] | None = None, store: FailureStore | None = None) -> int:
    """Run the command line, or say what it needs; gives the exit code.

    Args:
        arguments: default: those of the process.
        store: where failures are, if no `--store` says so.
    """
    try:
        for name in ("rich", "typer"):
            import_module(name)
    except ImportError as exc:
        sys.stderr.write(
            f"postlude: the command line needs {exc.name}, which is not installed. "
            "Install it with: pip install 'postlude[cli]'\n"
        )
        return 2
    from postlude.cli import main as run  # noqa: PLC0415 - both are there

    return run(arguments, store)


if __name__ == "__main__":
    sys.exit(main())
