"""`python -m benchmarks`, from the root of the repository, with Postlude installed."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
