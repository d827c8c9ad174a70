"""Retry and forget: only from a page of ours, and never in anybody's way."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from desk import Visitor, chores, over_asgi, record

from postlude import dashboard
from postlude.dashboard import _asgi, _wsgi
from postlude.failures import Batch
from postlude.failures.memory import MemoryFailureStore


@pytest.fixture
def failed(store):
    """The record of a call that failed and can be run again."""
    one = record()
    store.write(Batch((one,)))
    return one


def token_of(visitor):
    """Read the token of the list's form, as a browser gets it."""
    return visitor.get("/failures").token


# -- run again --------------------------------------------------------------


@pytest.mark.parametrize("fn", [chores.work, chores.awork])
def test_a_call_that_runs_well_is_gone(visitor, store, fn):
    """A retry that ends well forgets the record, and the page says so (E2)."""
    store.write(Batch((record(fn=fn),)))
    done = visitor.post("/retry", {"id": record().id, "token": token_of(visitor)})
    assert chores.ran == ["x"]
    assert store.count() == 0
    page = visitor.follow("/retry", done)
    assert "The call ran, and its record is gone." in page.text
    assert visitor.get(f"/failures/{record().id}").status == 404


def test_a_call_that_fails_again_shows_why(visitor, store):
    """A retry that fails leads to the record, with the new error and attempt (E2)."""
    store.write(Batch((record(fn=chores.fail),)))
    done = visitor.post("/retry", {"id": record().id, "token": token_of(visitor)})
    text = visitor.follow("/retry", done).text
    assert "failed again" in text
    assert "still no luck with x" in text
    assert "Attempt 2" in text


def test_what_cannot_be_run_is_refused_with_its_reason(visitor, store):
    """A function that is no more is told, and the record stays."""
    gone = record()._replace(function="desk.chores:renamed")
    store.write(Batch((gone,)))
    page = visitor.post("/retry", {"id": gone.id, "token": token_of(visitor)})
    assert page.status == 409
    assert "cannot be found" in page.text
    assert store.count() == 1
    # It is no page that could be asked for again and again.
    assert "data-still" in page.body


def test_many_are_run_one_after_another(visitor, store):
    """A form with several records tells of each."""
    records = (
        record("1" * 32),
        record("2" * 32, fn=chores.fail),
        record("3" * 32, refusal="it is a lambda"),
    )
    store.write(Batch(records))
    ids = [r.id for r in records]
    page = visitor.post("/retry", {"id": ids, "token": token_of(visitor)})
    assert page.status == 200
    assert "desk.chores:work done" in page.text
    assert "desk.chores:fail failed" in page.text
    assert "could not be run" in page.text
    assert chores.ran == ["x", "x"]


def test_a_record_that_is_gone_is_no_error(visitor, failed):
    """Whoever comes second learns that there is nothing to do."""
    token = token_of(visitor)
    for action in ("forget", "forget", "retry"):
        done = visitor.post(f"/{action}", {"id": failed.id, "token": token})
    assert "no such record any more" in visitor.follow("/retry", done).text


@pytest.mark.parametrize("form", [{}, {"id": "../x"}, {"id": ["a" * 32, "<b>"]}])
def test_a_form_that_names_nothing_is_refused(visitor, failed, store, form):
    """Without a record, or with one that there cannot be, nothing is done."""
    page = visitor.post("/forget", {**form, "token": token_of(visitor)})
    assert page.status == 400
    assert "<b>" not in page.body
    assert store.count() == 1


def test_a_long_run_does_not_hold_the_page(visitor, store, monkeypatch):
    """A retry that takes long goes on while its page says that it runs (D3)."""
    monkeypatch.setattr(_wsgi, "PATIENCE", 0.05)
    monkeypatch.setattr(_asgi, "PATIENCE", 0.05)
    store.write(Batch((record(fn=chores.wait),)))
    with serving(visitor):
        form = {"id": record().id, "token": token_of(visitor)}
        done = visitor.post("/retry", form)
        assert chores.begun.wait(20)
        page = visitor.follow("/retry", done)
        assert "It is being run again, since" in page.text
        assert (
            "action="
            not in page.body.partition('data-key="actions"')[2].partition("</div>")[0]
        )
        # A second click finds it taken.
        again = visitor.post("/retry", form)
        assert "It is being run again" in visitor.follow("/retry", again).text
        chores.release.set()
        wait_until(lambda: store.count() == 0)
    assert chores.ran == ["x"]


def test_a_long_run_does_not_hold_the_loop(store):
    """Other requests are answered on the same loop while a call runs again (D3)."""
    store.write(Batch((record(fn=chores.wait), record("b" * 32))))
    visitor = Visitor(over_asgi(dashboard.asgi(store, authorize=lambda _scope: True)))
    with serving(visitor):
        token = token_of(visitor)
        other = Visitor(visitor._send)
        other.run = visitor.run
        form = {"id": record().id, "token": token}
        thread = threading.Thread(target=lambda: visitor.post("/retry", form))
        thread.start()
        assert chores.begun.wait(20)
        assert other.get("/failures").status == 200
        chores.release.set()
        thread.join(20)
        assert not thread.is_alive()


def test_a_retry_in_memory_works_too(open_to):
    """The store that is always there has retry and forget like the others."""
    store = MemoryFailureStore(10)
    store.write(Batch((record(),)))
    visitor = open_to(store)
    visitor.post("/retry", {"id": record().id, "token": token_of(visitor)})
    assert chores.ran == ["x"]
    assert store.count() == 0


# -- forget -----------------------------------------------------------------


def test_forget_takes_a_record_out(visitor, failed, store):
    """A forgotten record is gone, and the list says that it was done."""
    page = visitor.get(f"/failures/{failed.id}")
    done = visitor.post("/forget", {"id": failed.id, "token": page.token})
    assert store.count() == 0
    assert "The record is forgotten." in visitor.follow("/forget", done).text


# -- forged -----------------------------------------------------------------

SAME = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://shop.test"},
        {"origin": "http://evil.test"},
        {"origin": "http://shop.test.evil.test"},
        {"origin": "http://shop.test:81"},
        {"origin": "null"},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("action", ["retry", "forget"])
def test_a_form_of_another_site_is_refused(visitor, failed, store, action, headers):
    """Even with the right token, a form must say that it comes from here (CSRF)."""
    form = {"id": failed.id, "token": token_of(visitor)}
    page = visitor.post(f"/{action}", form, headers=headers)
    assert page.status == 403
    assert "Nothing was done" in page.text
    assert store.count() == 1
    assert chores.ran == []


@pytest.mark.parametrize(
    "headers", [SAME, {"origin": "http://shop.test"}, {"origin": "https://shop.test"}]
)
def test_a_form_of_this_site_is_taken(visitor, failed, store, headers):
    """Browsers without Fetch Metadata (no TLS) are known by their Origin."""
    form = {"id": failed.id, "token": token_of(visitor)}
    assert visitor.post("/forget", form, headers=headers).status == 303
    assert store.count() == 0


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "ü" * 43, None])
@pytest.mark.parametrize("cookie", ["kept", "lost", "empty"])
def test_a_form_without_its_token_is_refused(visitor, failed, store, token, cookie):
    """Cookie and form must have the same token, which nobody else can know (CSRF)."""
    token_of(visitor)
    if cookie == "lost":
        visitor.cookies.clear()
    elif cookie == "empty":
        visitor.cookies["postlude"] = ""
    form = {"id": failed.id, **({} if token is None else {"token": token})}
    assert visitor.post("/forget", form).status == 403
    assert store.count() == 1


def test_the_cookie_is_for_the_server_alone(visitor):
    """Scripts cannot read the token's cookie, and other sites cannot have it sent."""
    cookie = visitor.get("/failures").headers["set-cookie"]
    assert cookie.startswith("postlude=")
    assert "HttpOnly; SameSite=Strict" in cookie
    assert "set-cookie" not in visitor.get("/failures").headers


def test_over_tls_the_cookie_is_bound_to_the_host(visitor, failed):
    """Over TLS the cookie is Secure, and no other host of the domain can set it."""
    page = visitor.get("/failures", scheme="https")
    assert page.headers["set-cookie"].startswith("__Host-postlude=")
    assert "Secure" in page.headers["set-cookie"]
    form = {"id": failed.id, "token": page.token}
    assert visitor.post("/forget", form, scheme="https").status == 303


def test_cookies_of_others_are_no_obstacle(visitor, failed):
    """A cookie that nobody can read, before ours, does not hide ours."""
    visitor.get("/failures")
    ours = visitor.cookies["postlude"]
    headers = {**SAME, "cookie": 'prefs={"a":1, "b":[2]}; bad name=\x01; =; x'}
    form = {"id": failed.id, "token": ours}
    assert visitor.post("/forget", form, headers=headers).status == 303


@pytest.mark.parametrize("announced", [True, False])
def test_a_form_that_is_too_long_is_not_read(protocol, visitor, failed, announced):
    """64 KiB are enough for a form; more is refused, announced or not."""
    if protocol == "wsgi" and not announced:
        return  # a WSGI server gives no more than is announced
    length = 70_000 if announced else 10
    headers = {**SAME, "content-length": str(length)}
    page = visitor.ask("POST", "/forget", headers=headers, body=b"x" * 70_000)
    assert page.status == 413


@pytest.mark.parametrize("length", ["x", "-5", "1e3", ""])
def test_nonsense_for_a_length_is_refused(visitor, failed, store, length):
    """A length that is none is an error of the visitor's, not ours."""
    headers = {**SAME, "content-length": length}
    page = visitor.ask("POST", "/forget", headers=headers, body=b"")
    assert page.status in {403, 413}
    assert store.count() == 1


def test_whoever_hangs_up_in_a_form_does_nothing(store, failed):
    """A form that did not come whole is not acted upon."""
    app = dashboard.asgi(store, authorize=lambda _scope: True)
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/forget", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert store.count() == 1


# -- waiting ----------------------------------------------------------------


@contextmanager
def serving(visitor):
    """Keep one loop for all requests of an ASGI visitor, as a server does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    visitor.run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)
    yield
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def wait_until(condition):
    """Look again and again, for another thread's work."""
    over = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        over.wait(0.01)
    raise AssertionError("it did not come true")
