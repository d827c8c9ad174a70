import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from postlude import SettingsError, _settings, current_scope, defer
from postlude.integrations.starlette import PostludeMiddleware, install


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


def endpoints(events):
    """Return a sync and an async endpoint that defer a sync and an async call."""

    def deferring():
        defer(events.append, "mail")
        defer(note, events, "metrics")
        events.append("answer")
        return PlainTextResponse("ok")

    def in_thread(request):
        return deferring()

    async def on_loop(request):
        return deferring()

    return {"sync": in_thread, "async": on_loop}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_run_once_after_the_last_byte(kind, application, client, events):
    """However it is installed, calls run once, after the last byte (A8, B1)."""
    app = application(Route("/", endpoints(events)[kind]))
    assert client(app).get("/").text == "ok"
    assert events == ["answer", "last byte", "mail", "metrics"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_may_stand_in_the_list_of_middleware(kind, client, events):
    """The constructor's list of middleware installs it too (A8, B1)."""
    app = Starlette(
        routes=[Route("/", endpoints(events)[kind])],
        middleware=[Middleware(PostludeMiddleware)],
    )
    client(app).get("/")
    assert events == ["answer", "last byte", "mail", "metrics"]


def test_every_installation_makes_one_unit(application, client):
    """A second installation joins the first one's unit (A8)."""
    seen = []

    class Inner:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            seen.append(current_scope())
            await PostludeMiddleware(self.app)(scope, receive, send)

    async def endpoint(request):
        seen.append(current_scope())
        return PlainTextResponse("ok")

    app = application(Route("/", endpoint), middleware=[Middleware(Inner)])
    client(app).get("/")
    client(app).get("/")
    first, same, second, same_again = seen
    assert first is same
    assert second is same_again
    assert first is not second


def test_no_unit_is_left_behind(application, client):
    """After a request its unit collects no more for whoever comes next (A8)."""

    async def endpoint(request):
        return PlainTextResponse("ok")

    with client(application(Route("/", endpoint))) as running:
        running.get("/")
        assert running.portal.call(current_scope) is None
    assert current_scope() is None


def test_installing_after_the_start_is_refused():
    """`install` on an app that has started says so, with cause and fix (A8)."""
    app = Starlette()
    TestClient(app).get("/")
    with pytest.raises(RuntimeError) as refused:
        install(app)
    happened, cause, fix = str(refused.value).split(". ")
    assert "has already started" in happened
    assert cause.startswith("Usually ")
    assert fix.startswith("Call it right after")


@pytest.mark.usefixtures("fresh_settings")
@pytest.mark.parametrize("install_one", [install, PostludeMiddleware])
def test_a_bad_setting_is_an_error_at_the_installation(install_one, monkeypatch):
    """Servers take an error at their start for a missing lifespan: this is earlier."""
    monkeypatch.setenv("POSTLUDE_THREADS", "none")
    _settings.reset()  # another test's thread may have read them since the fixture did
    with pytest.raises(SettingsError, match="POSTLUDE_THREADS"):
        install_one(Starlette())
