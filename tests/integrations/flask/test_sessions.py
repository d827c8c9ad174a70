import pytest
from flask import session

from postlude import TooLateError, defer


def clear():
    """Empty the session; the proxy has no `clear` before there is a request."""
    session.clear()


CHANGES = {
    "set": lambda: session.__setitem__("late", True),
    "delete": lambda: session.__delitem__("user"),
    "pop": lambda: session.pop("user"),
    "clear": clear,
    "update": lambda: session.update(late=True),
    "setdefault": lambda: session.setdefault("late", True),
}


@pytest.fixture
def login(app, client):
    """Log in, and defer what may not be done to the session any more."""

    def login(deferred):
        @app.get("/")
        def endpoint():
            session["user"] = "ada"
            defer(deferred)
            return "hello"

        @app.get("/show")
        def show():
            return repr(dict(session))

        return client.get("/").text

    return login


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changing_the_session_in_a_call_is_an_error(change, login, client, reported):
    """A change of `session` after the answer is a `TooLateError` (B7)."""
    assert login(change) == "hello"
    (error,) = reported()
    assert isinstance(error, TooLateError)
    assert "the session" in str(error)
    assert client.get("/show").text == "{'user': 'ada'}"


def test_changing_the_session_in_an_async_call_is_an_error(login, reported):
    """An async call may not change the session either (B7)."""

    async def change():
        session["late"] = True

    login(change)
    assert [type(error) for error in reported()] == [TooLateError]


def test_reading_the_session_in_a_call_is_fine(login, events, reported):
    """A call may read what the request has put into the session (B7)."""
    login(lambda: events.append(session["user"]))
    assert events == ["ada"]
    assert reported() == []


def test_the_request_may_change_the_session(login, app, client, reported):
    """Before the answer, and in hooks, the session is open (B7)."""

    @app.after_request
    def count(response):
        session["seen"] = True
        return response

    login(lambda: None)
    assert client.get("/show").text == "{'seen': True, 'user': 'ada'}"
    assert reported() == []
