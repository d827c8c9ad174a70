"""What is kept of failed and lost calls, and where (E1, E2).

`postlude.configure(failures="sqlite:///postlude.db")` chooses the place.
"""

from postlude.failures._record import FailureRecord
from postlude.failures._retry import RetryResult, aretry, retry
from postlude.failures._store import Batch, FailureStore, ProcessRecord, Tally

__all__ = [
    "Batch",
    "FailureRecord",
    "FailureStore",
    "ProcessRecord",
    "RetryResult",
    "Tally",
    "aretry",
    "retry",
]
