"""The commands that look at failure records and take them out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from postlude.cli import _records
from postlude.cli._output import CommandError, Output, leave, plural
from postlude.cli._places import (
    App,
    Json,
    Name,
    Since,
    State,
    Where,
    complete_id,
    moment,
    opened,
    record_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postlude.failures import FailureRecord, FailureStore

_PAGE = 1_000
_STATES = ("failed", "timed_out", "lost")

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID...",
        help="As many letters of an id as tell it from others.",
        autocompletion=complete_id,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every failure.")]


def list_(  # noqa: PLR0913, PLR0917 - Typer makes options of parameters
    ctx: typer.Context,
    name: Name = None,
    state: State = None,
    since: Since = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="The newest so many.")
    ] = 50,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if there are any.")
    ] = False,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """List failures, newest first."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, where, app)
    found = list(
        store.list(limit=limit, since=moment(since), name=name, state=_known(state))
    )[::-1]
    count = store.count()
    if json:
        output.json({"count": count, "failures": [_records.as_json(r) for r in found]})
    elif not found:
        text = "No failures." if count == 0 else "No failures match."
        output.print(Text(text, "green"))
    else:
        output.print(_records.rows(found, output))
        output.note(
            f"{len(found)} of {plural(count, 'failure')}. Look at one: "
            + output.command(f"failures show {found[0].id[: _records.SHORT]}")
        )
    leave(int(exit_code and bool(found)))


def show(
    ctx: typer.Context,
    one: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="As many letters as tell it from others. Default: the newest.",
            autocompletion=complete_id,
        ),
    ] = None,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Show all that is known of a failure: what, why, from where."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, where, app)
    if one is not None:
        record = record_of(store, one)
    else:
        newest = list(store.list(limit=1))
        if not newest:
            raise CommandError("There are no failures to show.")
        record = newest[0]
    if json:
        output.json(_records.as_json(record))
    else:
        output.print(_records.page(record, output))


def forget(  # noqa: PLR0913, PLR0917 - Typer makes options of parameters
    ctx: typer.Context,
    ids: Ids = None,
    name: Name = None,
    state: State = None,
    since: Since = None,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Take failures out of the store, by id or by what they are."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, where, app)
    found = chosen(store, ids, name, state, since)
    gone = store.forget([record.id for record in found])
    _say(output, json, "forgotten", gone)


def flush(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Take all failures out of the store; its numbers stay."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, where, app)
    count = store.count()
    if count and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                f"This would forget {plural(count, 'failure')}, and nobody is there "
                "to ask. Say --yes.",
                param_hint="--yes",
            )
        typer.confirm(f"Forget {plural(count, 'failure')}?", abort=True, err=True)
    gone = 0
    while gone < count and (page := list(store.list(limit=_PAGE))):
        gone += store.forget([record.id for record in page])
    _say(output, json, "forgotten", gone)


def prune(
    ctx: typer.Context,
    older: Annotated[
        str | None,
        typer.Option(
            "--older", metavar="TIME", help="Than 30m, 12h, 7d, 2w; or before a date."
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, help="The newest so many at most.")
    ] = None,
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Take out old failures, and with --older the numbers of that time."""
    output = ctx.find_object(Output) or Output()
    if older is None and keep is None:
        raise typer.BadParameter(
            "nothing says what is old. Use --older 7d, --keep 1000, or both.",
            param_hint="--older / --keep",
        )
    store = opened(output, where, app)
    before = moment(older, "--older")
    gone = store.prune(before=0.0 if before is None else before, keep=keep)
    _say(output, json, "pruned", gone)


def chosen(
    store: FailureStore,
    ids: Sequence[str] | None,
    name: str | None,
    state: str | None,
    since: str | None,
    every: bool | None = None,
) -> list[FailureRecord]:
    """Give the records that a command is to work on, oldest first.

    Raises:
        BadParameter: nothing says which, or an id is unknown or ambiguous.
    """
    by_kind = any((name, state, since))
    if ids and (by_kind or every):
        raise typer.BadParameter(
            "ids were given, and a filter too. Use one of them.", param_hint="ID"
        )
    if ids:
        return list({r.id: r for r in (record_of(store, one) for one in ids)}.values())
    if not by_kind and not every:
        raise typer.BadParameter(
            "nothing says which failures. Give ids, --name, --state, --since"
            f"{' or --all' if every is not None else ''}.",
            param_hint="ID",
        )
    return list(store.list(since=moment(since), name=name, state=_known(state)))


def _known(state: str | None) -> str | None:
    if state is not None and state not in _STATES:
        raise typer.BadParameter(
            f"{state!r} is no state. Use one of: {', '.join(_STATES)}.",
            param_hint="--state",
        )
    return state


def _say(output: Output, json: bool, what: str, number: int) -> None:
    if json:
        output.json({what: number})
    else:
        output.print(f"{plural(number, 'failure')} {what}.")
