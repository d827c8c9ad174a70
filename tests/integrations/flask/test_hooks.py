"""Point of the pattern: hooks that log activity and track metrics (A1)."""

import pytest
from flask import Blueprint, Response, abort, after_this_request

from postlude import defer


@pytest.fixture
def hooks(app, events):
    """Defer in every hook that Flask has around a request."""

    def hook(name):
        def deferring(*args):
            defer(events.append, name).always()
            return args[0] if args and isinstance(args[0], Response) else None

        return deferring

    blueprint = Blueprint("orders", __name__)
    app.before_request(hook("before"))
    app.after_request(hook("after"))
    app.teardown_request(hook("teardown"))
    blueprint.before_request(hook("before in blueprint"))
    blueprint.after_request(hook("after in blueprint"))
    blueprint.teardown_request(hook("teardown in blueprint"))
    return blueprint


IN_ORDER = [
    *("before", "before in blueprint", "handler"),
    *("after in blueprint", "after"),
    *("teardown in blueprint", "teardown"),
]


@pytest.fixture
def get(app, hooks):
    """Register the hooks' blueprint and get one of its pages."""

    def get(path):
        app.register_blueprint(hooks)
        return app.test_client().get(path)

    return get


def test_every_hook_may_defer(hooks, get, events):
    """Hooks before and after the handler, and of the teardown, defer in order (A1)."""

    @hooks.get("/")
    def endpoint():
        defer(events.append, "handler")
        return "ok"

    get("/")
    assert events == IN_ORDER


def test_hooks_see_refused_requests_too(hooks, get, events):
    """The activity log has requests that are refused and that no route answers (A1)."""

    @hooks.get("/refused")
    def endpoint():
        abort(403)

    assert get("/refused").status_code == 403
    assert events == [name for name in IN_ORDER if name != "handler"]


def test_unknown_paths_are_logged(app, get, events):
    """Hooks of the application run for a path without a route (A1)."""
    assert get("/unknown").status_code == 404
    assert events == ["before", "after", "teardown"]


def test_hooks_run_when_the_handler_raised(app, hooks, get, events):
    """What hooks defer on the way out of an exception runs after the 500 (A1, C1)."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @hooks.get("/")
    def endpoint():
        defer(events.append, "handler")
        raise LookupError("no such order")

    assert get("/").status_code == 500
    assert events == [name for name in IN_ORDER if name != "handler"]


def test_a_hook_of_one_request_may_defer(app, client, events):
    """`after_this_request` defers like every hook (A1)."""

    @app.get("/")
    def endpoint():
        @after_this_request
        def log(response):
            defer(events.append, response.status_code)
            return response

        return "ok"

    client.get("/")
    assert events == [200]


def test_wsgi_middleware_may_defer(app, client, events):
    """Middleware between Postlude and the application defers on both sides (A1)."""

    class Metrics:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, environ, start_response):
            defer(events.append, "before")
            body = self.inner(environ, start_response)
            defer(events.append, "after")
            return body

    app.wsgi_app.app = Metrics(app.wsgi_app.app)
    app.add_url_rule("/", "endpoint", lambda: "ok")
    client.get("/")
    assert events == ["before", "after"]
