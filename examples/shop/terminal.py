"""What the terminal shows: progress while it runs, then two lanes and two tables."""

from __future__ import annotations

from math import ceil

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from shop.posting import WAYS, Way
from shop.results import Results
from shop.settings import Settings
from shop.wording import ms, offset, times

WIDTH = 100
"""Wider than this, a table is harder to read, not easier."""
LABEL = 16
"""Columns to the left of a lane."""
STARTING = 5
"""Seconds for the start, the warm-up and the last side effects."""
PROBLEMS = 10
"""So many say what is wrong; the report has all."""
TITLES: dict[Way, str] = {"before": "without defer", "after": "with defer"}


def make_console() -> Console:
    """Return the console, no wider than reads well."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    return console


def introduce(console: Console, settings: Settings) -> None:
    """Say what is about to be measured."""
    took = settings.latencies
    orders = f"{settings.orders} order{'s' * (settings.orders > 1)}"
    console.print(
        f"\n[bold]The shop: {settings.title}[/bold], {orders} each way\n"
        f"Own work {took.own} ms; side effects {took.mail} + {took.event} + "
        f"{took.inventory} + {took.cache} = {took.side_effects} ms\n"
    )


def seconds_of(settings: Settings) -> int:
    """Say about how long the orders of `make demo` take."""
    each_way = 2 * settings.latencies.own + settings.latencies.side_effects
    return ceil(settings.orders * each_way / 1000) + STARTING


def make_progress(console: Console, seconds: int, width: int = 18) -> Progress:
    """Return a progress display; where nobody watches, it is one line of text.

    `width` is that of what stands beside its bars.
    """
    if not console.is_terminal:
        console.print(f"Posting orders, about {seconds} s ...\n")
    return Progress(
        f"{{task.description:<{width}}}",
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def show(console: Console, results: Results) -> None:
    """Print what was measured."""
    for way in WAYS:
        console.print(_lane(way, results, console.width), no_wrap=True)
    console.print(
        f"{'':{LABEL}}[cyan]█[/] own work  [yellow]█[/] the customer waits  "
        "[green]░[/] the customer has the answer"
    )
    console.print(_waits(results))
    console.print(_effects(results))
    _conclude(console, results)


def _lane(way: Way, results: Results, width: int) -> Text:
    """Draw one order as a bar of text, both orders on one scale."""
    longest = max(picture.end for picture in results.pictures.values())
    cells = (width - LABEL - len("▏1,234 ms ")) / longest
    picture = results.pictures[way]
    own = min(results.settings.latencies.own, picture.last_byte)
    waited = round((picture.last_byte - own) * cells)
    deferred = round((picture.end - picture.last_byte) * cells)
    return Text.assemble(
        f"{TITLES[way]:<{LABEL}}",
        ("█" * max(1, round(own * cells)), "cyan"),
        ("█" * waited, "yellow"),
        (f"▏{ms(picture.last_byte)} ", "bold"),
        ("░" * deferred, "green"),
    )


def _waits(results: Results) -> Table:
    """Return the table of what customers waited for."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("time to the last byte", min_width=21)
    table.add_column("p50", justify="right")
    table.add_column("p95", justify="right")
    for way in WAYS:
        waits = results.waits[way]
        table.add_row(TITLES[way], ms(waits.p50), ms(waits.p95))
    sooner = results.speed_up
    table.add_row(
        "sooner", times(sooner["p50"]), times(sooner["p95"]), style="bold green"
    )
    return table


def _effects(results: Results) -> Table:
    """Return the table of when the side effects began."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("side effect", min_width=21)
    for heading in ("took", "began\nwithout", "began\nwith", "earliest\nwith"):
        table.add_column(heading, justify="right")
    table.add_column("arrived", justify="right")
    for effect in results.effects:
        table.add_row(
            effect.name,
            ms(effect.took),
            offset(effect.began["before"]),
            offset(effect.began["after"]),
            offset(effect.earliest["after"]),
            f"{effect.arrived}/{results.orders}",
        )
    table.caption = "began: relative to the last byte (median); −: somebody waited"
    table.caption_justify = "left"
    return table


def _conclude(console: Console, results: Results) -> None:
    """Say whether anything was lost."""
    if results.problems:
        console.print()
        show_problems(console, results.problems)
    else:
        console.print(
            f"\n[bold green]Nothing lost.[/] Each of {results.orders} orders has its "
            "mail (read and compared), its event, its stock taken and a fresh page."
        )


def show_problems(console: Console, problems: list[str]) -> None:
    """Say what is wrong, the first of it in words."""
    console.print(f"[bold red]Problems: {len(problems)}[/]")
    for problem in problems[:PROBLEMS]:
        console.print(f"  {problem}", markup=False)
    if len(problems) > PROBLEMS:
        console.print(f"  … and {len(problems) - PROBLEMS} more")
