"""B7: a deferred call that changes the response's session is told that it is late."""

import pytest
from stage import ASGIServer, answering

from postlude import TooLateError, defer, failure_store

CHANGES = {
    "set": lambda session: session.__setitem__("user", 2),
    "delete": lambda session: session.__delitem__("user"),
    "pop": lambda session: session.pop("user"),
    "popitem": lambda session: session.popitem(),
    "clear": lambda session: session.clear(),
    "update": lambda session: session.update(user=2),
    "setdefault": lambda session: session.setdefault("other", 2),
    "merge": lambda session: session.__ior__({"user": 2}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_session_is_sealed_when_the_response_has_left(form, change):
    """Changing the session in a call is an error that names the rule (B7)."""
    request = {"session": {"user": 1}}
    seen = []
    calls = []

    async def app(scope, receive, send):
        def late():
            seen.append(scope["session"]["user"])
            CHANGES[change](scope["session"])

        scope.update(request)
        scope["session"]["seen"] = True
        calls.append(defer(form(late)))
        await answering(lambda: None)(scope, receive, send)

    async with ASGIServer(app) as server:
        await server.begin()
    assert seen == [1]
    assert isinstance(calls[0].exception, TooLateError)
    text = str(calls[0].exception)
    assert text.startswith("A deferred call changed the session, but the response has")
    assert "Nothing would ever store or send the change." in text
    assert "Make the change in the request, before the answer" in text
    assert len(failure_store().list()) == 1
