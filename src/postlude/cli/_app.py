"""The commands and their groups."""

from __future__ import annotations

from typing import Annotated

import typer

from postlude import __version__
from postlude.cli import _advice, _failures, _numbers, _queue, _rerun, _serving

_EPILOG = (
    "Exit codes: 0 fine; 1 something failed again, or was found; 2 the command or the "
    "store is wrong; 130 interrupted."
)

app = typer.Typer(
    name="postlude",
    help="What became of deferred calls: look, understand, run again.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
failures = typer.Typer(
    help="Calls that failed, timed out or were lost.",
    epilog=_EPILOG,
    no_args_is_help=True,
)
failures.command("list", epilog=_EPILOG)(_failures.list_)
failures.command(epilog=_EPILOG)(_failures.show)
failures.command(epilog=_EPILOG)(_rerun.retry)
failures.command(epilog=_EPILOG)(_failures.forget)
failures.command(epilog=_EPILOG)(_failures.flush)
failures.command(epilog=_EPILOG)(_failures.prune)
app.add_typer(failures, name="failures")
app.command(epilog=_EPILOG)(_numbers.stats)
app.command(epilog=_EPILOG)(_advice.advise)
app.command(epilog=_EPILOG)(_serving.dashboard)
app.command(epilog=_EPILOG)(_queue.work)
queue = typer.Typer(
    help="The job engine behind `.retry()`, `.durable()` and `queue()`.",
    epilog=_EPILOG,
    no_args_is_help=True,
)
queue.command(epilog=_EPILOG)(_queue.status)
queue.command(epilog=_EPILOG)(_queue.move)
app.add_typer(queue, name="queue")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"postlude {__version__}")
        raise typer.Exit


@app.callback()
def _postlude(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """What became of deferred calls: look, understand, run again."""
