import sys
from pathlib import Path

import pytest

# The kill suite's stand is a package that several folders here share, and the importlib
# mode of pytest puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent / "kill"))

pytest.register_assert_rewrite("killing.cases")
