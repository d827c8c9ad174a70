"""The report: one HTML file without any other asset, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from shop.journal import OWN_WORK
from shop.listing import listing
from shop.posting import WAYS
from shop.results import Picture, Results
from shop.terminal import TITLES
from shop.wording import ms, offset, times

STEPS = (1, 2, 5)
"""An axis counts in these, times a power of ten."""
MARGIN = 1.03
"""An axis ends this much later than its last bar."""


def write(results: Results, directory: Path) -> Path:
    """Write report.html and report.json; return the path of the first."""
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / "report.html"
    page.write_text(render(results), "utf-8")
    write_numbers(directory / "report.json", as_json(results))
    return page


def write_numbers(path: Path, numbers: dict[str, Any]) -> Path:
    """Write what was measured as JSON; return the path."""
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")
    return path


def as_json(results: Results) -> dict[str, Any]:
    """Return everything that was measured as plain values; times in milliseconds."""
    plain = asdict(results)
    plain["settings"]["report_dir"] = str(results.settings.report_dir)
    command = results.settings.command
    return {"command": command, "speed_up": results.speed_up, **plain}


def render(results: Results) -> str:
    """Return the report as HTML."""
    environment = Environment(
        loader=PackageLoader("shop"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for words in (ms, offset, times):
        environment.filters[words.__name__] = unbroken(words)
    longest = max(picture.end for picture in results.pictures.values())
    end = longest * MARGIN
    return environment.get_template("report.html.j2").render(
        results=results,
        listing=listing(results.settings.framework),
        titles=TITLES,
        ticks=range(0, int(end) + 1, tick_step(end)),
        end=end,
        drawings={way: bars(results.pictures[way], end) for way in WAYS},
    )


def unbroken(words: Callable[[Any], str]) -> Callable[[Any], str]:
    """Keep a number and its unit on one line."""
    return lambda value: words(value).replace(" ", "\N{NO-BREAK SPACE}")


def tick_step(longest: float) -> int:
    """Return the distance of an axis's ticks, so that there are four to nine."""
    power = 1
    while True:
        for digit in STEPS:
            if longest / (digit * power) <= 8:
                return digit * power
        power *= 10


def bars(picture: Picture, end: float) -> list[dict[str, Any]]:
    """Return the bars of a picture; x and width in percent of the axis."""
    return [
        {
            "name": span.name,
            "took": span.ended - span.began,
            "x": 100 * span.began / end,
            "width": 100 * (span.ended - span.began) / end,
            "kind": kind(span.name, span.began, picture.last_byte),
        }
        for span in picture.spans
    ]


def kind(name: str, began: float, last_byte: float) -> str:
    """Return what a bar is for the customer: own work, waiting, or after the answer."""
    if name == OWN_WORK:
        return "own"
    return "deferred" if began > last_byte else "waited"
