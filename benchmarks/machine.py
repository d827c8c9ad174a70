"""The machine: which cores are ours, what runs on it, how busy it is."""

from __future__ import annotations

import os
import platform
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    *("postlude", "starlette", "fastapi", "flask", "django"),
    *("uvicorn", "uvloop", "httptools", "gunicorn"),
)
BUSY = 0.5
"""Load average above which figures are called doubtful: half a core is somebody's."""


@cache
def cores() -> tuple[int | None, int | None]:
    """Give the core of the servers and that of the load; None: cannot be pinned.

    Asked once, before this process pins itself.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def cpu_seconds(pid: int) -> float:
    """Give the CPU time, user and system, of a process and its descendants so far.

    Linux has a clock for each process, exact to the nanosecond and with the threads
    that have ended (clock_getcpuclockid(3): the inverted pid, and 2 for the scheduler's
    account). What psutil reads elsewhere is counted in ticks.
    """
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    if sys.platform == "linux":
        return sum(time.clock_gettime((~member.pid << 3) | 2) for member in family)
    times = [member.cpu_times() for member in family]
    return sum(one.user + one.system for one in times)


def described() -> dict[str, object]:
    """Say what figures depend on, for the report."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: version(name) for name in PACKAGES},
    }


def doubts() -> list[str]:
    """Say what makes the figures of a run on this machine doubtful."""
    found = []
    load = os.getloadavg()[0]
    if load > BUSY:
        found.append(
            f"The machine is busy with other work (load {load:.1f}), which shows in "
            "the figures. Usually something else was started. Run again when it is "
            "quiet."
        )
    if len(set(cores())) == 1:
        found.append(
            "Server and load share their cores, so each disturbs the other. Usually "
            "the machine has one core, or no way to pin. Run on Linux with two cores."
        )
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()
