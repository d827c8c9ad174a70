"""PostludeMiddleware for every ASGI 3 application."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from postlude import _call, _process, _reporting, _scope, _settings
from postlude._arunner import LoopRunner, runner_for
from postlude._lifespan import Lifespan
from postlude._log import logger
from postlude._outcome import FIRST_FAILING_STATUS, Outcome
from postlude._scope import KEY, DeferScope, current, held, reset
from postlude._session import SealedSession, inside
from postlude._settings import in_development, in_force
from postlude._waiting import answer, stay, wait
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from postlude._types import (
        Around,
        ASGIApp,
        ASGIScope,
        Carrier,
        Message,
        Receive,
        Send,
    )

__all__ = ["PostludeMiddleware"]


_ERROR_PAUSE = 0.01
"""Seconds between the end of a request's task that raised and its first call: an outer
middleware with a task of its own may still be sending the 500."""
_ANSWER_LIMIT = 1.0
"""Seconds after an exception when the answer has left, whatever its task does."""
_FILE_PART = 1 << 16
"""Bytes of a file that are sent at a time."""
_SERVER_ERROR = 500
_WORTH_A_LOOK = 0.01
"""Seconds of a request after which it is worth asking whether the client has left."""
_UNKNOWN_TASK_PAUSE = 0.05
"""The same where the server runs the app in no task whose end could be awaited."""


class PostludeMiddleware:
    """Make every request and WebSocket a unit of work whose calls run after it.

    Put it outermost. A second one inside joins the first (A8). It handles the
    lifespan's end: calls are drained before the application closes its resources (D7).
    """

    def __init__(self, app: ASGIApp, *, around: Around | None = None) -> None:
        """Wrap *app*; *around* surrounds each call, for frameworks' integrations.

        Raises:
            SettingsError: a setting is unknown or impossible.
        """
        self.app = app
        self._around = around
        self._runner: LoopRunner | None = None
        _reporting.prepare()

    async def __call__(  # noqa: C901 - the road of every request, in one place
        self, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if (kind != "http" and kind != "websocket") or KEY in scope:  # noqa: PLR1714 - a set costs twice as much, on every request
            await self._pass(kind, scope, receive, send)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            from postlude._trio import serve  # noqa: PLC0415 - only under trio

            await serve(self.app, self._around, scope, receive, send)
            return
        runner = self._runner
        if runner is None or runner.loop is not loop:
            runner = self._begin(loop, scope)
        exchange = Exchange(runner, scope, receive, send)
        if self._around is not None:
            exchange.surround(self._around)
        scope[KEY] = exchange
        token = current.set(exchange)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as exc:
            exchange.fail(exc)
            if exchange.leave() and not isinstance(exc, GeneratorExit):
                await exchange.linger()
            # An outer handler of the error may defer too. It sees the unit, unless this
            # task is not the request's own: then the unit would be seen for ever.
            if not (runner.lifespans or _is_starlettes_client(scope)):
                reset(token)
            raise
        current.reset(token)
        if exchange._ended:
            if exchange.leave():
                await exchange.linger()
            return
        exchange._ended = True  # first, as in close()
        if exchange._calls:
            if exchange.leave():
                await exchange.linger()
        else:  # nothing was deferred: the road of most requests
            scope.pop(KEY, None)

    def _begin(self, loop: asyncio.AbstractEventLoop, scope: ASGIScope) -> LoopRunner:
        """See the first connection on a loop."""
        if getattr(scope.get("app", self.app), "debug", False) is True:
            in_development("debug=True")  # Starlette's and others' attribute
        self._runner = runner_for(loop)
        _process.serve()
        return self._runner

    async def _pass(
        self, kind: str, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        """Serve what makes no unit of its own."""
        if kind == "lifespan":
            await Lifespan(self.app, receive, send).run(scope)
        elif KEY in scope:
            await self._join(scope[KEY], scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _join(
        self, outer: DeferScope, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        if self._around is not None:
            outer.surround(self._around)
        token = current.set(outer)
        try:
            await self.app(scope, receive, send)
        finally:
            reset(token)


class Exchange(DeferScope):
    """One HTTP request or WebSocket: the unit, and what its messages tell of it."""

    _status: int | None = None

    def __init__(
        self, runner: LoopRunner, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        # What DeferScope.__init__ does, without the call of it; LoopRunner.end() does
        # the rest for units with calls.
        self._calls = []
        self._born = _scope.forks
        self._around = _scope.surroundings
        self._exception = self._gates = None
        self._receiving = 0
        self._gone: str | None = None
        self._ended = self._over = self._trailers = False
        self.runner = self._loop_runner = runner
        self._asgi: ASGIScope = scope
        self._receive = receive
        self._send = send
        self._began = monotonic()

    # -- messages -----------------------------------------------------------

    async def receive(self) -> Message:
        """Pass a message on, and note when the client leaves (B5)."""
        self._receiving += 1
        try:
            message = await self._receive()
        finally:
            self._receiving -= 1
        kind = message["type"]
        if kind == "http.disconnect" and not self._over:
            self._gone = "client disconnected"
        elif kind == "websocket.disconnect":
            self._gone = f"client disconnected ({message.get('code', 1005)})"
            self._over = True
        return message

    def send(self, message: Message) -> Awaitable[None]:  # noqa: C901, PLR0911, PLR0912 - a flat list of the protocol's messages
        """Pass a message on, and note when the last byte has been handed over (B1).

        Not a coroutine function: most messages need nothing after them.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            if _instruments.instruments:
                self.head_sent = monotonic()
            if _settings.server_timing and in_force().server_timing:
                message = self._timed(message)
            if "trailers" in message:
                self._trailers = bool(message["trailers"])
            if _call.carrier is not None:
                self._secured = True  # first: what comes from here on is late
                if self._durables:
                    return self._send_head(message, _call.carrier)
        elif kind == "http.response.body":
            if message.get("more_body"):
                return self._send_part(message)
            if not self._trailers:
                if self._calls:
                    return self._send_last(message)
                self._over = True  # calls that still come wait for the app to return
        elif kind == "http.response.pathsend":
            if self._calls:
                return self._send_file(message["path"])
            self._over = True
        elif kind == "http.response.trailers" and not message.get("more_trailers"):
            if self._calls:
                return self._send_last(message)
            self._over = True
        elif kind.startswith("websocket."):
            return self._send_frame(kind, message)
        return self._send(message)

    async def _send_head(self, message: Message, carrier: Carrier) -> None:
        """Send the head when what must survive this process has been written (F2)."""
        try:
            secured = carrier.securing(self)
            if secured is not None:
                try:
                    await answer(secured.ticket)
                finally:
                    secured.settle()
        except BaseException:
            self._status = None  # this head never leaves
            raise
        await self._send(message)

    def _timed(self, message: Message) -> Message:
        timing = (b"server-timing", self.timing().encode())
        return {**message, "headers": [*message.get("headers", ()), timing]}

    async def _secure_late(self) -> None:
        """Let nothing be said to the client before what came late is written (F2)."""
        secured = None if _call.carrier is None else _call.carrier.securing(self)
        if secured is not None:
            await answer(secured.ticket)
            secured.settle()

    async def _send_last(self, message: Message) -> None:
        if self._durables:
            await self._secure_late()
        if (
            self._gone is None
            and not self._receiving
            and monotonic() - self._began > _WORTH_A_LOOK
        ):
            self._look_for_disconnect()
        try:
            await self._send(message)
        except OSError as exc:
            self._gone = f"sending failed: {exc!r}"
            raise
        self._over = True
        if "session" in self._asgi:
            self._seal_session(closed=False)
        self._loop_runner.end(self)

    async def _send_file(self, path: str) -> None:
        """Send a file in parts: granian does not say when it has sent one by its path.

        Only where calls wait for the end; other responses keep the server's own way.
        """
        loop = self._loop_runner.loop
        file = await loop.run_in_executor(None, open, path, "rb")
        try:
            while part := await loop.run_in_executor(None, file.read, _FILE_PART):
                message = {"type": "http.response.body", "body": part}
                await self._send_part({**message, "more_body": True})
        finally:
            file.close()
        await self._send_last({"type": "http.response.body", "body": b""})

    async def _send_part(self, message: Message) -> None:
        if self._durables:
            await self._secure_late()
        try:
            await self._send(message)
        except OSError as exc:  # ASGI: a server may raise it once the client has gone
            self._gone = f"sending failed: {exc!r}"
            raise

    async def _send_frame(self, kind: str, message: Message) -> None:
        if kind == "websocket.http.response.start":
            self._status = message["status"]
        self._secured = True  # a connection may last: each call is written as it comes
        await self._send_part(message)
        if kind == "websocket.close" or (
            kind == "websocket.http.response.body" and not message.get("more_body")
        ):
            self._over = True

    def _look_for_disconnect(self) -> None:
        """Ask `receive` whether the client has left, without waiting for an answer.

        Only until the response is over: after that every server says "disconnected".
        No server says it by `send`, and few apps ask. One step of the coroutine is
        enough: a disconnect that was noticed is answered without suspending.
        """
        for _ in range(2):
            step: Any = self._receive()
            if not hasattr(step, "send"):
                return
            try:
                step.send(None)
            except StopIteration as stop:
                if stop.value["type"] == "http.disconnect":
                    self._gone = "client disconnected"
                    return
                if stop.value.get("more_body"):
                    return  # an unread request body; nobody will read it any more
            except BaseException:  # noqa: BLE001 - a probe must not hurt the response
                return
            else:
                step.close()
                return

    def _seal_session(self, *, closed: bool) -> None:
        """Let no call change the session where SessionMiddleware keeps it (B7)."""
        session: Any = self._asgi["session"]
        if not isinstance(session, SealedSession):
            if not isinstance(session, dict):
                return
            session = SealedSession(session)  # pyright: ignore[reportUnknownArgumentType]  # keys are as its middleware made them
            self._asgi["session"] = session
        session.closed = closed
        for call in self._calls:
            if call is not None:
                call._context.run(inside.set, True)

    # -- the end ------------------------------------------------------------

    def fail(self, exc: BaseException) -> None:
        """Note what the app raised, unless it only says that the client left (B5).

        What is raised after the last byte changes no success: the response was whole,
        calls may have begun (Starlette's background tasks, exit code of dependencies).
        """
        status = self._status
        if self._over and status is not None and status < _SERVER_ERROR:
            return
        if isinstance(exc, asyncio.CancelledError):
            if self._gone is None:
                self._gone = "the request was cancelled"
        elif self._gone is None or not (
            # Starlette's names for what `receive` and `send` told it.
            type(exc).__name__ in {"ClientDisconnect", "WebSocketDisconnect"}
            or (isinstance(exc, OSError) and self._gone == f"sending failed: {exc!r}")
        ):
            self._exception = exc

    def leave(self) -> bool:
        """End the unit now that the app is done; True if the request's task must stay.

        It stays where nobody would wait for the calls otherwise: no lifespan, a
        client in this very process (G1), or more pending calls than the bound (D6).
        """
        asgi = self._asgi
        asgi.pop(KEY, None)  # they refer to each other; do not wait for the gc
        local = in_process(asgi)
        if not self._over and not local and (self.pending or self._exception):
            self._end_with_task()
            return False
        if self not in held and not self.end():
            return False
        if "session" in asgi:
            self._seal_session(closed=True)
        if not self._loop_runner.lifespans and not local:
            _say_once_that_there_is_no_lifespan()
            return True
        return self.stay or local

    async def linger(self) -> None:
        """Stay in the app call until the calls have run; a cancelled one may leave.

        Except in this very process: a test client that cancels its app's task (as
        Starlette's does at a WebSocket's end) expects the calls all the same (G1).
        """
        if in_process(self._asgi):
            await stay(self)
        else:
            await wait(self)

    def _end_with_task(self) -> None:
        """End the unit once an answer that is not ours has left.

        After an exception, or an incomplete response, an outer middleware or the server
        answers, through a `send` that is not seen here, but in the request's own task:
        so when that task is done.
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        loop = self._loop_runner.loop
        if task is None:
            loop.call_later(_UNKNOWN_TASK_PAUSE, self.end)
            return
        task.add_done_callback(lambda _task: self.end(_ERROR_PAUSE))
        # Whoever calls the app from a task that goes on has his answer by then.
        loop.call_later(_ANSWER_LIMIT, self.end)

    def _succeeded(self) -> bool:
        if self._exception is None and self._status is not None:
            return self._status < FIRST_FAILING_STATUS
        return self._judge().ok

    def _judge(self) -> Outcome:
        if self._asgi["type"] == "http" or self._status is not None:
            return Outcome.of_response(self._status, self._exception, self._gone)
        block = Outcome.of_block(self._exception)
        reason = block.reason or self._gone
        return block._replace(delivered=self._gone is None, reason=reason)

    def describe(self) -> dict[str, object]:
        """Say which request this was, for records."""
        scope = self._asgi
        ids = [v for k, v in scope.get("headers", ()) if k == b"x-request-id"]
        return {
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope.get("path"),
            "route": self.route or getattr(scope.get("route"), "path", None),
            "status": self._status,
            "request_id": ids[0].decode("latin-1") if ids else None,
        }


_said = False


def _say_once_that_there_is_no_lifespan() -> None:
    """Say once per process what is not as promised without a lifespan (B2)."""
    global _said
    if not _said:
        _said = True
        logger.warning(
            "this server runs no lifespan: deferred calls stay in the task of their "
            "request, which may count as a request that is not done. Turn the lifespan "
            "on (uvicorn: --lifespan on) to have them drained at shutdown instead."
        )


def in_process(scope: ASGIScope) -> bool:
    """Tell a test client in this process from a server, by what each puts in a scope.

    Starlette's TestClient offers `http.response.debug` (1.x; 0.2x on); httpx's
    ASGITransport calls itself port 123 (0.2x), which no HTTP client has.
    """
    client = scope.get("client")
    if client and client[1] in _TEST_PORTS and tuple(client) in _TEST_CLIENTS:
        return True
    return _DEBUG in (scope.get("extensions") or ())


def _is_starlettes_client(scope: ASGIScope) -> bool:
    return _DEBUG in (scope.get("extensions") or ())


_DEBUG = "http.response.debug"
_TEST_CLIENTS = {("127.0.0.1", 123), ("testclient", 50000)}
_TEST_PORTS = {port for _, port in _TEST_CLIENTS}
