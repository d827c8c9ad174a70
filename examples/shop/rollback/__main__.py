"""Run it: ``make demo-rollback``, or ``python -m shop.rollback`` like the demo."""

import sys

from shop.__main__ import main
from shop.rollback.run import USAGE, run

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run, USAGE))
