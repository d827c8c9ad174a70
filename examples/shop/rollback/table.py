"""What the terminal shows: what is tried, progress, and a table for each database."""

from __future__ import annotations

from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shop.journal import EFFECTS
from shop.rollback.arms import Ordered
from shop.settings import Settings
from shop.terminal import show_problems

SECONDS = 8
"""What the four orders of a database take, with the latencies of the story."""


def introduce(console: Console, settings: Settings) -> None:
    """Say what is about to be tried."""
    console.print(
        f"\n[bold]A rollback under a 200: {settings.title}[/bold]\n"
        "An order defers four side effects and is answered with 200. Its voucher does "
        "not exist, so the database refuses the commit: there is no such order.\n"
    )


def show(
    console: Console, ordered: list[Ordered], wrong: list[str], missing: str | None
) -> None:
    """Print what became of every order."""
    for database, orders in groupby(ordered, lambda order: order.database):
        rows = list(orders)
        console.print(f"[bold]{database}[/bold]\n")
        console.print(_table(rows))
        for recorded in {drop.database for row in rows for drop in row.dropped}:
            note = f"recorded: rollback of {recorded}"
            console.print(note, style="dim", markup=False, soft_wrap=True)
        console.print()
    if missing:
        console.print(missing, style="yellow", markup=False, soft_wrap=True)
        console.print()
    _conclude(console, ordered, wrong)


def _table(rows: list[Ordered]) -> Table:
    """Return the table of one database."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("\ngates")
    table.add_column("\nthe order")
    for heading in ("\nanswer", "in the\ndatabase", "effects\narrived", "\ndropped"):
        table.add_column(heading, justify="right")
    for row in rows:
        arrived = Text(f"{row.effects} of {len(EFFECTS)}")
        if not row.stored:
            arrived.stylize("bold red" if row.effects else "bold green")
        table.add_row(
            "with" if row.gates else "without",
            row.transaction,
            str(row.status),
            "yes" if row.stored else "no",
            arrived,
            str(len(row.dropped) or "–"),
        )
    return table


def _conclude(console: Console, ordered: list[Ordered], wrong: list[str]) -> None:
    """Say what this shows, or what is wrong."""
    if wrong:
        show_problems(console, wrong)
    else:
        console.print(
            f"[bold green]Without gates {len(EFFECTS)} side effects for an order that "
            "does not exist; with gates none.[/] What commits has all of them, both "
            "ways."
        )
