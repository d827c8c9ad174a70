"""The table at the end, and what it comes to; losses as plainly as wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.figures import Figure, Result

ABOUT = {
    "last-byte": "the customer's wait, divided by that of the app without any",
    "cpu": "CPU time per request, divided by that of the bare app",
    "gates": "What waiting for a transaction adds",
    "records": "what a failure store adds to whoever runs a call",
    "queue": "what the queue adds to a request whose call succeeds at once",
    "import": "what `import postlude` loads",
    "memory": "what a pending call occupies",
    "instructions": "instructions per request, the app's side only (+: more than bare)",
}
MET = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}


def show(console: Console, results: dict[str, Result]) -> None:
    """Print all figures, a table for each measure."""
    for name, result in results.items():
        console.print()
        console.print(f"[bold]{name}[/]: {ABOUT[name]}", highlight=False)
        if result.left_out:
            console.print(f"  [yellow]left out:[/] {result.left_out}", soft_wrap=True)
        else:
            console.print(_table(result.figures))


def _table(figures: list[Figure]) -> Table:
    made = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    # The same widths for all measures, and 80 columns altogether.
    made.add_column("", width=33, overflow="fold")
    for heading, width in (("figure", 8), ("min..max", 13), ("target", 7)):
        made.add_column(heading, justify="right", width=width)
    made.add_column("", width=8, no_wrap=True)
    server = ""
    for figure in figures:
        if figure.server != server:
            server = figure.server
            made.add_row(server)
        made.add_row(*_cells(figure))
    return made


def _cells(figure: Figure) -> tuple[str, ...]:
    low = figure.shown(min(figure.rounds)).split(" ")[0]
    spread = f"{low}..{figure.shown(max(figure.rounds))}"
    return (
        f"  {figure.name}",
        figure.shown(figure.median),
        spread if len(figure.rounds) > 1 else "",
        _aim(figure),
        MET[figure.met],
    )


def _aim(figure: Figure) -> str:
    if figure.target is None:
        return ""
    digits = 2 if figure.unit == "ratio" else 0
    return f"≤ {figure.target:,.{digits}f}"


def verdict(results: dict[str, Result]) -> list[str]:
    """Say how many targets were met, and which were not."""
    aimed = [f for r in results.values() for f in r.figures if f.target is not None]
    lost = [figure for figure in aimed if not figure.met]
    said = [f"{len(aimed) - len(lost)} of {len(aimed)} targets met."]
    said += [
        f"[red]Not met:[/] {figure.measure}, "
        f"{f'{figure.server}, ' if figure.server else ''}{figure.name}: "
        f"{figure.shown(figure.median)}, target {_aim(figure)}"
        for figure in lost
    ]
    return said
