"""The raw ASGI application under test, wrapped in Postlude's middleware."""

import asyncio
from typing import Any
from urllib.parse import parse_qs

from answers import Answer, DeferNow, Fail, Spawn, Step, Wait, answer_to
from planned_calls import plan
from postlude import DeferScope
from postlude.asgi import PostludeMiddleware
from reporting import await_gate, report

_tasks: set[asyncio.Task[None]] = set()
PATHSEND = "http.response.pathsend"


async def probe(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the path says and defer as the query says."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    query = parse_qs(scope["query_string"].decode())
    token = query.get("token", [""])[0]
    if scope["type"] == "websocket":
        await _talk(token, receive, send)
        return
    answer = answer_to(scope["path"], query)
    plan(token, query.get("defer", ()))
    for step in answer.before:
        await _perform(step, token, query)
    await send(_start(answer))
    if answer.as_file:
        await _send_file(answer, scope, send)
    elif scope["method"] == "HEAD":
        await send({"type": "http.response.body"})
    else:
        await _send_body(answer, token, query, send)


def _start(answer: Answer) -> dict[str, object]:
    headers = [(name.encode(), value.encode()) for name, value in answer.head()]
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": headers,
    }


async def _send_body(answer: Answer, token: str, query: Any, send: Any) -> None:
    """Send the steps; with a length the last chunk ends the body, else an empty one."""
    last = len(answer.body) - 1 if answer.with_length else None
    for number, step in enumerate(answer.body):
        if not isinstance(step, bytes):
            await _perform(step, token, query)
            continue
        more = number != last
        await send({"type": "http.response.body", "body": step, "more_body": more})
    if last is None or last < 0:
        await send({"type": "http.response.body"})


async def _send_file(answer: Answer, scope: Any, send: Any) -> None:
    if PATHSEND in scope.get("extensions", {}):
        await send({"type": PATHSEND, "path": str(answer.file())})
    else:
        body = answer.file().read_bytes()
        await send({"type": "http.response.body", "body": body})


async def _perform(step: Step, token: str, query: dict[str, list[str]]) -> None:
    if isinstance(step, Wait):
        await await_gate(token, step.gate)
    elif isinstance(step, Fail):
        raise RuntimeError("the probe fails on purpose")
    elif isinstance(step, DeferNow):
        plan(token, query.get("midway", ()))
    elif isinstance(step, Spawn):
        task = asyncio.create_task(_outlive(token, query["late"]))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def _outlive(token: str, specs: list[str]) -> None:
    await await_gate(token, "task")
    plan(token, specs)


async def _talk(token: str, receive: Any, send: Any) -> None:
    """Defer what each text message names, `scoped` ones inside a unit of their own."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        how, _, spec = message["text"].partition(" ")
        if how == "scoped":
            async with DeferScope():
                plan(token, [spec])
        else:
            plan(token, [spec])
        await send({"type": "websocket.send", "text": f"{how} done"})
    report(token, "websocket-closed")


async def _live(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    report("", "app-shutdown")
    await send({"type": "lifespan.shutdown.complete"})


def watch_lifespan(inner: Any) -> Any:
    """Report `shutdown-begun` when the server's shutdown reaches the process."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def receive_watched() -> Any:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                report("", "shutdown-begun")
            return message

        lifespan = scope["type"] == "lifespan"
        await inner(scope, receive_watched if lifespan else receive, send)

    return watched


app = watch_lifespan(PostludeMiddleware(probe))
