"""D4: what a call holds of Litestar's, with the fix."""

import warnings
from typing import Annotated

import pytest

from postlude import RequestBoundWarning, asgi, defer

with warnings.catch_warnings():
    # Litestar imports Advanced Alchemy, which SQLAlchemy 2.1 warns of.
    warnings.simplefilter("ignore")
    from litestar import Litestar, Request, WebSocket, post, websocket
    from litestar.datastructures import UploadFile
    from litestar.enums import RequestEncodingType
    from litestar.params import Body
    from litestar.testing import TestClient


MULTI_PART = Body(media_type=RequestEncodingType.MULTI_PART)


def take(it):
    """Take something."""


@post("/request")
async def hold_request(request: Request) -> None:
    """Defer with the request."""
    with pytest.warns(RequestBoundWarning, match="holds the request"):
        defer(take, request)


@post("/upload")
async def hold_upload(data: Annotated[UploadFile, MULTI_PART]) -> None:
    """Defer with an upload."""
    with pytest.warns(RequestBoundWarning, match=r"`await it\.read\(\)`"):
        defer(take, data)


@websocket("/socket")
async def hold_socket(socket: WebSocket) -> None:
    """Defer with the WebSocket."""
    await socket.accept()
    with pytest.warns(RequestBoundWarning, match="holds the WebSocket"):
        defer(take, socket)
    await socket.send_text("warned")
    await socket.close()


def test_requests_and_uploads():
    """They end as Starlette's do (D4)."""
    routes = [hold_request, hold_upload, hold_socket]
    app = asgi.PostludeMiddleware(Litestar(routes))
    with TestClient(app) as client:
        assert client.post("/request", content=b"text").status_code == 201
        with client.websocket_connect("/socket") as socket:
            assert socket.receive_text() == "warned"
        assert client.post("/upload", files={"data": b"a"}).status_code == 201
