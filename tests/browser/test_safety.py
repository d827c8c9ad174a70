"""Who is let in, which forms are taken, and what the browser is allowed to do."""

import threading
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def shop(open_shop):
    """A shop in which a receipt has failed."""
    shop = open_shop("uvicorn")
    shop.let("mail-down")
    shop.post("/orders/1")
    return shop


@pytest.fixture
def failed(shop, visit):
    """A page that shows a failure."""
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    link = page.get_by_role("row").filter(has_text="send_receipt").get_by_role("link")
    link.first.click()
    expect(page.get_by_role("button", name="Run again")).to_be_visible()
    return page


@pytest.fixture
def elsewhere():
    """Another site: `elsewhere(html)` gives its port."""
    servers = []

    def elsewhere(html):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(html.encode())

            def log_message(self, *_anything):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return server.server_port

    yield elsewhere
    for server in servers:
        server.shutdown()
        server.server_close()


def test_strangers_see_nothing(shop, visit):
    """Without authorisation every page is a refusal with nothing of the data in it."""
    page = visit(shop, staff=False)
    for path in ("/", "/failures", "/failures/abc"):
        response = page.goto(page.dashboard + path)
        assert response.status == 403
        assert "You may not see this dashboard" in page.content()
        assert "send_receipt" not in page.content()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.test"])
@pytest.mark.parametrize("action", ["forget", "retry"])
def test_a_form_on_another_site_does_nothing(shop, failed, elsewhere, host, action):
    """A forged form is refused from another site, and from another port of this one.

    That port is the same site, so the cookies of both are sent; the form even has the
    right token.
    """
    one = failed.url.rpartition("/")[2]
    token = failed.locator("input[name=token]").first.get_attribute("value")
    port = elsewhere(
        f"<form method=post action='{escape(failed.dashboard)}/{action}'>"
        f"<input name=id value={one}><input name=token value={token}>"
        "<button>Win a prize</button></form>"
    )
    failed.goto(f"http://{host}:{port}/")
    with failed.expect_response(lambda r: r.url.endswith(action)) as answered:
        failed.get_by_role("button").click()
    assert answered.value.status == 403
    assert failed.goto(f"{failed.dashboard}/failures/{one}").status == 200
    assert "Attempt1" in failed.get_by_role("main").text_content().replace(" ", "")


def test_forms_work_without_tls_under_a_name(shop, visit):
    """Where the browser sends no Fetch Metadata, its Origin is what counts."""
    page = visit(shop, host="shop.test")
    page.goto(f"{page.dashboard}/failures")
    link = page.get_by_role("row").filter(has_text="send_receipt").get_by_role("link")
    link.first.click()
    sent = []
    page.on("request", lambda r: sent.append(r) if r.method == "POST" else None)
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("The call ran again and failed again.")).to_be_visible()
    assert "sec-fetch-site" not in sent[0].all_headers()


def test_a_script_in_an_error_is_only_text(failed):
    """What a stranger put into an error is shown, and makes no element."""
    expect(failed.get_by_role("main")).to_contain_text("order <b>1</b>")
    assert failed.locator("pre b, .exception b").count() == 0
    failed.watch.check(failed)


def test_the_policy_is_enforced(failed):
    """Inline scripts, styles and frames that somehow get in are stopped (CSP)."""
    failed.evaluate(
        """() => {
          for (const text of ["<img src=x onerror='window.hurt=1'>",
                              "<p style='position:fixed'>x</p>"]) {
            document.querySelector("main").insertAdjacentHTML("beforeend", text);
          }
          const script = document.createElement("script");
          script.textContent = "window.hurt = 1";
          document.body.append(script);
        }"""
    )
    failed.wait_for_function("window.__violations.length >= 3")
    assert failed.evaluate("window.hurt") is None


def test_it_cannot_be_framed(shop, visit, elsewhere):
    """No other page can put the dashboard under a reader's mouse."""
    page = visit(shop)
    port = elsewhere(f"<iframe src='{escape(page.dashboard)}/'></iframe>")
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_timeout(300)
    assert "Overview" not in page.frames[-1].content()


def test_secrets_are_not_shown(failed):
    """An argument that is named like a secret has no value on the page (E1)."""
    assert "secret" not in failed.content()
