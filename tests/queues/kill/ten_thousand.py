"""Acknowledge 10,000 durable calls while web processes are killed, and count.

    python tests/queues/kill/ten_thousand.py [CALLS]

Four web processes on one file of the embedded engine; every second or so one of them is
killed with SIGKILL and another started. A call is acknowledged when its client has read
the 200. It is lost if it never wrote its line into the ledger, and doubled if it wrote
more than one. Needs what the tests need, with Postlude installed.
"""

import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from killing.stand import Stand, stand
from test_embedded import TestSQLite

PROCESSES, CLIENTS, CALLS = 4, 8, 10_000
BETWEEN = 0.5, 2.0
"""Seconds between two kills, at the least and at the most."""


class Trial:
    """One run."""

    def __init__(self, made: Stand, calls: int) -> None:
        self.stand = made
        self.wanted = calls
        self.webs = [made.web() for _ in range(PROCESSES)]
        self.acknowledged: set[str] = set()
        self.refused = self.kills = 0
        self._asked = 0
        self._lock = threading.Lock()
        self._over = threading.Event()

    def client(self) -> None:
        """Ask for calls until enough are acknowledged."""
        while len(self.acknowledged) < self.wanted:
            with self._lock:
                self._asked += 1
                name = f"call-{self._asked}"
            web = random.choice(self.webs)  # noqa: S311 - no secret
            fn = "anote" if self._asked % 2 else "note"
            if self.stand.post(web, "durable", fn, name):
                self.acknowledged.add(name)
            else:
                self.refused += 1
                time.sleep(0.01)

    def killer(self) -> None:
        """Kill a process now and then, in the middle of what it does."""
        while not self._over.wait(random.uniform(*BETWEEN)):  # noqa: S311 - as above
            place = random.randrange(PROCESSES)  # noqa: S311 - as above
            self.webs[place].kill()
            self.kills += 1
            self.webs[place] = self.stand.web()

    def run(self) -> float:
        """Run it, and give the seconds until the last call was done."""
        began = time.monotonic()
        clients = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        killer = threading.Thread(target=self.killer)
        for each in (*clients, killer):
            each.start()
        for each in clients:
            each.join()
        self._over.set()
        killer.join()
        self.stand.until(lambda: self.acknowledged <= self.stand.done(), 120.0)
        return time.monotonic() - began


def main(calls: int) -> int:
    """Print what became of the calls; fails if one was lost."""
    with (
        tempfile.TemporaryDirectory(prefix="postlude-kill-") as folder,
        stand(TestSQLite.engine, Path(folder)) as made,
    ):
        trial = Trial(made, calls)
        try:
            seconds = trial.run()
        except AssertionError:
            seconds = float("nan")
        runs = Counter(line.name for line in made.lines("done"))
        lost = trial.acknowledged - set(runs)
        doubled = sum(count > 1 for count in runs.values())
        sys.stdout.write(
            f"{len(trial.acknowledged):,} acknowledged, {trial.refused:,} not, "
            f"{trial.kills} kills in {seconds:.0f} s\n"
            f"lost: {len(lost)}; run more than once: {doubled} "
            f"({sum(runs.values()) - len(runs)} runs too many); "
            f"run without being acknowledged: {len(set(runs) - trial.acknowledged)}\n"
        )
        return bool(lost)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS))
