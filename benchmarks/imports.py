"""`import`: what `import postlude` loads."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.figures import Figure, Result

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

TARGET = 70
UNWANTED = (
    *("asyncio", "anyio", "trio", "starlette", "fastapi"),
    *("asgiref", "django", "werkzeug", "flask"),
)
# Isolated: nothing of this folder or the environment's variables is in it.
PROBE = """
import sys
before = set(sys.modules)
import postlude
added = sorted(set(sys.modules) - before)
import json
print(json.dumps(added))
"""


class Import:
    """Modules that `import postlude` adds to a bare interpreter."""

    name = "import"

    def steps(self, _effort: Effort) -> int:
        """Count the one interpreter."""
        return 1

    def missing(self) -> str | None:
        """Need nothing but what is installed."""
        return None

    def run(self, bench: Bench) -> Result:
        """Take the measure, once: it is the same every time."""
        bench.step("import postlude")
        said = bench.processes.run(
            "import", [sys.executable, "-I", "-c", PROBE], machine.cores()[1]
        )
        added = json.loads(said)
        unwanted = [name for name in UNWANTED if name in added]
        what = f" ({', '.join(unwanted)})" if unwanted else ""
        return Result(
            figures=[
                Figure(
                    "import", "modules added", "modules", (float(len(added)),), TARGET
                ),
                Figure(
                    "import",
                    f"of them asyncio or frameworks{what}",
                    "packages",
                    (float(len(unwanted)),),
                    0,
                ),
            ],
            details={"modules": added},
        )
