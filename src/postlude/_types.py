"""Aliases and the protocols that the core's modules speak with each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope

State: TypeAlias = Literal[
    "pending",
    "running",
    "done",
    "failed",
    "timed_out",
    "handed_over",
    "lost",
    "dropped",
]
Reason: TypeAlias = Literal["outcome", "rollback", "cancelled", "replaced", "overflow"]

# ASGI 3.0 and PEP 3333. Any: both protocols put values of every type into these.
ASGIScope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
# Loose: frameworks type what their apps take in their own ways.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class Around(Protocol):
    """What a framework puts around each deferred call of its unit (D4).

    One of the two is entered in the call's own context, on the thread or loop that
    runs the call. A third method, `for_retry()`, is optional: it gives what belongs
    around a call that is run again from its record, in another request or in none.
    """

    def sync(self) -> AbstractContextManager[object]:
        """Surround a call that runs in a thread."""
        ...

    def asynchronous(self) -> AbstractAsyncContextManager[object]:
        """Surround a call that runs on an event loop."""
        ...


class Runner(Protocol):
    """Executes the calls of units that have ended."""

    def resume(self, scope: DeferScope, delay: float = 0.0) -> None:
        """Run what *scope* has pending, soon, in the background. Any thread.

        *delay* (seconds) is the least time before the first call begins.
        """
        ...

    def start(
        self, scope: DeferScope, call: DeferredCall, awaitable: Any = None
    ) -> None:
        """Begin one async call on the runner's loop. Any thread."""
        ...


class Ticket(Protocol):
    """Something that a job engine is asked, in another thread."""

    def wait(self, seconds: float = ..., /) -> Any:
        """Wait for the answer, blocking, and give it or raise."""
        ...

    def get(self) -> Any:
        """Give the answer that has come, or raise."""
        ...

    def on_end(self, tell: Callable[[], object]) -> None:
        """Call *tell* (quick, any thread) when the answer has come."""
        ...


class Handle(Protocol):
    """What a job engine does for one call (F1, F2). Nothing here blocks."""

    asks: bool
    """Whether the engine is asked before the call runs, and told when it is done; else
    it hears of failures only, and a success costs nothing."""
    sealed: bool
    """Whether it is written, and yet has not left: what it says cannot change."""

    def changed(self, call: DeferredCall, /) -> None:
        """See to an option that was set on a call that may be written already."""
        ...

    def beginning(self, call: DeferredCall, /) -> Ticket | None:
        """Ask for a call that is about to start; None: nobody needs to be asked."""
        ...

    def begun(self, call: DeferredCall, ticket: Any, /) -> bool:
        """Tell whether it runs here; if not, it has been settled."""
        ...

    def ending(
        self, scope: DeferScope, call: DeferredCall, exc: BaseException | None, /
    ) -> Ticket | None:
        """Begin to settle a call that ran; None: it is settled."""
        ...

    def ended(
        self,
        scope: DeferScope,
        call: DeferredCall,
        exc: BaseException,
        ticket: Any,
        /,
    ) -> None:
        """Settle it, now that the answer has come."""
        ...

    def timed_out(self, scope: DeferScope, call: DeferredCall, /) -> bool:
        """See to a call whose time is over; True: it is handed over."""
        ...

    def failed(self, call: DeferredCall, record: Any, /) -> None:
        """See to a call that has failed for good, with the record of it."""
        ...

    def dropped(self, call: DeferredCall, /) -> None:
        """See to a call that does not start."""
        ...

    def leaving(self, call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Hand over a call that this process does not finish; None: it cannot be."""
        ...


class Carrier(Protocol):
    """Hands calls to the job engine of the setting `queue`."""

    def retry_as_before(
        self, call: DeferredCall, retries: object, backoff: object, /
    ) -> bool:
        """Stand behind a call as behind one before; False: somebody must look at it."""
        ...

    def retry(
        self,
        call: DeferredCall,
        retries: int,
        backoff: float | tuple[float, ...],
        asked: object,
        /,
    ) -> None:
        """Stand behind a call with further runs (F1)."""
        ...

    def durable(self, call: DeferredCall, /) -> None:
        """Have a call written before the response (F2)."""
        ...

    def send(self, call: DeferredCall, delay: float, key: str | None, /) -> None:
        """Have a call run by a worker."""
        ...

    def collect(self, call: DeferredCall, /) -> None:
        """Note a call for the moment before the response; if that is over, write it."""
        ...

    def join(self, call: DeferredCall, /) -> None:
        """Have a call written by the transactions around it, where the engine can."""
        ...

    def securing(self, scope: DeferScope, /) -> Any:
        """Begin to write what must be written before the response, or give None."""
        ...

    def secure(self, scope: DeferScope, /) -> None:
        """Write it, blocking; what it raises must become an error answer."""
        ...

    def write(self, call: DeferredCall, /) -> None:
        """Write a call of `send()` now, blocking; raises what keeps it from that."""
        ...

    def carry(self, call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Hand over a call that this process does not finish; None: it cannot be."""
        ...

    def unload(self, scope: DeferScope, /) -> None:
        """Hand over what can be carried of a unit that ended at `max_pending` (D6)."""
        ...


class Interceptor(Protocol):
    """What the testing kit puts between registering and running (G2)."""

    def registered(self, call: DeferredCall, scope: DeferScope | None) -> bool:
        """See a new call; True means that it is taken and must not be collected."""
        ...

    def holds(self, scope: DeferScope) -> bool:
        """See the end of a unit; True means that its calls must not run now."""
        ...


class BlockRunner(Protocol):
    """Ends the unit of a `with` block and returns when its calls have run (B6)."""

    def run(self, scope: DeferScope) -> None:
        """Run the calls of a `with` block in the calling thread."""
        ...

    async def arun(self, scope: DeferScope) -> None:
        """Run the calls of an `async with` block, from the running loop."""
        ...
