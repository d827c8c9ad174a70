"""A Starlette application, installed in each way there is, and the same on FastAPI."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from planned_calls import plan
from postlude.asgi import PostludeMiddleware
from postlude.integrations import fastapi, starlette
from reporting import INSTANCE, await_gate


def _plan(request: Request) -> None:
    token = request.query_params.get("token", "")
    plan(token, request.query_params.getlist("defer"))


async def ready(request: Request) -> Response:
    """Say which process this is."""
    return PlainTextResponse("ready", headers={"x-instance": INSTANCE})


async def raises(request: Request) -> Response:
    """Fail before the response; ServerErrorMiddleware answers."""
    _plan(request)
    raise RuntimeError("the probe fails on purpose")


def raises_in_thread(request: Request) -> Response:
    """Fail as `raises` does, in the framework's own thread."""
    _plan(request)
    raise RuntimeError("the probe fails on purpose")


async def refuses(request: Request) -> Response:
    """Raise what the framework turns into a 409."""
    _plan(request)
    raise HTTPException(409)


async def breaks(request: Request) -> Response:
    """Fail within the body, once the client has its begin."""
    _plan(request)

    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        await await_gate(request.query_params["token"], "midway")
        raise RuntimeError("the probe fails on purpose")

    return StreamingResponse(body())


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer as ServerErrorMiddleware lets an app do; wait for the test if asked to."""
    if "slowly" in request.query_params:
        await await_gate(request.query_params["token"], "error-page")
    return PlainTextResponse("error", 500)


def _routed(app: Any) -> Any:
    app.add_exception_handler(Exception, answer_error)
    for endpoint in (ready, raises, raises_in_thread, refuses, breaks):
        app.add_route(f"/{endpoint.__name__.replace('_', '-')}", endpoint)
    return app


added = _routed(Starlette())
added.add_middleware(PostludeMiddleware)
installed = _routed(Starlette())
starlette.install(installed)
fastapi_installed = _routed(FastAPI())
fastapi.install(fastapi_installed)
