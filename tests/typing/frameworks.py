"""A1: middleware and integrations take the applications of their frameworks."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.integrations.django import PostludeMiddleware as DjangoMiddleware
from postlude.integrations.fastapi import install as install_on_fastapi
from postlude.integrations.flask import Postlude
from postlude.integrations.starlette import install as install_on_starlette
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware

# -- ASGI ---------------------------------------------------------------------


async def of_starlettes_types(scope: Scope, receive: Receive, send: Send) -> None: ...


async def of_plain_types(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None: ...


ASGIMiddleware(Starlette())
ASGIMiddleware(FastAPI())
ASGIMiddleware(get_asgi_application())
ASGIMiddleware(of_starlettes_types)
ASGIMiddleware(ASGIMiddleware(FastAPI()))
an_asgi_app: ASGIApp = ASGIMiddleware(Starlette())

# As middleware of Starlette and FastAPI, by their own means.
Starlette(middleware=[Middleware(ASGIMiddleware)])
FastAPI(middleware=[Middleware(ASGIMiddleware)])
Starlette().add_middleware(ASGIMiddleware)
FastAPI().add_middleware(ASGIMiddleware)
Starlette().mount("/inner", ASGIMiddleware(FastAPI()))

install_on_starlette(Starlette())
install_on_starlette(FastAPI())
install_on_fastapi(FastAPI())

# -- WSGI ---------------------------------------------------------------------


def of_pep_3333(
    environ: dict[str, Any], start_response: Callable[..., object]
) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


WSGIMiddleware(Flask(__name__))
WSGIMiddleware(Flask(__name__).wsgi_app)
WSGIMiddleware(get_wsgi_application())
WSGIMiddleware(of_pep_3333)
WSGIMiddleware(WSGIMiddleware(Flask(__name__)))

Postlude(Flask(__name__))
Postlude().init_app(Flask(__name__))

# -- Django -------------------------------------------------------------------


def sync_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.path)


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.path)


DjangoMiddleware(sync_view)
DjangoMiddleware(async_view)

# -- what is wrong ------------------------------------------------------------

ASGIMiddleware(Flask(__name__))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ASGIMiddleware(of_pep_3333)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ASGIMiddleware(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ASGIMiddleware()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
WSGIMiddleware(FastAPI())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WSGIMiddleware(of_starlettes_types)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WSGIMiddleware("app")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
install_on_fastapi(Starlette())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
install_on_starlette(Flask(__name__))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Postlude(FastAPI())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
