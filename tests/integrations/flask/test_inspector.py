"""D4: what a call holds of Flask's and Werkzeug's, with the fix; and what it may."""

import sys
import warnings
from io import BytesIO

import pytest
from flask import current_app, g, request, session

from postlude import RequestBoundWarning, _inspector, _settings, defer


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, fresh_settings):
    """Forget who was warned."""
    monkeypatch.setattr(_inspector, "_warned", set())


def take(it):
    """Take something."""


@pytest.fixture
def post(app, client):
    """Send a request; *held* gives what its view defers with. Gives the warnings."""

    def post(held, **options):
        _inspector._warned.clear()
        app.view_functions["view"] = lambda: (defer(take, held()), "ok")[1]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client.post("/", **options)
        return [str(w.message) for w in caught if w.category is RequestBoundWarning]

    app.add_url_rule("/", "view", take, methods=["POST"])
    return post


REQUESTS = {"proxy": lambda: request, "object": request._get_current_object}
each_request = pytest.mark.parametrize("held", REQUESTS.values(), ids=REQUESTS)


@each_request
def test_a_request_with_a_body(held, post):
    """Its body and its files end with it, by the proxy as well (D4)."""
    (message,) = post(held, data=b"text")
    assert message == (
        f"The deferred call {__name__}:take holds the request (its argument `it`). Its "
        "body and its files end with it: in the call they are empty, closed or gone. "
        "Pass what the call needs: `request.path`."
    )


@each_request
def test_a_request_with_files(held, post):
    """Files that were read are closed with the request (D4)."""

    def parsed():
        assert request.files
        return held()

    assert len(post(parsed, data={"file": (BytesIO(b"a"), "a.txt")})) == 1


@each_request
def test_a_request_that_keeps_all_it_has(held, post):
    """Without a body, or with one that was read, nothing of it ends (D4)."""

    def as_json():
        assert request.get_json()
        return held()

    def as_form():
        assert request.form
        return held()

    assert post(held) == []
    assert post(as_json, json={"a": 1}) == []
    assert post(as_form, data={"a": 1}) == []


def test_the_stream_of_a_body(post):
    """The fix is to read it (D4)."""
    (message,) = post(lambda: request.stream, data=b"text")
    assert "holds the stream of the request's body" in message
    assert message.endswith("Read it before the answer and pass the bytes.")


def test_an_upload(post):
    """The fix names it (D4)."""
    data = {"file": (BytesIO(b"a"), "a.txt")}
    (message,) = post(lambda: request.files["file"], data=data)
    assert "holds an upload (its argument `it`)" in message
    assert message.endswith(
        "Read it before the answer and pass the bytes: `it.read()`."
    )


def test_g(post):
    """Each call has a `g` of its own (D4)."""
    (message,) = post(lambda: g)
    assert "holds Flask's `g` (its argument `it`)" in message
    assert message.endswith("Pass the values: `g.user_id`.")


def test_what_is_there_in_a_call_too(post):
    """The application, its proxy, and the session to read may be passed (D4)."""
    assert post(lambda: current_app) == []
    assert post(current_app._get_current_object) == []
    assert post(lambda: session) == []
    assert post(lambda: request.path) == []


def test_what_a_call_can_still_do_with_the_request(app, client, events):
    """Path and headers stay, what `g` had does not: so the warnings say (D4)."""

    def look(it):
        events.extend([it.path, it.get_data(), "user" in g])

    @app.post("/path")
    def view():
        g.user = "ada"
        with pytest.warns(RequestBoundWarning):
            defer(look, request)
        return request.form["a"]

    client.post("/path", data={"a": "1"})
    assert events == ["/path", b"", False]


@pytest.mark.parametrize("debug", [False, True])
def test_it_is_on_in_debug_mode(debug, make_app, monkeypatch):
    """`app.run(debug=True)` sets the mode after the installation: it counts (D4)."""
    monkeypatch.delitem(sys.modules, "postlude.pytest_plugin", raising=False)
    app = make_app()
    app.debug = debug
    for _ in range(2):
        app.test_client().get("/")
        assert _settings.inspecting() is debug
