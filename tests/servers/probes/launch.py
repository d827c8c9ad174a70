"""Run `python -m <server>` in this process, so that it cannot outlive the test run.

Linux kills a process when the one that started it dies, if it asks for that: this one
does, and each worker that imports a probe. So even a test run that was killed leaves
nothing behind. Elsewhere only the fixtures clean up.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent goes (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
