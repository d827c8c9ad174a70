"""Closed by default: who is let in, and how the pages are mounted."""

import asyncio
import re

import pytest
from desk import Visitor, over_asgi, over_wsgi, record

from postlude import dashboard
from postlude.exceptions import SettingsError
from postlude.failures import Batch


@pytest.mark.parametrize("given", [{}, {"authorize": None}, {"authorize": True}])
def test_forgetting_to_say_who_may_see_it_is_an_error(protocol, given):
    """Without authorize there is no dashboard, and the error says what to write."""
    with pytest.raises(
        TypeError, match=r"without authorize.*Usually.*authorize=lambda"
    ):
        getattr(dashboard, protocol)(**given)


def test_wsgi_refuses_a_question_that_nobody_would_await():
    """An async authorize under WSGI would let everybody in; it is refused at once."""

    async def may(_environ):
        return True

    with pytest.raises(TypeError, match="async function"):
        dashboard.wsgi(authorize=may)


@pytest.mark.parametrize("path", ["/", "/failures", "/failures/x", "/nothing", ""])
@pytest.mark.parametrize("answer", [False, None, 1, "yes", object()])
def test_only_true_lets_in(open_to, store, path, answer):
    """What is not True lets nobody in, whatever it counts as; no data is shown."""
    store.write(Batch((record(),)))
    page = open_to(store, lambda _request: answer).get(path)
    assert page.status == 403
    assert "desk" not in page.body
    assert "Sign in there" in page.body


def test_what_the_question_raises_means_no(open_to, store, said):
    """An authorize that raises refuses, and the log has the reason (E3)."""

    def may(_request):
        raise LookupError("no session")

    assert open_to(store, may).get("/").status == 403
    assert "no session" in said.text


def test_forms_and_assets_are_behind_the_door_too(open_to, store):
    """Neither actions nor assets are reached without authorisation."""
    store.write(Batch((record(),)))
    asset = re.search(r"assets/[^\"]+\.js", open_to(store).get("/").body)[0]
    refused = open_to(store, lambda _request: False)
    assert refused.get(f"/{asset}").status == 403
    assert refused.post("/forget", {"id": record().id, "token": "x"}).status == 403
    assert store.count() == 1


def test_the_question_is_asked_about_the_request(protocol, store):
    """What is asked about is the scope under ASGI and the environ under WSGI."""
    seen = []
    app = getattr(dashboard, protocol)(store, authorize=lambda r: bool(seen.append(r)))
    over = over_asgi if protocol == "asgi" else over_wsgi
    Visitor(over(app)).get("/")
    key = "type" if protocol == "asgi" else "PATH_INFO"
    assert seen[0][key] == ("http" if protocol == "asgi" else "/")


@pytest.mark.parametrize("form", ["async def", "lambda", "object"])
def test_the_question_may_be_async_under_asgi(store, form):
    """An async authorize is awaited on the loop, in each of its forms."""
    loops = []

    async def may(_scope):
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return True

    class May:
        async def __call__(self, scope):
            return await may(scope)

    def gives_a_coroutine(scope):
        return may(scope)

    asked = {"async def": may, "lambda": gives_a_coroutine, "object": May()}
    visitor = Visitor(over_asgi(dashboard.asgi(store, authorize=asked[form])))
    assert visitor.get("/").status == 200
    assert len(loops) == 1


def test_a_sync_question_does_not_block_the_loop(store):
    """A plain authorize may wait for a database: it is asked in a thread (D3)."""
    threads = []

    def may(_scope):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        threads.append(1)
        return True

    visitor = Visitor(over_asgi(dashboard.asgi(store, authorize=may)))
    assert visitor.get("/").status == 200
    assert threads == [1]


@pytest.mark.parametrize("mount", ["", "/postlude", "/staff/tools", "/bücher"])
def test_it_works_under_any_prefix(open_to, store, mount):
    """Links, assets and redirects stay below the mount, wherever it is."""
    store.write(Batch((record(),)))
    visitor = open_to(store, mount=mount)
    page = visitor.get("/failures")
    assert page.status == 200
    asset = re.search(r'href="(assets/[^"]+\.css)"', page.body)[1]
    assert visitor.get(f"/{asset}").status == 200
    one = re.search(r'href="(failures/[^"?]+)"', page.body)[1]
    assert visitor.get(f"/{one}").status == 200
    done = visitor.post("/forget", {"id": record().id, "token": page.token})
    assert visitor.follow("/forget", done).status == 200


def test_without_the_slash_it_leads_to_the_slash(open_to, store):
    """The mount itself leads to its first page; relative addresses need the slash."""
    visitor = open_to(store, mount="/staff/postlude")
    page = visitor.get("")
    assert (page.status, page.headers["location"]) == (307, "postlude/")


def test_at_the_root_an_empty_path_is_the_first_page(open_to, store):
    """`GET` without a path is the overview."""
    assert open_to(store).get("").status == 200


@pytest.mark.parametrize("full", [True, False])
def test_a_path_with_and_without_the_mount_in_it(store, full):
    """ASGI servers differ on whether the path has the root_path in it."""
    app = dashboard.asgi(store, authorize=lambda _scope: True)
    sent = []

    async def visit():
        async def receive():
            raise AssertionError("a GET has no body to read")

        async def send(message):
            sent.append(message)

        path = "/tools/failures" if full else "/failures"
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        await app({**scope, "root_path": "/tools"}, receive, send)

    asyncio.run(visit())
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_not_allowed(visitor, method):
    """Only GET, HEAD and POST are answered."""
    page = visitor.ask(method, "/")
    assert (page.status, page.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/retry"), ("GET", "/forget"), ("POST", "/")]
)
def test_pages_are_read_and_actions_are_posted(visitor, method, path):
    """An action is no link, and a page is no form."""
    assert visitor.ask(method, path).status == 405


def test_head_is_get_without_the_body(visitor):
    """HEAD has the length of the page and nothing after it."""
    visitor.get("/failures")
    page = visitor.ask("HEAD", "/failures")
    assert page.status == 200
    assert int(page.headers["content-length"]) > 500
    assert page.body == ""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/failures/",
        "/failures/a/b",
        "/failures/..%2f",
        "/failures/<script>",
        "/failures/" + "a" * 65,
        "/failures/\x00",
        "/assets/../_views.py",
        "/assets/dashboard.css",
        "//failures",
        "/failures/" + "b" * 32,
    ],
)
def test_unknown_pages_and_bad_ids_are_not_found(visitor, path):
    """What is not there is a page that says so, with nothing of the path in it."""
    page = visitor.get(path)
    assert page.status == 404
    assert "<script>" not in page.body


@pytest.mark.parametrize("path", ["/", "/failures", "/nothing"])
def test_every_page_has_the_headers_that_keep_it_safe(visitor, path):
    """Nothing may be loaded from elsewhere, framed, kept, guessed or told (CSP)."""
    headers = visitor.get(path).headers
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} < {
        *policy
    }
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"


def test_no_page_has_anything_inline(visitor, store):
    """No style or script stands in a page, so that the policy need not allow any."""
    store.write(Batch((record(),)))
    for path in ("/", "/failures", f"/failures/{record().id}"):
        body = visitor.get(path).body
        assert not re.search(r"\sstyle=|\son\w+=|<style|http-equiv", body)
        assert re.findall(r"<script[^>]*>[^<]", body) == []
        assert not re.search(r"(src|href|action)=\"(\w+:|//)", body)


def test_what_is_asked_for_often_is_small(visitor):
    """The overview is compressed for whoever takes that; a page with a token is not."""
    headers = {"accept-encoding": "br, gzip"}
    page = visitor.get("/", headers=headers)
    assert page.headers["content-encoding"] == "gzip"
    assert int(page.headers["content-length"]) < len(page.body) / 2
    assert 'name="token"' not in page.body
    assert "content-encoding" not in visitor.get("/failures", headers=headers).headers
    assert "content-encoding" not in visitor.get("/").headers


def test_assets_may_be_kept_and_change_their_address(visitor):
    """An asset's address has its content's hash in it, so browsers may keep it."""
    path = re.search(r"assets/[^\"]+\.css", visitor.get("/").body)[0]
    asset = visitor.get(f"/{path}")
    assert asset.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in asset.headers["cache-control"]


def test_websockets_and_lifespans_are_answered(store):
    """As an application of its own it starts, stops, and takes no sockets (ASGI)."""
    app = dashboard.asgi(store, authorize=lambda _scope: True)

    async def talk(kind, *messages):
        incoming, sent = [{"type": m} for m in messages], []

        async def receive():
            return incoming.pop(0)

        async def send(message):
            sent.append(message)

        await app({"type": kind}, receive, send)
        return [message["type"] for message in sent]

    started = asyncio.run(talk("lifespan", "lifespan.startup", "lifespan.shutdown"))
    assert started == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(talk("websocket", "websocket.connect")) == ["websocket.close"]


def test_an_impossible_store_is_an_error_at_the_start(protocol):
    """A store that there cannot be is refused where the dashboard is made."""
    with pytest.raises(SettingsError, match="names no store"):
        getattr(dashboard, protocol)("postlude", authorize=lambda _request: True)
