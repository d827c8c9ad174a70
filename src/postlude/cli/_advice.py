"""The command that gives advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from postlude.cli._output import Output, leave, safe, shown
from postlude.cli._places import App, Json, Place, Where, moment, opened

if TYPE_CHECKING:
    from postlude.advice import Advice
    from postlude.scan import Finding


def advise(  # noqa: PLR0913, PLR0917 - Typer makes options of parameters
    ctx: typer.Context,
    place: Place = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From then on: 2h, 1d, 2w.")
    ] = "7d",
    path: Annotated[
        str | None,
        typer.Option(
            "--scan",
            metavar="PATH",
            help="Instead, read a project's source (it is not run) for work that "
            "defer() could take over from a job queue or a handler.",
        ),
    ] = None,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Say what the records show: what belongs on a queue, was lost, or is too narrow.

    Exits with 1 if there is anything to say.
    """
    output = ctx.find_object(Output) or Output()
    if path is not None:
        _scan(output, path, json)
        return
    from postlude.advice import advise as look  # noqa: PLC0415 - only for this command

    found = look(opened(output, place or where, app), moment(since) or 0.0)
    if json:
        output.json({"advice": [one._asdict() for one in found]})
    elif not found:
        output.print(Text("Nothing to say.", "green"))
    for one in found if not json else ():
        _say(output, one)
    leave(int(bool(found)))


def _say(output: Output, one: Advice) -> None:
    output.print(Text("- ").append(safe(one.sentence)))


def _scan(output: Output, path: str, json: bool) -> None:
    from postlude.scan import scan  # noqa: PLC0415 - only for this option

    try:
        found = scan(path)
    except FileNotFoundError:
        raise typer.BadParameter(
            f"there is nothing at {safe(path)!r}. Name a folder or a Python file.",
            param_hint="--scan",
        ) from None
    if json:
        output.json({"findings": [one._asdict() for one in found]})
    elif not found:
        output.print(Text("Nothing was found.", "green"))
    for one in found if not json else ():
        _place(output, one)
    leave(int(any(one.kind != "note" for one in found)))


def _place(output: Output, one: Finding) -> None:
    place = Text(safe(f"{one.file}:{one.line}"), "cyan")
    output.print(place, Text(safe(one.kind), "bold"), wrap=False)
    output.print(Padding(shown(one.sentence), (0, 0, 0, 4)))
    for line in one.evidence:
        output.print(Padding(shown(line, "dim"), (0, 0, 0, 6)))
