"""The dashboard for ASGI: whatever blocks runs in threads of its own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from postlude.dashboard import _authorize, _http
from postlude.dashboard._http import Request, Response
from postlude.dashboard._retries import PATIENCE
from postlude.dashboard._views import Dashboard, Retry

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from postlude._types import ASGIApp, ASGIScope, Receive, Send
    from postlude.dashboard._retries import Runs, Verdict
    from postlude.failures import FailureStore

_T = TypeVar("_T")

_THREADS = 4
"""Looks at the store at the same time; most are answered by one that was just taken."""


def asgi(
    store: FailureStore | str | None = None,
    *,
    authorize: Callable[[ASGIScope], bool | Awaitable[bool]] = _authorize.MISSING,
) -> ASGIApp:
    """Give the dashboard as an ASGI application, to mount under any path.

    Args:
        store: what to show; default: the store of this process.
        authorize: is asked at every request, with the connection's scope, and lets in
            by giving True. Async, it runs on the loop; else in a thread of the
            dashboard's. What it raises is logged and means no.

    Raises:
        TypeError: *authorize* is missing or no function.
        SettingsError: the store, or the settings of this process, are impossible.
    """
    checked = _authorize.checked(authorize, "asgi", "scope")
    return _ASGIDashboard(Dashboard(store), checked)


class _ASGIDashboard:
    def __init__(self, pages: Dashboard, authorize: Callable[[ASGIScope], Any]) -> None:
        self._pages = pages
        self._authorize = authorize
        self._threads = _Threads()
        self._retries: set[object] = set()

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            response = await self._answer(scope, receive)
            body = b"" if scope["method"] == "HEAD" else response.body
            headers = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in response.all_headers()
            ]
            start = {"type": "http.response.start", "status": response.status}
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: ASGIScope, receive: Receive) -> Response:
        if not await self._may(scope):
            return _http.REFUSED
        headers = _headers(scope)
        form: dict[str, list[str]] = {}
        if scope["method"] == "POST":
            body = None if _http.too_long(headers) else await _body(receive)
            if body is None:
                return _http.TOO_LONG
            form = _http.parse_form(body)
        request = _request(scope, headers, form)
        answer = await self._threads.run(partial(self._pages.answer, request))
        if not isinstance(answer, Retry):
            return answer
        verdicts = await self._rerun(answer.runs)
        return await self._threads.run(partial(answer.finish, verdicts))

    async def _may(self, scope: ASGIScope) -> bool:
        try:
            asked = self._authorize
            if _authorize.is_async(asked):
                return _authorize.is_yes(await asked(scope))
            answer = await self._threads.run(partial(asked, scope))
            if inspect.isawaitable(answer):  # as of `lambda scope: is_admin(scope)`
                answer = await answer
            return _authorize.is_yes(answer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it means no
            _authorize.raised(exc)
            return False

    async def _rerun(self, runs: Runs) -> list[Verdict] | None:
        """Run calls again; None if that takes longer than a page should."""
        if not _has_loop():
            return await self._threads.run(runs.run)
        import asyncio  # noqa: PLC0415 - its loop is running

        # Not cancelled with the request: whoever closes the page stops no call.
        task = asyncio.create_task(runs.arun())
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        return task.result() if done else None


class _Threads:
    """The dashboard's own: the application's pool is for the application (D3)."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._limit: Any = None
        self._pid = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do *work* in one of them, in the context of whoever waits."""
        if not _has_loop():
            import trio  # noqa: PLC0415 - only there

            if self._limit is None:
                self._limit = trio.CapacityLimiter(_THREADS)
            return await trio.to_thread.run_sync(work, limiter=self._limit)
        import asyncio  # noqa: PLC0415 - its loop is running

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._started(), copy_context().run, work)

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pid != os.getpid():  # a fork has no threads
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as asyncio

            self._pool = ThreadPoolExecutor(_THREADS, "postlude-dashboard")
            self._pid = os.getpid()
        return self._pool


def _has_loop() -> bool:
    import asyncio  # noqa: PLC0415 - under trio it is of no use

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _headers(scope: ASGIScope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:  # HTTP/2 sends cookies one by one (RFC 9113, 8.2.3)
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    return headers


def _request(
    scope: ASGIScope, headers: dict[str, str], form: dict[str, list[str]]
) -> Request:
    path, mount = scope["path"], scope.get("root_path", "").rstrip("/")
    # By the specification the path has the mount in it. Some servers leave it out, or
    # at least what was their own part before Starlette mounted this.
    for part in (mount, mount.removeprefix(scope.get("app_root_path", ""))):
        if part and (path == part or path.startswith(f"{part}/")):
            path = path[len(part) :]
            break
    return Request(
        method=scope["method"],
        path=path if path or mount else "/",
        mount=mount,
        query=_http.parse_query(scope.get("query_string", b"").decode("latin-1")),
        headers=headers,
        form=form,
        secure=scope.get("scheme") == "https",
    )


async def _body(receive: Receive) -> bytes | None:
    """Read the form; None if it is longer than it may be, or was not sent whole."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += cast("bytes", message.get("body", b""))
        if len(body) > _http.LONGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


async def _live(receive: Receive, send: Send) -> None:
    """Have no part in a server's start and end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
