"""`instructions`: what Postlude adds to a request, counted instead of timed.

Only the app's side of a request is counted, without server and kernel, so no ratio to
the bare app is made of it. The counts are the same in every run (those with threads
within one in a hundred), on a busy machine too: good for comparing two commits.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import gates, machine
from benchmarks.cpu import FLASK, ON_FLASK, ON_STARLETTE, STARLETTE, Variant
from benchmarks.figures import Figure, Result
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
MISSING = (
    "The program valgrind was not found, which counts instructions. Usually it is not "
    "installed. Install it: `apt-get install valgrind`."
)


@dataclass(frozen=True, slots=True)
class Drive:
    """The apps that one driver is given."""

    server: str
    module: str
    app: str
    variants: tuple[Variant, ...]

    def counted(self) -> list[Variant]:
        """Choose what can be counted, what the others are compared with first.

        Wrapped is the same as installed here, and Starlette's threads are not ours.
        """
        unwanted = {"background-sync"}
        chosen = {v.name: v for v in reversed(self.variants) if v.way != "wrap"}
        return [v for v in reversed(chosen.values()) if v.name not in unwanted]


def _framework(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


ON_A_TRANSACTION = (gates.WITHOUT, gates.WITH)
DRIVES = (
    Drive(_framework(STARLETTE), "drive", "smallest_starlette", ON_STARLETTE),
    Drive(_framework(FLASK), "drive_wsgi", "smallest_flask", ON_FLASK),
    Drive(_framework(gates.SERVER), "drive", "one_transaction", ON_A_TRANSACTION),
)


class Instructions:
    """Instructions per request of the smallest apps, driven inside one process."""

    name = "instructions"

    def steps(self, _effort: Effort) -> int:
        """Count one step per app."""
        return sum(len(drive.counted()) for drive in DRIVES)

    def missing(self) -> str | None:
        """Need valgrind."""
        return None if shutil.which("valgrind") else MISSING

    def run(self, bench: Bench) -> Result:
        """Take the measure, each app once."""
        result = Result()
        for drive in DRIVES:
            bare, *others = drive.counted()
            base = _per_request(bench, drive, bare)
            result.figures.append(_figure(drive, bare.label, base))
            for variant in others:
                added = _per_request(bench, drive, variant) - base
                label = f"+ {variant.label}"
                result.figures.append(_figure(drive, label, added))
        return result


def _figure(drive: Drive, label: str, value: float) -> Figure:
    return Figure("instructions", label, "instructions", (value,), server=drive.server)


def _per_request(bench: Bench, drive: Drive, variant: Variant) -> float:
    """Count two runs: their difference knows nothing of start and warm-up."""
    bench.step(f"counting {drive.server} {variant.label}")
    requests = bench.effort.instructed
    more = _collected(bench, drive, variant, requests)
    return (more - _collected(bench, drive, variant, 0)) / requests


def _collected(bench: Bench, drive: Drive, variant: Variant, requests: int) -> int:
    said = bench.processes.run(
        f"callgrind {drive.server} {variant.label}",
        [
            *(*CALLGRIND, sys.executable, "-m", f"benchmarks.{drive.module}"),
            *(str(requests), str(variant.calls), drive.app),
        ],
        machine.cores()[1],
        {
            "BENCH_VARIANT": variant.name,
            "BENCH_WAY": variant.way,
            "PYTHONHASHSEED": "0",
        },
    )
    collected = re.search(r"Collected : (\d+)", said)
    if collected is None:
        raise BenchmarkError(
            "callgrind gave no count. Usually this valgrind is of another version than "
            f"the 3.19 this was written for. This is what it said:\n{said}"
        )
    return int(collected[1])
