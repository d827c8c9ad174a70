"""What the terminal shows: what is tried, and a table of what became of it."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shop.settings import Settings
from shop.terminal import show_problems
from shop.webhook.results import WAYS, Counts, reasons
from shop.webhook.trial import Plan, Trial

TITLES = ("defer(deliver, …)", ".retry(3)")


def introduce(console: Console, plan: Plan) -> None:
    """Say what is about to be tried."""
    console.print(
        f"\n[bold]A webhook for each order: {plan.settings.title}[/bold], "
        f"{plan.settings.orders} orders each way\n"
        f"Its receiver answers one in ten with 500, and is down for {plan.down_s} s.\n"
        f"Behind .retry(3): {plan.engine.title}\n"
    )


def seconds_of(settings: Settings, down_s: int) -> int:
    """Say about how long it takes: the orders, the last retry, and the start."""
    return (
        round(2 * settings.orders * (settings.latencies.own + 10) / 1000) + down_s + 5
    )


def show(
    console: Console, trial: Trial, numbers: dict[str, Counts], wrong: list[str]
) -> None:
    """Print what became of the webhooks."""
    console.print(_table(list(numbers.values())))
    for way in WAYS:
        for said, count in reasons(trial.seen[way]):
            note = f"recorded: {count} × {said}"
            console.print(note, style="dim", markup=False, soft_wrap=True)
    if trial.down_s is not None:
        console.print(f"nobody listened for {trial.down_s:.1f} s", style="dim")
    console.print()
    _conclude(console, numbers, wrong)


def _table(both: list[Counts]) -> Table:
    """Return the table: a row for each number, a column for each way."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("webhooks", min_width=30)
    for title in TITLES:
        table.add_column(title, justify="right")
    for name, attribute in (
        ("sent for", "orders"),
        ("first run answered with 500", "answered"),
        ("first run refused: it was down", "unreachable"),
        ("jobs that the queue saw", "jobs"),
        ("runs on the queue", "runs"),
        ("duplicates at the receiver", "duplicates"),
        ("delivered", "delivered"),
    ):
        table.add_row(name, *(str(getattr(one, attribute)) for one in both))
    table.add_row("slowest delivery", *(_seconds(one.slowest) for one in both))
    table.add_row("lost", *(_lost(one.lost) for one in both), style="bold")
    table.add_row("recorded as failed", *(str(one.recorded) for one in both))
    return table


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _lost(count: int) -> Text:
    return Text(str(count), "red" if count else "green")


def _conclude(console: Console, numbers: dict[str, Counts], wrong: list[str]) -> None:
    """Say what this shows, or what is wrong."""
    if wrong:
        show_problems(console, wrong)
        return
    plain, retry = numbers.values()
    console.print(
        f"[bold green]With .retry(3) nothing was lost, without it {plain.lost} of "
        f"{plain.orders}.[/] Each of these has its failure record. "
        f"{retry.orders - retry.jobs} of {retry.orders} deliveries never saw the queue."
    )
