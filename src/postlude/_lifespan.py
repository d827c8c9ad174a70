"""The lifespan of an ASGI application: where a loop's calls are drained (D7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postlude import _process
from postlude._arunner import LoopRunner, runner_for
from postlude._background import running_loop
from postlude._log import logger
from postlude._scope import KEY
from postlude._settings import in_force

if TYPE_CHECKING:
    from collections.abc import Callable

    from postlude._types import ASGIApp, ASGIScope, Message, Receive, Send


class Lifespan:
    """Drains this loop's calls when the server says that it will end (D7)."""

    def __init__(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        self._app = app
        self._receive = receive
        self._send = send
        self._asked = False
        self._counted = False
        self._runner: LoopRunner | None = None

    async def run(self, scope: ASGIScope) -> None:
        """Run the app's lifespan, or one of our own for an app that has none."""
        loop = running_loop()
        self._runner = runner_for(loop) if loop is not None else None
        if KEY in scope:
            await self._app(scope, self._receive, self._send)
            return
        scope[KEY] = True  # a second middleware inside leaves it to us
        try:
            await self._app(scope, self.receive, self.send)
        except Exception as exc:
            if self._asked:
                raise
            # Django and others refuse the scope before they read a message. Servers
            # would then send no lifespan at all, and nothing could be drained.
            logger.debug("the application has no lifespan (%r); Postlude answers", exc)
            await self._own()
        finally:
            self._count(-1)

    async def _own(self) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "lifespan.startup":
                await self.send({"type": "lifespan.startup.complete"})
            else:
                await self.send({"type": "lifespan.shutdown.complete"})
                return

    async def receive(self) -> Message:
        """Drain before the app hears of the shutdown: it closes its resources then."""
        self._asked = True
        message = await self._receive()
        if message["type"] == "lifespan.shutdown" and self._runner is not None:
            await self._runner.adrain(in_force().grace, _second_signal())
        return message

    async def send(self, message: Message) -> None:
        """Count the app as one that will hear of the shutdown, once it has started."""
        if message["type"] == "lifespan.startup.complete":
            self._count(1)
            _process.serve()
        await self._send(message)

    def _count(self, step: int) -> None:
        if self._runner is not None and self._counted is (step < 0):
            self._counted = step > 0
            self._runner.lifespans += step


def _second_signal() -> Callable[[], bool]:
    """Give a test for "a second signal came", where the server lets us know.

    uvicorn's handler is a method of its `Server`, whose `force_exit` it sets at a
    second SIGINT (0.2x to 0.5x); it cannot stop its own wait for the lifespan by it.
    """
    import signal  # noqa: PLC0415 - at shutdown only

    server = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return lambda: getattr(server, "force_exit", False) is True
