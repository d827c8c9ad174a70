"""The shop under ASGI: `uvicorn shop.asgi:app`."""

import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from postlude import dashboard, defer
from postlude.integrations.starlette import install
from shop.work import index, rebuild, send_receipt


async def order(request):
    """Take an order."""
    number = request.path_params["number"]
    defer(index, number)
    defer(send_receipt, number)
    return PlainTextResponse(str(os.getpid()))


async def report(request):
    """Begin something that takes long."""
    defer(rebuild, request.path_params["number"])
    return PlainTextResponse(str(os.getpid()))


async def nothing_there(_request):
    """Give an error, so that nothing runs."""
    defer(index, 0)
    return PlainTextResponse("no", 404)


def is_staff(scope):
    """Look at a cookie, as a session would be looked at."""
    headers = dict(scope["headers"])
    return b"who=staff" in headers.get(b"cookie", b"")


app = Starlette(
    routes=[
        Route("/orders/{number}", order, methods=["POST"]),
        Route("/reports/{number}", report, methods=["POST"]),
        Route("/missing", nothing_there, methods=["POST"]),
        Mount("/staff/postlude", dashboard.asgi(authorize=is_staff)),
    ]
)
install(app)
