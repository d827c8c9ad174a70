"""D4: what a call holds of Starlette's and FastAPI's, with the fix; and what it may."""

import sys
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request, UploadFile, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from postlude import RequestBoundWarning, _inspector, _settings, defer
from postlude.integrations.fastapi import PostludeMiddleware, install


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, fresh_settings):
    """Forget who was warned."""
    monkeypatch.setattr(_inspector, "_warned", set())


def take(it):
    """Take something."""


class Item(BaseModel):
    """What a client sends."""

    name: str


@dataclass
class Data:
    """A plain class."""

    name: str


@pytest.fixture
def app():
    """An application with Postlude installed."""
    app = FastAPI()
    install(app)
    return app


@pytest.fixture
def post(app):
    """Post to an endpoint; gives the warnings."""

    def post(endpoint, **options):
        app.post("/")(endpoint)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert TestClient(app).post("/", **options).status_code == 200
        return [str(w.message) for w in caught if w.category is RequestBoundWarning]

    return post


def test_a_request_with_a_body(post):
    """Its body ends with it if nobody has read it (D4)."""

    async def endpoint(request: Request):
        defer(take, request)

    (message,) = post(endpoint, content=b"text")
    assert message == (
        f"The deferred call {__name__}:take holds the request (its argument `it`). Its "
        "body and its files end with it: in the call they are empty, closed or gone. "
        "Pass what the call needs: `request.url.path`."
    )


def test_a_request_that_keeps_all_it_has(post):
    """Without a body, or with one that FastAPI has read, nothing of it ends (D4)."""

    async def without(request: Request):
        defer(take, request)

    assert post(without) == []


def test_a_request_whose_body_was_read(post):
    """FastAPI reads it for its parameters, and the request keeps it (D4)."""

    async def endpoint(request: Request, item: Item):
        defer(take, request)
        defer(take, item)
        defer(take, Data(item.name))

    assert post(endpoint, json={"name": "book"}) == []


def test_a_stream(post):
    """The stream of a body is one of those that end (D4)."""

    async def chunks():
        yield b""

    async def endpoint(request: Request):
        defer(take, chunks())
        stream = request.stream()
        defer(take, stream)
        assert [chunk async for chunk in stream] == [b"text", b""]

    (message,) = post(endpoint, content=b"text")
    assert "holds the stream of the request's body" in message


def upload():
    """Make an upload as FastAPI's form parser does, which is not installed here."""
    return UploadFile(BytesIO(b"a"), filename="a.txt")


def test_uploads(post):
    """One, or a list of them: the fix names it (D4)."""

    def endpoint():
        defer(take, upload())
        defer(take, [upload(), upload()])

    assert [message.partition("bytes: ")[2] for message in post(endpoint)] == [
        "`await it.read()`.",
        "`await it[0].read()`.",
    ]


def test_a_form(post):
    """Uploads are closed with their form, texts stay; so in its request (D4)."""

    async def endpoint(request: Request):
        texts, files = FormData({"name": "book"}), FormData({"file": upload()})
        request._form = texts
        defer(take, texts)
        defer(take, request)
        request._form = files
        defer(take, files)
        defer(take, request)

    held = [message.partition("holds ")[2][:11] for message in post(endpoint)]
    assert held == ["a form with", "the request"]


def test_a_websocket(app):
    """A WebSocket has closed when its calls run (B4, D4)."""

    @app.websocket("/")
    async def endpoint(socket: WebSocket):
        await socket.accept()
        with pytest.warns(RequestBoundWarning, match="holds the WebSocket"):
            defer(take, socket)
        await socket.close()

    with TestClient(app).websocket_connect("/") as socket:
        assert socket.receive()["type"] == "websocket.close"


def test_a_session_and_its_instance(app, post):
    """The bug of the story: the dependency's session closes after the answer (D4)."""

    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    Base.metadata.create_all(engine)

    def get_session():
        with Session(engine) as session:
            yield session

    def endpoint(session: Annotated[Session, Depends(get_session)]):
        order = Order()
        session.add(order)
        session.commit()
        defer(take, order)
        defer(take, order.id)
        defer(lambda: session.get(Order, 1))

    first, second = post(endpoint)
    assert first.endswith("Pass it.id and load it again in the call.")
    assert "a SQLAlchemy session (`session`, which its body uses)" in second
    engine.dispose()


def test_an_upload_that_was_closed_has_a_hint(app, caplog):
    """The log line of the failure names the upload and the fix (E1)."""

    async def store(file):
        await file.read()

    @app.post("/")
    async def endpoint():
        file = upload()
        with pytest.warns(RequestBoundWarning):
            defer(store, file)
        await file.close()

    TestClient(app).post("/")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "postlude"]
    assert line.endswith(
        " - hint: it holds an upload (its argument `file`). Read it before the answer "
        "and pass the bytes: `await file.read()`."
    )


WAYS = {
    "install": install,
    "add_middleware": lambda app: app.add_middleware(PostludeMiddleware),
    "wrapped": PostludeMiddleware,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", [FastAPI, Starlette])
@pytest.mark.parametrize("debug", [False, True])
def test_it_is_on_in_debug_mode(kind, way, debug, monkeypatch):
    """However Postlude is installed, `debug=True` is development (D4)."""
    monkeypatch.delitem(sys.modules, "postlude.pytest_plugin", raising=False)
    app = kind(debug=debug, middleware=[Middleware(GZipMiddleware)])
    app = way(app) or app
    TestClient(app).get("/")
    assert _settings.inspecting() is debug
