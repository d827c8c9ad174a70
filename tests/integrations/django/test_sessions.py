import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpResponse

from postlude import TooLateError, defer

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
CHANGES = {
    "set": lambda session: session.__setitem__("late", True),
    "delete": lambda session: session.__delitem__("user"),
    "pop": lambda session: session.pop("user"),
    "clear": lambda session: session.clear(),
    "update": lambda session: session.update({"late": True}),
    "setdefault": lambda session: session.setdefault("late", True),
    "expiry": lambda session: session.set_expiry(60),
}
keys = []


@pytest.fixture
def login(site, get):
    """Log in, and defer what may not be done to the session any more."""

    def login(deferred):
        def view(request):
            request.session["user"] = "ada"
            request.session.save()
            keys.append(request.session.session_key)
            defer(deferred, request)
            return HttpResponse("hello")

        site(view, SESSIONS)
        return get()

    return login


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changing_the_session_in_a_call_is_an_error(change, login, reported):
    """A change of `request.session` after the answer is a `TooLateError` (B7)."""
    assert login(lambda request: change(request.session)) == (200, b"hello")
    (error,) = reported()
    assert isinstance(error, TooLateError)
    assert "the session" in str(error)
    assert dict(SessionStore(keys[-1]).items()) == {"user": "ada"}


def test_changing_the_session_in_an_async_call_is_an_error(login, reported):
    """An async call may not change the session either (B7)."""

    async def change(request):
        request.session["late"] = True

    assert login(change) == (200, b"hello")
    assert [type(error) for error in reported()] == [TooLateError]


def test_reading_the_session_in_a_call_is_fine(login, get, events, reported):
    """A call may read what the request has put into the session (B7)."""
    login(lambda request: events.append(request.session["user"]))
    assert events == [*get.sent, "ada"]
    assert reported() == []


def test_a_failing_call_keeps_its_own_error(login, reported):
    """A call that changes the session and then fails is reported for that (E1)."""
    error = LookupError("no such order")

    def change_and_fail(request):
        request.session["late"] = True
        raise error

    login(change_and_fail)
    assert reported() == [error]
