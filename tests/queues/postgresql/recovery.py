"""Measure how long a job waits whose process was killed: `python recovery.py ENGINE`.

With the default settings, on the server that PGHOST and its siblings name; five times.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "kill")]

from killing.engine import Engine  # noqa: E402 - found by the path above
from killing.stand import stand  # noqa: E402 - found by the path above
from places import place, site_of_tasks  # noqa: E402 - found by the path above

LEASE = {"POSTLUDE_QUEUE_LEASE": "30"}


def main(engine: str) -> None:
    """Kill five processes in mid-call, one after another."""
    leases = engine not in {"dbos", "django"}

    def queue(_folder: Path):
        in_django = engine == "django"
        return site_of_tasks(**LEASE) if in_django else place(engine, **LEASE)

    waited = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            made = Engine(engine, queue, leases=leases, recovery=60, embedded=leases)
            with stand(made, Path(folder)) as one:
                web, other = one.web(), one.worker()
                spare = one.worker()
                assert one.post(web, "durable", "wait", "long")
                victim = one.running("long")
                victim.kill()
                killed = time.monotonic()
                one.until(lambda one=one: len(one.lines("began", "long")) > 1)
                waited.append(time.monotonic() - killed)
                del other, spare
    print(engine, " ".join(f"{seconds:.1f}" for seconds in sorted(waited)))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
