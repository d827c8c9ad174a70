"""What tests of applications use: `capture()` and `inline()`."""

from postlude.testing._capture import Captured, capture
from postlude.testing._inline import inline
from postlude.testing._watch import FailedCalls, failing_calls

__all__ = ["Captured", "FailedCalls", "capture", "failing_calls", "inline"]
