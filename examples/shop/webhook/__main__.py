"""Run it: ``make demo-webhook``, or ``python -m shop.webhook`` like the demo."""

import sys

from shop.__main__ import main
from shop.webhook.run import USAGE, USUAL, run

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run, USAGE, USUAL))
