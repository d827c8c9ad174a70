"""The report file."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Effort
    from benchmarks.figures import Result


def write(
    path: Path,
    results: dict[str, Result],
    effort: Effort,
    machine: dict[str, object],
    doubts: list[str],
) -> None:
    """Write everything that was found as JSON."""
    whole: dict[str, Any] = {
        "machine": machine,
        "doubts": doubts,
        "effort": dataclasses.asdict(effort),
        "left_out": {n: r.left_out for n, r in results.items() if r.left_out},
        "figures": [f.as_json() for r in results.values() for f in r.figures],
        "details": {name: result.details for name, result in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
