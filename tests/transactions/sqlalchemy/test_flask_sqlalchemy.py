"""B3 and C2 with Flask-SQLAlchemy, whose teardown removes the session."""

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select

from postlude import UncommittedError, defer
from postlude.integrations.flask import Postlude


@pytest.fixture
def shop(database):
    """A shop, and the calls that it deferred."""
    db = SQLAlchemy()
    calls = {}

    class Order(db.Model):
        """An order."""

        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(40))

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = database.url
    db.init_app(app)
    Postlude(app)

    def stored():
        return list(db.session.scalars(select(Order.name)))

    @app.post("/orders/<name>/<end>")
    def create(name, end):
        db.session.add(Order(name=name))
        calls[name] = defer(lambda: calls.update(stored=stored()))
        if end == "error":
            db.session.commit()
            raise RuntimeError
        if end != "forgotten":
            getattr(db.session, end)()
        return {}

    @app.post("/later/<name>/<end>")
    def create_later(name, end):
        def write():
            db.session.add(Order(name=name))
            getattr(db.session, end)()

        calls[name] = defer(write)
        return {}

    @app.get("/orders")
    def read():
        stored()
        calls["read"] = defer(lambda: calls.update(stored=stored()))
        return {}

    with app.app_context():
        db.create_all()
    yield app.test_client(), calls
    with app.app_context():
        db.engine.dispose()


def test_commit(shop):
    """The call sees what was committed, in a session of its own (A2, B3)."""
    client, calls = shop
    client.post("/orders/a/commit")
    assert calls["a"].state == "done"
    assert calls["stored"] == ["a"]


@pytest.mark.parametrize("end", ["rollback", "flush", "forgotten"])
def test_no_commit(shop, end):
    """Rolled back, or removed at teardown under a 200 (A4, C2)."""
    client, calls = shop
    assert client.post(f"/orders/a/{end}").status_code == 200
    assert calls["a"].reason == "rollback"


@pytest.mark.parametrize("end", ["commit", "flush"])
def test_what_a_call_writes_itself(shop, end, logged):
    """Committed, or refused: the teardown after the call would throw it away (S9)."""
    client, calls = shop
    client.post(f"/later/a/{end}")
    client.get("/orders")
    assert calls["stored"] == (["a"] if end == "commit" else [])
    failed = isinstance(calls["a"].exception, UncommittedError)
    assert failed == (end == "flush")


def test_reading(shop):
    """No commit is needed to read."""
    client, calls = shop
    client.get("/orders")
    assert calls["read"].state == "done"


def test_an_error_after_the_commit(shop):
    """Committed, and yet not successful (C1)."""
    client, calls = shop
    client.post("/orders/a/error")
    assert calls["a"].reason == "outcome"


def test_the_database_is_named(shop, database):
    """By the bind that the session chose, without asking it (C2)."""
    client, calls = shop
    client.post("/orders/a/flush")
    assert calls["a"].rolled_back == database.shown
