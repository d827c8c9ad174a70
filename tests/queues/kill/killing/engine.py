"""What the suite has to know of an engine."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """One engine under test, with settings that let it notice a death soon."""

    name: str
    place: Callable[[Path], AbstractContextManager[Mapping[str, str]]]
    """Make a queue of its own for one test and clean up after it; gives environment
    variables of all its processes: `POSTLUDE_QUEUE` and what else there is to set."""
    leases: bool
    """Whether a durable call runs in the web process first."""
    recovery: float
    """Seconds until a job whose process died begins again, at the worst."""
    embedded: bool = False
    """Whether web processes are its workers, so that no others are started."""
    worker: tuple[str, ...] = ("-m", "postlude", "work", "--threads", "2")
    """How Python starts a worker."""
    graceful: bool = True
    """Whether a worker that is told to end gives back what it cannot finish at once;
    otherwise that takes `recovery`, too."""

    @property
    def patience(self) -> float:
        """Seconds after which something that should have happened never will."""
        return 3 * self.recovery + 45.0
