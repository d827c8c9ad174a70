"""Run the demo: ``make demo``, or ``PYTHONPATH=examples python -m shop``."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the imports run there is nothing to clean up: Ctrl-C just ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from shop.cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error}.\n"
        "cause: the demo was started with a Python that lacks what it needs.\n"
        "fix:   make demo builds an environment that has it, and uses it"
    )

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
