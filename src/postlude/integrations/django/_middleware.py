"""The one middleware class for WSGI and ASGI, and the unit that it makes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from asgiref.sync import (
    SyncToAsync,
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
)
from django.conf import settings as django_settings
from django.core import mail

from postlude import _call, _process, _reporting, _settings, wsgi
from postlude._arunner import LoopRunner, runner_for
from postlude._background import background, running_loop
from postlude._outcome import Outcome
from postlude._scope import KEY, DeferScope, current, reset
from postlude._waiting import answer
from postlude.integrations.django._surroundings import Connections, run_for_client
from postlude.transactions import django as transactions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from postlude._background import BackgroundRunner
    from postlude._types import Carrier


class PostludeMiddleware:
    """Make every request a unit of work whose calls run after its response.

    Put it first in `MIDDLEWARE`. Inside a `PostludeMiddleware` of `postlude.asgi` or
    `postlude.wsgi` it joins that one's unit (A8). Calls wait for Django's transactions,
    too: it installs `postlude.transactions.django` (B3).
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Wrap the next middleware, sync or async as it is.

        Raises:
            SettingsError: `POSTLUDE` or the environment has a bad setting.
        """
        self.get_response = get_response
        values = getattr(django_settings, "POSTLUDE", {})
        _settings.configure_framework(values, "the Django setting POSTLUDE")
        if django_settings.DEBUG or hasattr(mail, "outbox"):  # its test runner's mark
            _settings.in_development("Django's DEBUG")
        _reporting.prepare()
        transactions.install()
        self._async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]  # asgiref's: inspect's from 3.12 on
        if self._async:
            markcoroutinefunction(self)

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if self._async:
            return self._acall(request)
        unit = _joined(request) or Unit(request, _runner_of(request))
        token = current.set(unit)
        try:
            response: HttpResponseBase = self.get_response(request)
            _judged(unit, request, response)
            if _call.carrier is not None and isinstance(unit, Unit):
                _call.carrier.secure(unit)
        except BaseException as exc:
            _failed(unit, exc)
            raise
        finally:
            reset(token)
        return _answered(unit, response)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        loop = asyncio.get_running_loop()
        unit = _joined(request) or Unit(request, runner_for(loop))
        token = current.set(unit)
        try:
            response: HttpResponseBase = await self.get_response(request)
            _judged(unit, request, response)
            if _call.carrier is not None and isinstance(unit, Unit):
                await _secure(unit, _call.carrier)
        except BaseException as exc:
            _failed(unit, exc)
            raise
        finally:
            reset(token)
        return _answered(unit, response)

    def process_exception(self, _request: HttpRequest, exception: Exception) -> None:
        """Note what a view raised: Django turns it into a response (C1)."""
        unit = current.get()
        if unit is not None:
            unit._exception = exception


async def _secure(unit: Unit, carrier: Carrier) -> None:
    """Write what must survive this process before the response leaves (F2)."""
    secured = carrier.securing(unit)
    if secured is not None:
        await answer(secured.ticket)
        secured.settle()


def _runner_of(request: HttpRequest) -> LoopRunner | BackgroundRunner:
    """Give the runner for a request that Django serves in a thread.

    Under ASGI too, if the next middleware is sync. The loop is then known to the thread
    that `sync_to_async` took; asgiref tells it nobody else (3.7 to 3.13).
    """
    loop = None
    if hasattr(request, "scope"):
        loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    return background if loop is None or loop.is_closed() else runner_for(loop)


def _joined(request: HttpRequest) -> DeferScope | None:
    outer: DeferScope | None = getattr(request, "scope", {}).get(KEY)
    outer = outer or wsgi.joined(request.META)
    if outer is not None:
        outer.surround(Connections(request))
    return outer


def _failed(unit: DeferScope, exc: BaseException) -> None:
    unit._exception = exc
    if isinstance(unit, Unit):
        unit.finish()


def _judged(unit: DeferScope, request: HttpRequest, response: HttpResponseBase) -> None:
    unit.route = getattr(request.resolver_match, "route", None)
    if response.status_code < 500:  # noqa: PLR2004 - an exception handled by other middleware
        unit._exception = None
    if isinstance(unit, Unit):
        unit._status = response.status_code


def _answered(unit: DeferScope, response: HttpResponseBase) -> HttpResponseBase:
    if isinstance(unit, Unit):
        unit.attach(response)
    return response


class Unit(DeferScope):
    """One request that only Django's own middleware sees: it ends with `close()`.

    Every server closes the response after its last byte, under WSGI by itself and
    under ASGI through Django's handler.
    """

    _status: int | None = None
    _finished_once = False

    def __init__(self, request: HttpRequest, runner: LoopRunner | Any) -> None:
        super().__init__()
        self.runner = self._own_runner = runner
        self._request = request
        if not _process.serving:
            _process.serve()
        # Django's test clients set it on every request of theirs, servers on none.
        self._in_test = hasattr(request, "_dont_enforce_csrf_checks")
        self.surround(Connections(request, keep=self._in_test))
        if self._in_test:
            transactions.leave_out(self)

    def attach(self, response: HttpResponseBase) -> None:
        """Have the unit end when *response* is closed."""
        if _settings.in_force().server_timing:
            before = response.headers.get("Server-Timing")
            timing = self.timing() if before is None else f"{before}, {self.timing()}"
            response.headers["Server-Timing"] = timing
        # Nothing in a file can defer, and Django hands it to `wsgi.file_wrapper`.
        is_file = getattr(response, "file_to_stream", None) is not None
        if getattr(response, "streaming", False) and not is_file:
            _stream_within(self, response)
        response.close = _Close(self, response)  # type: ignore[method-assign]  # the one hook after the last byte that both protocols have

    def finish(self) -> None:
        """End the unit: the response, as far as anybody tells, is with the server."""
        if self._finished_once:
            return
        self._finished_once = True
        if not self.pending:
            self.close()
        elif self._in_test:
            self._run_in_test()
        elif isinstance(self._own_runner, LoopRunner):
            here = running_loop() is not None  # a response that was never closed
            if self.end() and not self._own_runner.lifespans and not here:
                self._stay()  # Django refuses the lifespan: nobody else would wait
        elif self.end(wsgi._PAUSE) and self.stay:
            self._stay()

    def _stay(self) -> None:
        """Hold the request's own thread until its calls have run."""
        over = threading.Event()
        self.on_finish(over.set)
        over.wait()

    def _run_in_test(self) -> None:
        if not self.close():
            return
        if running_loop() is None:
            background.take_over(self)
            async_to_sync(run_for_client)(self)
        else:  # a streaming response, which Django's client closes on the loop itself
            self._own_runner.resume(self)

    def _judge(self) -> Outcome:
        if isinstance(self._exception, asyncio.CancelledError):
            return Outcome.of_response(None, None, "the request was cancelled")
        return Outcome.of_response(self._status, self._exception)

    def describe(self) -> dict[str, object]:
        """Say which request this was, for records."""
        return {
            "method": self._request.method,
            "path": self._request.path,
            "route": self.route,
            "status": self._status,
            "request_id": self._request.headers.get("x-request-id"),
        }


class _Close:
    """A response's `close`, and after it the end of its unit."""

    def __init__(self, unit: Unit, response: HttpResponseBase) -> None:
        self._unit = unit
        self._close = response.close
        self._response = response

    def __call__(self) -> None:
        vars(self._response).pop("close", None)  # they refer to each other
        token = current.set(self._unit)  # receivers of `request_finished` may defer
        try:
            self._close()
        finally:
            reset(token)
            self._unit.finish()

    def __del__(self) -> None:
        self._unit.finish()  # the request was cancelled before anybody closed it


def _stream_within(unit: Unit, response: Any) -> None:
    """Let `defer` work in the body of a streaming response."""
    content = response.streaming_content

    def chunks() -> Iterator[bytes]:
        iterator = iter(content)
        while True:
            token = current.set(unit)
            try:
                chunk = next(iterator)
            except StopIteration:
                return
            except BaseException as exc:
                unit._exception = exc
                raise
            finally:
                reset(token)
            yield chunk

    async def achunks() -> AsyncIterator[bytes]:
        iterator = aiter(content)
        while True:
            token = current.set(unit)
            try:
                chunk = await anext(iterator)
            except StopAsyncIteration:
                return
            except BaseException as exc:
                unit._exception = exc
                raise
            finally:
                reset(token)
            yield chunk

    response.streaming_content = achunks() if response.is_async else chunks()
