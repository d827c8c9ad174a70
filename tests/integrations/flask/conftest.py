import pytest
from flask import Flask

from postlude.integrations.flask import Postlude


@pytest.fixture
def make_app():
    """Make an application with Postlude installed."""

    def make_app(name="shop", **config):
        app = Flask(name)
        app.config.update(SECRET_KEY="-" * 50, **config)
        Postlude(app)
        return app

    return make_app


@pytest.fixture
def app(make_app):
    """An application with Postlude installed."""
    return make_app()


@pytest.fixture
def client(app):
    """The test client of that application."""
    return app.test_client()


@pytest.fixture
def as_server():
    """What has the test client make a request as a server does."""
    return {"environ_overrides": {"SERVER_SOFTWARE": "a server/1.0"}}
