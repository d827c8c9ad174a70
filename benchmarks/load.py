"""Full load, by wrk: it costs its core less than any client in Python."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.processes import Processes
    from benchmarks.servers import Server

CONNECTIONS = 16
MISSING = (
    "The program wrk was not found, which makes the load. Usually it is not installed. "
    "Install it: `apt-get install wrk` (macOS: `brew install wrk`)."
)


@dataclass(frozen=True, slots=True)
class Load:
    """One window of load."""

    requests: int
    cpu_seconds: float

    @property
    def cpu_per_request(self) -> float:
        """The server's CPU time for one request, in microseconds."""
        return self.cpu_seconds / self.requests * 1e6


def missing() -> str | None:
    """Say how to get wrk where it is not there."""
    return None if shutil.which("wrk") else MISSING


def put(processes: Processes, loaded: dict[Server, int], seconds: int) -> list[Load]:
    """Load servers at the same time for some seconds, and give the load of each.

    Args:
        processes: where to start wrk.
        loaded: the servers, each with the calls that one request defers.
        seconds: how long; whole ones, for wrk.

    Raises:
        BenchmarkError: an answer was wrong, or calls were lost.
    """
    ran = [server.ran() for server in loaded]
    before = [server.cpu_seconds() for server in loaded]
    told = processes.run_all(
        {
            f"wrk {server.name}": [
                *("wrk", "-t1", f"-c{CONNECTIONS}", "-d", f"{seconds}s"),
                f"http://127.0.0.1:{server.port}/",
            ]
            for server in loaded
        },
        machine.cores()[1],
    )
    loads: list[Load] = []
    for (server, deferred), since, used, said in zip(
        loaded.items(), ran, before, told, strict=True
    ):
        requests = _served(server, said)
        # What was on its way when wrk hung up may have run too.
        most = requests + CONNECTIONS
        server.expect_ran(since, requests * deferred, most * deferred)
        # Only now: what the last requests deferred belongs to the bill.
        loads.append(Load(requests, server.cpu_seconds() - used))
    return loads


def _served(server: Server, said: str) -> int:
    served = re.search(r"(\d+) requests in", said)
    if served is None or "Socket errors" in said or "Non-2xx" in said:
        raise BenchmarkError(
            f"Not all requests to {server.name!r} were answered well. Usually the "
            f"server failed under load. This is what wrk said:\n{said}"
        )
    return int(served[1])
