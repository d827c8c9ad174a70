"""`postlude dashboard`: a server of its own, for whoever has the token."""

import http.client
import re
import threading
from urllib.parse import urlsplit

import pytest
from desk import record

from postlude.dashboard import serve
from postlude.dashboard._serve import Server
from postlude.failures import Batch


@pytest.fixture
def server(store):
    """A server that answers."""
    with Server(store, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)


def ask(server, path, method="GET", body=None, **headers):
    """Send one request, and give status, headers and text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read().decode()
    connection.close()
    return answer


def enter(server):
    """Open the printed address, and give the cookie that it leaves."""
    parts = urlsplit(server.address)
    status, headers, _ = ask(server, f"{parts.path}?{parts.query}")
    assert (status, headers["location"]) == (303, "./")
    return headers["set-cookie"].partition(";")[0]


def test_the_token_in_the_address_becomes_a_cookie(server):
    """The printed address opens the dashboard, and leaves the address bar at once."""
    status, _, text = ask(server, "/", Cookie=enter(server))
    assert status == 200
    assert "token=" not in re.sub(r'name="token"', "", text)


def test_the_cookie_is_strict(server):
    """No script reads the cookie, and no other site has it sent."""
    parts = urlsplit(server.address)
    _, headers, _ = ask(server, f"{parts.path}?{parts.query}")
    assert "HttpOnly; SameSite=Strict" in headers["set-cookie"]
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/failures", "/?token=", "/?token=guess", "/x"])
@pytest.mark.parametrize("cookie", [None, "{name}=", "{name}=guess", "other={token}"])
def test_without_the_token_nothing_is_shown(server, path, cookie):
    """No token, no cookie, or wrong ones: refused, and told what to do."""
    name, _, token = enter(server).partition("=")
    headers = {"Cookie": cookie.format(name=name, token=token)} if cookie else {}
    status, _, text = ask(server, path, **headers)
    assert status == 403
    assert "Open the whole address" in text


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:{port}",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "",
        "[",
    ],
)
def test_another_name_for_this_machine_is_refused(server, host):
    """A name that a stranger made point here is refused, token or not (rebinding)."""
    cookie = enter(server)
    name = host.format(port=server.server_port)
    status, _, text = ask(server, "/", Cookie=cookie, Host=name)
    assert status == 403
    assert "not known by that name" in text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80"])
def test_the_names_that_nobody_can_forge_are_fine(server, host):
    """Addresses and localhost need no name server; a tunnel may change the port."""
    assert ask(server, "/", Cookie=enter(server), Host=host)[0] == 200


def test_a_name_that_was_asked_for_is_fine(store):
    """`--host` with a name lets that name in."""
    with Server(store, "localhost", 0, "secret") as server:
        assert server.address.endswith("/?token=secret")


def test_a_form_works_and_a_forged_one_does_not(server, store):
    """Actions need the form's token here too."""
    store.write(Batch((record(),)))
    entered = enter(server)
    _, headers, text = ask(server, "/failures", Cookie=entered)
    token = re.search(r'name="token" value="([^"]+)"', text)[1]
    cookies = f"{entered}; {headers['set-cookie'].partition(';')[0]}"
    form = {
        "Cookie": cookies,
        "Content_Type": "application/x-www-form-urlencoded",
        "Origin": f"http://127.0.0.1:{server.server_port}",
    }
    body = f"id={record().id}&token="
    assert ask(server, "/forget", "POST", f"{body}x", **form)[0] == 403
    assert ask(server, "/forget", "POST", body + token, **form)[0] == 303
    assert store.count() == 0


def test_serve_tells_its_address_and_ends_by_interrupt(store, monkeypatch):
    """`serve` calls `ready` with the whole address, and Ctrl-C is a normal end."""
    told = []

    def interrupted(_self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    serve(store, port=0, token="abc", ready=told.append)  # noqa: S106 - it opens nothing
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=abc", told[0])


def test_serve_prints_its_address(store, monkeypatch, capsys):
    """Without `ready`, the address is printed for whoever started it."""
    monkeypatch.setattr(Server, "serve_forever", lambda _self: None)
    serve(store)
    out = capsys.readouterr().out
    assert re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}\n", out)


def test_the_tokens_of_two_servers_differ(store):
    """Each start makes a new token."""
    with Server(store, "127.0.0.1", 0) as one, Server(store, "127.0.0.1", 0) as other:
        assert one.address.partition("=")[2] != other.address.partition("=")[2]
