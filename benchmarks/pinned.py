"""`python -m benchmarks.pinned CORE COMMAND...`: become COMMAND, on one core.

On Linux the command also dies with whoever started it, so that not even a runner that
was killed leaves a server behind. Nothing of this module stays in the process.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Pin this process and replace it."""
    core, *command = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - as far as there is a prctl

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if core != "-":
            os.sched_setaffinity(0, {int(core)})
    # Whoever started us held signals back meanwhile, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(command[0], command)  # noqa: S606 - that is its purpose


if __name__ == "__main__":
    main()
