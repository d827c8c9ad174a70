import pytest
from flask import Blueprint, Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from postlude import SettingsError, current_scope, defer
from postlude.integrations.flask import Postlude
from postlude.wsgi import PostludeMiddleware


def wrapped_inside(app):
    """Install the WSGI middleware beneath the extension."""
    app.wsgi_app = PostludeMiddleware(app.wsgi_app)
    Postlude(app)


def wrapped_outside(app):
    """Install the WSGI middleware around the extension."""
    Postlude(app)
    app.wsgi_app = PostludeMiddleware(app.wsgi_app)


def twice(app):
    """Install two extensions, one of them a second time."""
    extension = Postlude(app)
    extension.init_app(app)
    Postlude().init_app(app)


WAYS = {
    "constructor": Postlude,
    "init_app": lambda app: Postlude().init_app(app),
    "twice": twice,
    "wsgi-inside": wrapped_inside,
    "wsgi-outside": wrapped_outside,
}


def add_orders(scaffold, events):
    """Add an endpoint that defers a sync and an async call."""

    async def metrics(item):
        events.append(f"metrics {item}")

    @scaffold.post("/<item>")
    def order(item):
        defer(events.append, f"mail {item}")
        defer(metrics, item)
        events.append("answer")
        return {"item": item}


@pytest.mark.parametrize("install", WAYS.values(), ids=WAYS)
def test_calls_run_once_after_the_response(install, events):
    """However it is installed, calls run once, after the response (A8, B1)."""
    app = Flask(__name__)
    install(app)
    add_orders(app, events)
    app.teardown_request(lambda exc: events.append("over"))
    assert app.test_client().post("/book").json == {"item": "book"}
    assert events == ["answer", "over", "mail book", "metrics book"]


def test_one_extension_serves_several_applications(events):
    """An application factory shares one `Postlude()` among its applications (A8)."""
    extension = Postlude()

    def create_app():
        app = Flask(__name__)
        extension.init_app(app)
        add_orders(app, events)
        return app

    for number in range(2):
        create_app().test_client().post(f"/{number}")
    calls = [[f"mail {number}", f"metrics {number}"] for number in range(2)]
    assert events == ["answer", *calls[0], "answer", *calls[1]]


def test_the_extension_is_registered(app):
    """The extension stands where others look for it, and once (A8)."""
    assert isinstance(app.extensions["postlude"], Postlude)


def test_routes_may_be_added_later(app, events):
    """Blueprints and routes that come after the installation defer as well (A1)."""
    blueprint = Blueprint("orders", __name__)
    add_orders(blueprint, events)
    app.register_blueprint(blueprint, url_prefix="/orders")
    app.test_client().post("/orders/book")
    assert events == ["answer", "mail book", "metrics book"]


def test_applications_side_by_side(make_app, events):
    """Two applications under a dispatcher each have units of their own (A8)."""
    shop, admin = make_app("shop"), make_app("admin")
    add_orders(shop, events)
    add_orders(admin, events)
    client = Client(DispatcherMiddleware(shop, {"/admin": admin}))
    client.post("/book")
    client.post("/admin/user")
    assert events == [
        *("answer", "mail book", "metrics book"),
        *("answer", "mail user", "metrics user"),
    ]


def test_applications_within_one_unit(make_app, events):
    """Applications under one outer middleware join its unit (A8)."""
    units = []

    def outer(environ, start_response):
        units.append(current_scope())
        defer(events.append, "outer")
        return dispatcher(environ, start_response)

    shop = make_app()
    add_orders(shop, events)
    shop.before_request(lambda: units.append(current_scope()))
    dispatcher = DispatcherMiddleware(shop, {})
    Client(PostludeMiddleware(outer)).post("/book")
    assert units[0] is units[1]
    assert events == ["answer", "outer", "mail book", "metrics book"]


def test_no_unit_is_left_behind(app, client):
    """After a request its unit collects no more for whoever comes next (A8)."""
    units = []

    @app.get("/")
    def endpoint():
        units.append(current_scope())
        return "ok"

    client.get("/")
    client.get("/")
    assert current_scope() is None
    assert units[0] is not units[1]


@pytest.mark.usefixtures("fresh_settings")
def test_a_bad_setting_is_an_error_at_the_installation(monkeypatch):
    """An impossible setting is an error when the application is made."""
    monkeypatch.setenv("POSTLUDE_OVERFLOW", "explode")
    with pytest.raises(SettingsError, match="POSTLUDE_OVERFLOW"):
        Postlude(Flask(__name__))
