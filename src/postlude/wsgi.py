"""PostludeMiddleware for every WSGI application (PEP 3333)."""

from __future__ import annotations

import logging
import signal
import threading
from _socket import MSG_PEEK
from _socket import socket as _socket
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any

from postlude import _call, _process, _reporting, _settings
from postlude._background import background, run_here
from postlude._log import logger
from postlude._outcome import Outcome
from postlude._scope import KEY, DeferScope, current
from postlude._settings import in_force
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from postlude._types import Around, Carrier, Environ, StartResponse, WSGIApp

__all__ = ["PostludeMiddleware"]


_PAUSE = 0.003
"""Seconds between `close()` and the first call. Measured: waitress, cheroot, granian
and others write the terminator, or the head of a 204, only after `close()` returns; a
thread that computes from the start would delay that byte."""
_UNSURE_PAUSE = 0.01
"""The same under granian, whose Rust threads write after that."""
_ERROR_PAUSE = 0.05
"""The same after an exception: the server writes its 500 after it has logged it."""


class PostludeMiddleware:
    """Make every request a unit of work whose calls run after its response.

    Put it outermost. A second one inside joins the first (A8).
    """

    def __init__(self, app: WSGIApp, *, around: Around | None = None) -> None:
        """Wrap *app*; *around* surrounds each call, for frameworks' integrations.

        Raises:
            SettingsError: a setting is unknown or impossible.
        """
        self.app = app
        self._around = around
        _reporting.prepare()

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        if not _process.serving:
            _process.serve()
        if KEY in environ or "asgi.scope" in environ:
            outer = joined(environ)
            if outer is not None:
                return self._join(outer, environ, start_response)
        exchange = Exchange(environ, start_response)
        if self._around is not None:
            exchange.surround(self._around)
        environ[KEY] = exchange
        wrapper = environ.get("wsgi.file_wrapper")
        files = _Files(wrapper, exchange) if wrapper is not None else None
        if files is not None:
            environ["wsgi.file_wrapper"] = files
        token = current.set(exchange)
        try:
            body = self.app(environ, exchange.start_response)
        except BaseException as exc:
            exchange.fail(exc)
            raise
        finally:
            current.reset(token)
            if files is not None:  # servers look at it again to know their own type
                environ["wsgi.file_wrapper"] = wrapper
        if files is not None and body is files.made:
            files.ends_unit = True
            return body
        sized = hasattr(body, "__len__")
        seen = _SizedBody(body, exchange) if sized else _Body(body, exchange)
        if in_process(environ) and (sized or exchange.measured(environ)):
            # Werkzeug's client keeps a response open; its calls are expected now (G1).
            with closing(seen):
                return list(seen)
        return seen

    def _join(
        self, outer: DeferScope, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        if self._around is not None:
            outer.surround(self._around)
        token = current.set(outer)
        try:
            return self.app(environ, start_response)
        finally:
            current.reset(token)


def joined(environ: Environ) -> DeferScope | None:
    """Give the unit of this very request, if an outer adapter made one (A8).

    A WSGI application inside an ASGI one finds it in the ASGI scope that a2wsgi and
    asgiref hand through.
    """
    scope: DeferScope | None = environ.get(KEY)
    if scope is None and "asgi.scope" in environ:
        scope = environ["asgi.scope"].get(KEY)
    return scope


class Exchange(DeferScope):
    """One WSGI request: the unit, and what is seen of its response."""

    runner = background
    _status: int | None = None
    _cut = False
    _headers: Iterable[tuple[str, str]] = ()
    _unit: dict[str, object] = {}  # noqa: RUF012 - replaced, never changed

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        super().__init__()
        self._environ: Environ | None = environ
        self._start_response = start_response

    def start_response(
        self, status: str, headers: list[tuple[str, str]], *exc_info: Any
    ) -> Callable[[bytes], object]:
        """Pass the head on, and note its status."""
        self._status = int(status[:3])
        if _instruments.instruments:
            self.head_sent = monotonic()
        if _settings.server_timing and in_force().server_timing:
            headers = [*headers, ("Server-Timing", self.timing())]
        self._headers = headers
        if _call.carrier is not None and not self._secured:
            self._secured = True  # first: what comes from here on is late
            if self._durables:
                self._secure(_call.carrier)
        return self._start_response(status, headers, *exc_info)

    def _secure(self, carrier: Carrier) -> None:
        """Write what must survive this process before the head leaves (F2)."""
        try:
            carrier.secure(self)
        except BaseException:
            self._status = None  # this head never leaves
            raise

    def measured(self, environ: Environ) -> bool:
        """Whether the app said how long its body is, or that it has none."""
        if self._status in {204, 304} or environ.get("REQUEST_METHOD") == "HEAD":
            return True
        return any(name.lower() == "content-length" for name, _ in self._headers)

    def fail(self, exc: BaseException) -> None:
        """End a request whose app raised before it returned a body (C1)."""
        self._exception = exc
        self.finish(_ERROR_PAUSE)

    def finish(self, pause: float = _PAUSE) -> None:
        """End the unit: the response, as far as anybody tells, is with the server."""
        environ, self._environ = self._environ, None
        if environ is None:
            return
        if environ.get(KEY) is self:
            del environ[KEY]  # they refer to each other; nothing should wait for gc
        if not (self._calls or self._aside):
            self.close()
            return
        self._unit = _unit(environ, self._status)
        if not self._cut and _client_has_left(environ):
            self._cut = True
        if in_process(environ):
            if self.close():
                run_here(self)
            return
        _say_once_what_cannot_be_drained(environ)
        if environ.get("SERVER_SOFTWARE") == "Granian":
            pause = max(pause, _UNSURE_PAUSE)
        if self.end(pause) and self.stay:
            over = threading.Event()
            self.on_finish(over.set)
            over.wait()

    def describe(self) -> dict[str, object]:
        """Say which request this was, for records."""
        return {**self._unit, "route": self.route}

    def cut(self) -> None:
        """Note that the server stopped asking for the body (B5)."""
        self._cut = True

    def _judge(self) -> Outcome:
        gone = "client disconnected" if self._cut else None
        return Outcome.of_response(self._status, self._exception, gone)


class _Body:
    """The app's body, unchanged, with an end that is noticed.

    `close()` only hands over: work done in it would hold the response, the connection
    or the worker on nearly every server.
    """

    __slots__ = ("_body", "_done", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._done = False

    def __iter__(self) -> Iterator[bytes]:
        token = current.set(self._exchange)
        try:
            self._iterator = iter(self._body)
        finally:
            current.reset(token)
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self.__iter__()
        assert self._iterator is not None  # noqa: S101 - just made
        token = current.set(self._exchange)
        try:
            return next(self._iterator)
        except StopIteration:
            self._done = True
            raise
        except BaseException as exc:
            self._exchange._exception = exc
            self._done = True
            raise
        finally:
            current.reset(token)

    def close(self) -> None:
        """Close the app's body, then hand the unit over."""
        exchange = self._exchange
        close = getattr(self._body, "close", None)
        token = current.set(exchange)
        try:
            if close is not None:
                close()
        except BaseException as exc:
            exchange._exception = exc
            raise
        finally:
            current.reset(token)
            if self._iterator is not None and not self._done and not self._is_whole():
                exchange.cut()
            exchange.finish()

    def _is_whole(self) -> bool:
        """Tell if a server may stop before `StopIteration`: it knows the length."""
        return False

    def __del__(self) -> None:
        # asgiref's WsgiToAsgi and uvicorn's bridge never call close().
        self._exchange.finish()


class _SizedBody(_Body):
    """A body whose length the server may ask for, to make a Content-Length of it."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # made only for sized bodies

    def _is_whole(self) -> bool:
        return len(self) <= 1


class _Files:
    """The server's `wsgi.file_wrapper`, seen through: what it makes stays its own type.

    The server closes the file when the response is over, so the file's `close()` is
    where the unit ends; sendfile and its like keep working.
    """

    def __init__(self, wrapper: Any, exchange: Exchange) -> None:
        self._wrapper = wrapper
        self._exchange = exchange
        self.made: object = None
        self.ends_unit = False

    def __call__(self, file: Any, *args: Any) -> Any:
        seen = _File(file, self)
        made = self._wrapper(seen, *args)
        self.made = made
        return made

    def closed(self) -> None:
        """End the unit, if the file is the response and not only a part of it."""
        if self.ends_unit:
            self._exchange.finish()


class _File:
    """A file that tells when it is closed."""

    def __init__(self, file: Any, files: _Files) -> None:
        self._file = file
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def close(self) -> None:
        try:
            close = getattr(self._file, "close", None)
            if close is not None:
                close()
        finally:
            self._files.closed()

    def __del__(self) -> None:
        self._files.closed()


def in_process(environ: Environ) -> bool:
    """Tell a test client in this process from a server, by what each puts in environ.

    WebTest leaves a mark. Werkzeug's client, and with it Flask's, and httpx's transport
    have neither a name nor other processes; every server has one of them, uWSGI its own
    key (G1).
    """
    if "SERVER_SOFTWARE" in environ or "paste.testing" in environ:
        return "paste.testing" in environ
    return not ("uwsgi.version" in environ or environ.get("wsgi.multiprocess"))


def _client_has_left(environ: Environ) -> bool:
    """Look whether the client closed its side, where the server shows its socket."""
    disconnected = environ.get("waitress.client_disconnected")
    if disconnected is not None:
        return bool(disconnected())
    client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    # As the C type: gevent's methods wait until there is something to read, and those
    # of TLS take no flags.
    plain = getattr(client, "_sock", client)
    if not isinstance(plain, _socket):
        return False
    timeout = _socket.gettimeout(plain)
    try:
        if timeout != 0.0:
            _socket.settimeout(plain, 0.0)
        try:
            return _socket.recv(plain, 1, MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False  # nothing to read: it is there and waits
        finally:
            if timeout != 0.0:
                _socket.settimeout(plain, timeout)
    except OSError:
        return True


def _unit(environ: Environ, status: int | None) -> dict[str, object]:
    return {
        "method": environ.get("REQUEST_METHOD"),
        "path": environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        "status": status,
        "request_id": environ.get("HTTP_X_REQUEST_ID"),
    }


_said = False


def _say_once_what_cannot_be_drained(environ: Environ) -> None:
    """Say once per process that SIGTERM will lose calls, where that is so (B2, D7)."""
    global _said
    if _said:
        return
    _said = True
    try:
        deadly = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    except ValueError:
        return
    if deadly:
        server = str(environ.get("SERVER_SOFTWARE", "this server"))
        develops = server.startswith(("Werkzeug", "WSGIServer"))
        logger.log(
            logging.INFO if develops else logging.WARNING,
            "%s leaves SIGTERM to the system, which ends the process at once: calls "
            "pending then are lost. Stop it with SIGINT, which drains them.",
            server,
        )
