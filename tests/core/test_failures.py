"""E1 and E3: a failed call is logged once, recorded, and hurts nobody."""

import logging
import time
from collections import OrderedDict, UserDict, defaultdict
from functools import partial

import pytest
from stage import ASGIServer, Boom, answering, replying, visit

from postlude import DeferScope, _reporting, defer, drain, failure_store
from postlude.failures import FailureRecord
from postlude.wsgi import PostludeMiddleware


def fail(*args, **kwargs):
    """Raise what these tests look for."""
    raise Boom("what happened")


def record_of(fn, *args, **kwargs):
    """Let a call fail in a block, and give its record."""
    with DeferScope():
        defer(fn, *args, **kwargs)
    (record,) = failure_store().list()
    return record


def test_a_failure_is_logged_once_with_traceback_and_place(unit, form, logged):
    """One ERROR says what failed, with its traceback and who deferred it (E1)."""
    calls = []
    unit(lambda: calls.append(defer(form(fail)).named("mail")))
    (record,) = logged.records
    assert record.levelno == logging.ERROR
    assert record.name == "postlude"
    assert record.getMessage() == (
        f"deferred call mail failed: Boom: what happened (deferred at {calls[0].site})"
    )
    assert record.exc_info[1] is calls[0].exception
    assert record.postlude_call is calls[0]
    assert f"{__file__}:" in calls[0].site


def test_a_good_call_says_nothing(unit, form, logged):
    """What runs well is neither logged nor recorded (E1)."""
    unit(lambda: defer(form(list)))
    assert logged.records == []
    assert failure_store().list() == []


def test_the_record_has_all_that_is_known(form):
    """A record has id, name, function, place, exception, traceback, times (E1)."""
    before = time.time()
    with DeferScope():
        call = defer(form(fail), 1, key="value").named("mail")
    (record,) = failure_store().list()
    assert isinstance(record, FailureRecord)
    assert (record.id, record.name, record.site) == (call.id, "mail", call.site)
    assert record.function.startswith("stage.units:")
    assert record.state == "failed"
    assert record.unit == {}
    assert record.exception == "Boom('what happened')"
    assert record.traceback.startswith("Traceback (most recent call last):")
    assert "in fail" in record.traceback
    assert record.traceback.endswith("Boom: what happened\n")
    assert before - 1 <= record.started <= record.ended <= time.time() + 1
    assert record.attempt == 1


def test_the_function_is_named_by_module_and_qualname():
    """The record names what runs in the end: under partials, of objects (E1)."""

    class Mailer:
        def __call__(self):
            raise Boom

        def send(self):
            raise Boom

    with DeferScope():
        defer(fail)
        defer(partial(partial(fail, 1), 2))
        defer(Mailer())
        defer(Mailer().send)
        defer(int, "x")
    here = f"{__name__}:"
    local = f"{here}test_the_function_is_named_by_module_and_qualname.<locals>."
    assert [record.function for record in failure_store().list()] == [
        f"{here}fail",
        f"{here}fail",
        f"{local}Mailer",
        f"{local}Mailer.send",
        "builtins:int",
    ]


async def test_the_unit_of_an_asgi_request_is_in_the_record():
    """A record says which request it was: method, route, path, status, id (E1)."""

    class Route:
        path = "/orders/{id}"

    async def app(scope, receive, send):
        scope["route"] = Route()
        await answering(lambda: defer(fail), 201)(scope, receive, send)

    async with ASGIServer(app) as server:
        headers = [(b"accept", b"*/*"), (b"x-request-id", b"r-7")]
        await server.begin(method="POST", path="/orders/7", headers=headers)
    (record,) = failure_store().list()
    assert record.unit == {
        "method": "POST",
        "route": "/orders/{id}",
        "path": "/orders/7",
        "status": 201,
        "request_id": "r-7",
    }


def test_the_unit_of_a_wsgi_request_is_in_the_record():
    """A record says which WSGI request it was (E1)."""
    visit(
        PostludeMiddleware(replying(lambda: defer(fail), 201)),
        REQUEST_METHOD="POST",
        SCRIPT_NAME="/shop",
        PATH_INFO="/orders/7",
        HTTP_X_REQUEST_ID="r-7",
    )
    drain(20)
    (record,) = failure_store().list()
    assert record.unit == {
        "method": "POST",
        "route": None,
        "path": "/shop/orders/7",
        "status": 201,
        "request_id": "r-7",
    }


def takes(user, *items, password=None, **options):
    """Fail, with parameters of every kind."""
    raise Boom


def test_arguments_are_recorded_by_parameter():
    """Arguments stand in the record under their parameters' names (E1)."""
    record = record_of(takes, "ann", 1, 2, colour="red")
    assert record.arguments == {
        "user": "'ann'",
        "*1": "1",
        "*2": "2",
        "colour": "'red'",
    }


def login(user, password):
    """Fail, with a secret by position."""
    raise Boom


class Account:
    """Has methods with secrets, one of them with an unusual `self`."""

    def login(self, user, password):
        """Fail."""
        raise Boom

    def strange(this, user, password):  # noqa: N805 - this is what is tested
        """Fail."""
        raise Boom

    @classmethod
    def on_class(cls, user, password):
        """Fail."""
        raise Boom

    @staticmethod
    def on_nothing(user, password):
        """Fail."""
        raise Boom

    def __call__(self, user, password):
        """Fail."""
        raise Boom


@pytest.mark.parametrize(
    "function",
    [
        login,
        Account().login,
        Account().strange,
        Account.on_class,
        Account.on_nothing,
        Account(),
        partial(login),
    ],
    ids=["function", "method", "this", "class", "static", "object", "partial"],
)
def test_secrets_are_redacted_by_parameter(function):
    """What is passed to a parameter named like a secret is not shown (E1)."""
    record = record_of(function, "ann", "s3cret")
    assert record.arguments == {"user": "'ann'", "password": "[redacted]"}


def test_secrets_behind_a_partial_are_redacted():
    """Arguments that a partial has bound already do not shift the names (E1)."""
    record = record_of(partial(login, "ann"), "s3cret")
    assert "s3cret" not in str(record.arguments)


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "new_password",
        "api_key",
        "apikey",
        "access_token",
        "secret",
        "client_secret",
        "Authorization",
        "session_cookie",
        "credentials",
    ],
)
def test_secrets_are_redacted_by_keyword_and_key(name):
    """Keywords, and keys of nested dicts, named like a secret hide their value (E1)."""
    nested = {"list": [{name: "s3cret", "shown": "yes"}]}
    record = record_of(fail, nested, **{name: "s3cret"})
    assert "s3cret" not in str(record.arguments)
    assert "'shown': 'yes'" in record.arguments["*0"]
    assert record.arguments[name] == "[redacted]"


@pytest.mark.parametrize("mapping", [OrderedDict, partial(defaultdict, str), UserDict])
def test_secrets_are_redacted_in_mappings_of_every_type(mapping):
    """A mapping need not be a dict to hide what is named like a secret (E1)."""
    record = record_of(fail, mapping({"password": "s3cret"}))
    assert "s3cret" not in str(record.arguments)


def test_the_text_of_an_argument_is_bounded():
    """However large an argument is, its text in the record is short (E1)."""

    class Large:
        def __repr__(self):
            return "x" * 10**6

    record = record_of(
        fail,
        "y" * 10**6,
        list(range(10**5)),
        dict.fromkeys(range(1000), "z" * 1000),
        Large(),
        [[[[[[["deep"] * 50] * 50] * 50] * 50]]],
        10**4000,
    )
    assert all(len(text) < 3000 for text in record.arguments.values())


def test_the_number_of_arguments_is_bounded():
    """A call with very many arguments does not make a large record (E1)."""
    record = record_of(fail, *range(10_000), **{f"k{n}": n for n in range(10_000)})
    assert len(record.arguments) < 200


def test_a_repr_that_raises_is_no_second_failure():
    """An argument that cannot be shown is named by its type (E1, E3)."""

    class Broken:
        def __repr__(self):
            raise Boom

    class Worse:
        def __repr__(self):
            raise SystemExit

    seen = []
    with DeferScope():
        defer(fail, Broken(), Worse(), one=[Broken()], two={1: Worse()})
        defer(seen.append, "next")
    (record,) = failure_store().list()
    assert seen == ["next"]
    kinds = {"*0": "Broken", "*1": "Worse", "one": "Broken", "two": "dict"}
    assert record.arguments.keys() == kinds.keys()
    assert all(kind in record.arguments[name] for name, kind in kinds.items())


def test_an_argument_that_changes_is_shown_as_it_is_at_the_failure():
    """The record shows what the call worked with when it failed (E1)."""
    items = [1]

    def grow(items):
        items.append(2)
        raise Boom

    assert record_of(grow, items).arguments == {"items": "[1, 2]"}


class BrokenStore:
    """A failure store of a database that is away."""

    def __init__(self, exception):
        self._exception = exception

    def add(self, record):
        """Fail."""
        raise self._exception

    def list(self):
        """Have nothing."""
        return []


@pytest.mark.parametrize("exception", [Boom, OSError, SystemExit, KeyboardInterrupt])
def test_a_failing_store_hurts_nobody(unit, form, exception, logged, monkeypatch):
    """A store that fails is logged; call, next call and response go on (E3)."""
    monkeypatch.setattr(_reporting, "_store", BrokenStore(exception))
    seen = []
    calls = []

    def body():
        calls.append(defer(form(fail)))
        defer(form(seen.append), "next")

    unit(body)
    assert seen == ["next"]
    assert calls[0].state == "failed"
    assert any("failure store failed" in text for text in logged.texts(logging.ERROR))
    assert any("Boom: what happened" in text for text in logged.texts(logging.ERROR))


def test_records_are_given_oldest_first_and_can_be_forgotten():
    """The store of this process lists its records in order, and can be emptied (E1)."""
    with DeferScope():
        for name in "abc":
            defer(fail).named(name)
    store = failure_store()
    assert [record.name for record in store.list()] == ["a", "b", "c"]
    assert "3 of 1000" in repr(store)
    assert store.forget(record.id for record in store.list()) == 3
    assert failure_store().list() == []
