"""Job engines behind `.retry()`, `.durable()` and `queue()` (contract F).

One file per engine; the setting `queue` names one by its address. An engine of your own
is an object with the methods of `Queue`, and of `Leasing` if it has leases.
"""

from postlude._codec import Codec
from postlude._codec import register as register_codec
from postlude.queues._job import Job
from postlude.queues._opening import open_queue
from postlude.queues._queue import (
    Capabilities,
    Lease,
    Leasing,
    Queue,
    Transactional,
    Verdict,
)
from postlude.queues._running import run

__all__ = [
    "Capabilities",
    "Codec",
    "Job",
    "Lease",
    "Leasing",
    "Queue",
    "Transactional",
    "Verdict",
    "open_queue",
    "register_codec",
    "run",
]
