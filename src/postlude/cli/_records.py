"""How failure records look: as a row, as a page, as JSON."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from postlude.cli._output import STATES, ago, duration, safe, shown
from postlude.failures._retry import refusal

if TYPE_CHECKING:
    from postlude.cli._output import Output
    from postlude.failures import FailureRecord

SHORT = 8
"""Letters of an id that are shown."""
_LINE = 120


def as_json(record: FailureRecord) -> dict[str, object]:
    """Give a record for machines: its fields, and whether it can be run again."""
    reason = refusal(record)
    fields = record._asdict()
    del fields["payload"], fields["refusal"]
    return {**fields, "retryable": reason is None, "refusal": reason}


def rows(records: list[FailureRecord], output: Output) -> RenderableType:
    """Give a table, or on a narrow terminal a block of lines for each."""
    now = time.time()
    if not output.is_wide:
        return Group(*(_block(record, now) for record in records))
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True
    )
    table.add_column("ID", style="cyan", no_wrap=True)
    for title in ("When", "State", "Attempt", "Retry"):
        table.add_column(title, no_wrap=True)
    widest = output.console.width // 3
    table.add_column("Name", no_wrap=True, overflow="ellipsis", max_width=widest)
    table.add_column("Exception", no_wrap=True, overflow="ellipsis", ratio=1)
    for record in records:
        table.add_row(
            shown(record.id[:SHORT]),
            ago(now - record.ended),
            _state(record),
            str(record.attempt),
            "yes" if refusal(record) is None else "no",
            shown(record.name),
            shown(_cut(record.exception or "")),
        )
    return table


def _block(record: FailureRecord, now: float) -> Text:
    """Give three short lines."""
    again = "" if refusal(record) is None else ", cannot be retried"
    text = Text.assemble(
        (safe(record.id[:SHORT]), "cyan"),
        "  ",
        _state(record),
        f"  {ago(now - record.ended)}, attempt {record.attempt}{again}\n",
        f"  {safe(record.name)}\n",
        no_wrap=True,
        overflow="ellipsis",
    )
    if record.exception:
        text.append(f"  {safe(_cut(record.exception))}\n")
    return text


def _state(record: FailureRecord) -> Text:
    return shown(record.state, STATES.get(record.state, ""))


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def page(record: FailureRecord, output: Output) -> RenderableType:
    """Give all that is known of a failure."""
    fields = Table.grid(padding=(0, 2, 0, 0))
    fields.add_column(style="bold", no_wrap=True)
    fields.add_column(overflow="fold")
    fields.add_row("call", shown(record.name))
    for title, value in _fields(record, output):
        if value is not None:
            fields.add_row(title, value)
    parts: list[RenderableType] = [fields]
    if record.traceback:
        parts += ["", _traceback(record.traceback, output)]
    return Group(*parts)


def _fields(record: FailureRecord, output: Output) -> list[tuple[str, Text | None]]:
    ran = None
    if record.started is not None:
        ran = Text(duration(max(0.0, record.ended - record.started)))
    when = datetime.fromtimestamp(record.ended, UTC).astimezone()
    arguments = [f"{safe(k)} = {safe(v)}" for k, v in record.arguments.items()]
    return [
        ("state", _state(record)),
        ("exception", _or_none(record.exception)),
        ("hint", _or_none(record.hint)),
        ("ended", Text(f"{when:%Y-%m-%d %H:%M:%S %Z}, {_ago(record)}")),
        ("ran", ran if ran is not None else Text("never: it did not begin")),
        ("attempt", Text(str(record.attempt))),
        ("deferred at", shown(record.site)),
        ("unit", _or_none(unit(record.unit))),
        ("function", shown(record.function)),
        ("arguments", Text("\n".join(arguments)) if arguments else None),
        ("process", shown(f"{record.pid} on {record.host}")),
        ("id", shown(record.id)),
        ("retry", _again(record, output)),
    ]


def _again(record: FailureRecord, output: Output) -> Text:
    reason = refusal(record)
    if reason is None:
        return shown(output.command(f"failures retry {record.id[:SHORT]}"), "green")
    return shown(f"cannot be run again: {reason}", "yellow")


def _ago(record: FailureRecord) -> str:
    return ago(time.time() - record.ended)


def _or_none(text: str | None) -> Text | None:
    return shown(text) if text else None


def unit(known: dict[str, object]) -> str:
    """Say in one line which request, command or job it was."""
    rest = {key: value for key, value in known.items() if value is not None}
    words = [str(rest.pop(key)) for key in ("method", "path") if key in rest]
    words += [f"{key.replace('_', ' ')} {value}" for key, value in rest.items()]
    if len(words) > 1 and known.get("method") and known.get("path"):
        words[:2] = [" ".join(words[:2])]
    return ", ".join(words)


def _traceback(text: str, output: Output) -> RenderableType:
    harmless = safe(text.rstrip("\n"), lines=True)
    if not output.console.is_terminal:
        return Text(harmless)
    return Syntax(
        harmless,
        "pytb",
        theme="ansi_dark",
        background_color="default",
        word_wrap=True,
    )
