"""An ASGI and a WSGI server in this process, as far as the core can see."""

import asyncio
import io
from collections.abc import Callable
from contextvars import Context
from typing import Any, Self

from postlude.asgi import PostludeMiddleware


class Answer:
    """What came of a request."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[Any] = []
        self.body = b""
        self.exception: BaseException | None = None


def _with_lifespan(app: Any, on_shutdown: Callable[[], object]) -> Any:
    async def whole(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        on_shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    return whole


class ASGIServer:
    """A server for *app*, wrapped: one lifespan, and one task per request."""

    def __init__(
        self,
        app: Any,
        on_shutdown: Callable[[], object] = lambda: None,
        wrapped: Callable[[Any], Any] = PostludeMiddleware,
    ) -> None:
        self.app = wrapped(_with_lifespan(app, on_shutdown))

    async def __aenter__(self) -> Self:
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._said: asyncio.Queue[str] = asyncio.Queue()

        async def receive() -> dict[str, Any]:
            return {"type": await self._asked.get()}

        async def send(message: dict[str, Any]) -> None:
            await self._said.put(message["type"])

        await self._asked.put("lifespan.startup")
        lifespan = self.app({"type": "lifespan", "state": {}}, receive, send)
        self._lifespan = asyncio.create_task(lifespan)
        assert await self._said.get() == "lifespan.startup.complete"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._asked.put("lifespan.shutdown")
        assert await self._said.get() == "lifespan.shutdown.complete"
        await self._lifespan

    def begin(self, **scope: Any) -> asyncio.Task[Answer]:
        """Begin a request in a task of its own."""
        return asyncio.create_task(self._serve(scope), context=Context())

    async def _serve(self, scope: dict[str, Any]) -> Answer:
        answer = Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.status = message.get("status", answer.status)
            answer.headers += message.get("headers", ())
            answer.body += message.get("body", b"")

        request = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "client": ("192.0.2.1", 50_001),
        }
        try:
            await self.app(request | scope, receive, send)
        except Exception as exc:  # noqa: BLE001 - as a server does
            answer.exception = exc
        return answer


def answering(body: Callable[[], object], status: int = 200) -> Any:
    """Make an ASGI application that calls *body* and answers with *status*."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


def replying(body: Callable[[], object], status: int = 200) -> Any:
    """Make a WSGI application that calls *body* and answers with *status*."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        body()
        start_response(f"{status} Whatever", [("Content-Length", "5")])
        return [b"hello"]

    return app


def visit(app: Any, **environ: Any) -> Answer:
    """Do one request with a WSGI application, as a threaded server would."""
    answer = Answer()

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answer.status = int(status[:3])
        answer.headers = headers

    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_SOFTWARE": "in-process",
        "wsgi.input": io.BytesIO(),
        "wsgi.multithread": True,
    }
    try:
        chunks = app(request | environ, start_response)
        try:
            answer.body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
    except Exception as exc:  # noqa: BLE001 - as a server does
        answer.exception = exc
    return answer
