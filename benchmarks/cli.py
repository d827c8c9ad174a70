"""The command line: which measures, how thoroughly, and where the report goes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from benchmarks import machine, plot, report, table
from benchmarks.bench import Bench, Effort, Measure
from benchmarks.cpu import Cpu
from benchmarks.figures import Result
from benchmarks.gates import Gates
from benchmarks.imports import Import
from benchmarks.instructions import Instructions
from benchmarks.last_byte import LastByte
from benchmarks.memory import Memory
from benchmarks.processes import (
    BenchmarkError,
    Processes,
    StoppedError,
    stop_on_signals,
)
from benchmarks.queue import Queue
from benchmarks.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        LastByte(),
        Cpu(),
        Gates(),
        Records(),
        Queue(),
        Import(),
        Memory(),
        Instructions(),
    )
}
console = Console()


def main() -> int:
    """Measure, show and write; the exit status never depends on a figure."""
    options = _options()
    stop_on_signals()
    core = machine.cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {core})  # the client of last-byte is this process
    try:
        return _measure(options)
    except StoppedError as stopped:
        console.print("Stopped; no report was written.")
        return stopped.status
    except (BenchmarkError, OSError) as failed:
        console.print(f"[red]{type(failed).__name__}:[/] ", end="")
        console.print(str(failed), markup=False, soft_wrap=True)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "measures",
        nargs="*",
        metavar="MEASURE",
        help=f"any of: {', '.join(MEASURES)} (default: all)",
    )
    parser.add_argument("--rounds", type=_rounds, help="rounds that count (default: 9)")
    parser.add_argument(
        "--quick", action="store_true", help="only see that everything works"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("build/bench/report.json"),
        metavar="FILE",
        help="the report, with a picture beside it (default: %(default)s)",
    )
    options = parser.parse_args()
    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown:
        parser.error(f"no such measure: {unknown[0]} (there are {', '.join(MEASURES)})")
    return options


def _rounds(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("rounds are a whole number of at least 1")
    return int(text)


def _measure(options: argparse.Namespace) -> int:
    effort = Effort.quick() if options.quick else Effort()
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    chosen = [m for n, m in MEASURES.items() if n in (options.measures or MEASURES)]
    # Before anything of ours makes the machine busy.
    described, doubts = machine.described(), machine.doubts()
    if options.quick:
        doubts.append("This was a quick run, and its figures say little.")
    results: dict[str, Result] = {}
    steps = sum(m.steps(effort) for m in chosen if not m.missing())
    with Processes(Path("build/bench/logs")) as processes, _progress(steps) as step:
        bench = Bench(effort, processes, step)
        for measure in chosen:
            missing = measure.missing()
            results[measure.name] = (
                Result(left_out=missing) if missing else measure.run(bench)
            )
    _show(results, doubts)
    report.write(options.json, results, effort, described, doubts)
    picture = options.json.with_suffix(".png")
    drawn = plot.draw(picture, results, doubts)
    console.print(f"Written: {options.json}" + (f" and {picture}" if drawn else ""))
    # Somebody asked for it by name, or it was to be everything: not getting it fails.
    return (
        1 if any(r.left_out for n, r in results.items() if n != "instructions") else 0
    )


def _show(results: dict[str, Result], doubts: list[str]) -> None:
    table.show(console, results)
    for sentence in table.verdict(results):
        console.print(sentence, soft_wrap=True)
    for doubt in doubts:
        console.print(f"[yellow]Doubtful:[/] {doubt}", soft_wrap=True)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show the steps; only at their beginnings, so that no thread draws meanwhile."""
    columns = (
        *(BarColumn(), MofNCompleteColumn(), Elapsed()),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        bar = progress.add_task("", total=steps)
        done = -1

        def step(description: str) -> None:
            nonlocal done
            done += 1
            progress.update(bar, completed=done, description=description, refresh=True)
            if not console.is_terminal:
                sys.stdout.flush()

        yield step
        progress.update(bar, completed=steps, description="done", refresh=True)
