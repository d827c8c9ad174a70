"""The picture beside the report: CPU ratios, and how long customers waited."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Its cache belongs with everything else that is built, not into somebody's home.
os.environ.setdefault("MPLCONFIGDIR", str(Path("build/bench/matplotlib").resolve()))

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

if TYPE_CHECKING:
    from benchmarks.figures import Figure, Result

mpl.use("Agg")  # no window

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
GOOD, BAD, PLAIN = "#2a9d8f", "#d1495b", "#9aa5b1"
BARE, OURS = "#9aa5b1", "#1d6fa5"
STYLE = {
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "figure.facecolor": "white",
}
LEFT: dict[str, Any] = {"x": 0.01, "ha": "left"}
WIDTH = 8.0
"""Inches; at 100 dots each the picture is 800 wide."""
WIDEST_RATIO = 2.6
"""Where a bar is cut: Starlette's own sync task would make all others look alike."""


def draw(path: Path, results: dict[str, Result], doubts: list[str]) -> bool:
    """Draw what was measured of both; False if neither was."""
    cpu, last_byte = results.get("cpu"), results.get("last-byte")
    bars = [f for f in cpu.figures if f.unit == "ratio"] if cpu else []
    waits = last_byte.details if last_byte else {}
    if not bars and not waits:
        return False
    with mpl.rc_context(STYLE):
        heights = [0.9 + 0.23 * (len(bars) + 2)] if bars else []
        heights += [3.2] if waits else []
        figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        if bars:
            _draw_bars(parts[0][0], bars)
        if waits:
            _draw_waits(parts[-1][0], waits)
        figure.suptitle("What defer costs", **LEFT, fontsize=13, fontweight="bold")
        if doubts:
            short = " ".join(doubt.split(". ")[0].rstrip(".") + "." for doubt in doubts)
            figure.supxlabel(f"Doubtful: {short}", **LEFT, fontsize=8, color=BAD)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
        plt.close(figure)
    return True


def _draw_bars(part: Any, bars: list[Figure]) -> None:
    part.suptitle(
        "CPU time per request, divided by that of the bare app", **LEFT, fontsize=10
    )
    axes = part.subplots()
    rows = _rows(bars)
    for place, row in enumerate(rows):
        if not isinstance(row, str):
            _draw_bar(axes, place, row)
    axes.set_yticks(
        range(len(rows)),
        [row if isinstance(row, str) else row.name for row in rows],
    )
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color=INK, lw=0.8)
    furthest = max(max(figure.rounds) for figure in bars)
    axes.set_xlim(right=max(min(furthest, WIDEST_RATIO), 1.4) + 0.15)
    axes.xaxis.grid(visible=True, color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    key = {"target met": GOOD, "not met": BAD, "no target": PLAIN}
    handles = [Patch(color=colour, label=word) for word, colour in key.items()]
    handles += [
        Line2D([], [], color=INK, lw=1.8, marker="|", ls="", ms=10, label="target"),
        Line2D([], [], color=INK, lw=1, label="lowest to highest round"),
    ]
    axes.legend(handles=handles, loc="best", fontsize=8, framealpha=1, edgecolor=GRID)


def _rows(bars: list[Figure]) -> list[Figure | str]:
    """Put a heading before the bars of each server."""
    rows: list[Figure | str] = []
    for figure in bars:
        if figure.server not in rows:
            rows.append(figure.server)
        rows.append(figure)
    return rows


def _draw_bar(axes: Any, place: int, figure: Figure) -> None:
    end = min(figure.median, WIDEST_RATIO)
    colour = {True: GOOD, False: BAD, None: PLAIN}[figure.met]
    axes.barh(place, end - 1, left=1, height=0.62, color=colour)
    low, high = (min(edge(figure.rounds), WIDEST_RATIO) for edge in (min, max))
    if low < high:
        axes.plot([low, high], [place, place], color=INK, lw=1)
    if figure.target is not None:
        stroke = [place - 0.42, place + 0.42]
        axes.plot([figure.target] * 2, stroke, color=INK, lw=1.8)
    cut = " →" if figure.median > WIDEST_RATIO else ""
    right = max(end, high, figure.target or 1)
    axes.text(right + 0.015, place, f"{figure.median:.2f}{cut}", va="center")


def _draw_waits(part: Any, waits: dict[str, dict[str, list[float]]]) -> None:
    part.suptitle(
        "Milliseconds to the last byte of an order: how many waited no longer",
        **LEFT,
        fontsize=10,
    )
    shares = [half / 2 for half in range(201)]
    for axes, (name, lines) in zip(
        part.subplots(1, len(waits), sharey=True), waits.items(), strict=True
    ):
        axes.plot(lines["bare"], shares, color=BARE, lw=2.6, label="without any")
        axes.plot(
            lines["deferred"], shares, color=OURS, lw=1.4, label="with four deferred"
        )
        # The last percent is a tail of its own, and would squeeze the rest.
        ends = [line[198] for line in (lines["bare"], lines["deferred"])]
        begins = [line[2] for line in (lines["bare"], lines["deferred"])]
        axes.set_xlim(min(begins) - 0.1, max(*ends) + 0.2)
        axes.set_ylim(0, 100)
        axes.set_title(name)
        axes.grid(visible=True, color=GRID, lw=0.8)
        for share in (50, 95):
            axes.axhline(share, color=FAINT, lw=0.7, ls=":")
    first = part.axes[0]
    first.set_yticks([0, 25, 50, 75, 95], ["0 %", "25 %", "p50", "75 %", "p95"])
    first.legend(frameon=False, loc="lower right", fontsize=8)
