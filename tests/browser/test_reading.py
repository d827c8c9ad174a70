"""Readable for everybody: by keyboard, without scripts, by ear, in dark and light."""

import re

import pytest
from playwright.sync_api import expect
from stand import SHOTS, clean_of_axe

WIDTHS = (360, 768, 1280, 1920)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def empty(open_shop):
    """A shop in which nothing has happened."""
    return open_shop("gunicorn")


@pytest.fixture(scope="module")
def busy(open_shop):
    """A shop with orders, reports that run, and no failure."""
    shop = open_shop("uvicorn")
    shop.let("hold")
    for number in range(30):
        shop.post(f"/orders/{number}")
    shop.post("/missing")
    for number in range(3):
        shop.post(f"/reports/{number}")
    return shop


@pytest.fixture(scope="module")
def failing(open_shop):
    """A shop whose mail server is away."""
    shop = open_shop("uvicorn")
    for number in range(20):
        shop.post(f"/orders/{number}")
    shop.let("mail-down")
    shop.let("hold")
    for number in range(60):
        shop.post(f"/orders/{number}")
    shop.post("/reports/1")
    return shop


def open_failure(page):
    """Go to the newest failure."""
    page.goto(f"{page.dashboard}/failures")
    page.get_by_role("row").filter(has_text="send_receipt").get_by_role(
        "link"
    ).first.click()
    expect(page.get_by_role("heading", name="Traceback")).to_be_visible()


def menu(page):
    """Give the links to the pages."""
    return page.get_by_role("navigation", name="Pages")


def looks(page):
    """Count how often the page itself was asked for."""
    return page.watch.requests.count(page.url)


def go(page, place):
    """Go to one of the pages that are looked at."""
    if place == "failure":
        open_failure(page)
    elif place == "failures":
        page.goto(f"{page.dashboard}/failures")
    elif place == "nothing found":
        page.goto(f"{page.dashboard}/failures?text=nowhere")
    elif place == "gone":
        page.goto(f"{page.dashboard}/failures/abc")
    else:
        page.goto(f"{page.dashboard}/")


PLACES = [
    *(("empty", place) for place in ("overview", "failures")),
    *(("busy", place) for place in ("overview", "failures")),
    *(
        ("failing", place)
        for place in ("overview", "failures", "failure", "nothing found", "gone")
    ),
]


def ready(request, page, kind, place):
    """Open a page of a shop, and wait until its numbers are there."""
    go(page, place)
    if place == "overview" and kind != "empty":
        expect(page.get_by_role("region", name="Running now")).to_contain_text(
            "rebuild"
        )
        expect(page.get_by_role("region", name="Functions")).to_contain_text("index")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_axe_finds_nothing_serious(request, visit, kind, place, scheme):
    """No page has a serious accessibility issue, details open, in both schemes."""
    page = visit(request.getfixturevalue(kind), color_scheme=scheme)
    ready(request, page, kind, place)
    page.get_by_role("button", name="Pause").click()
    clean_of_axe(page)
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    clean_of_axe(page)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_every_page_fits_every_screen(request, visit, kind, place, width, scheme):
    """No page is wider than its screen; a picture of each is kept in build/browser."""
    shop = request.getfixturevalue(kind)
    page = visit(shop, color_scheme=scheme, viewport={"width": width, "height": 900})
    ready(request, page, kind, place)
    too_wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    name = f"{kind}-{place}-{width}-{scheme}.png".replace(" ", "-")
    page.screenshot(path=SHOTS / name, full_page=True)
    assert too_wide <= 0
    page.watch.check(page, forgiven=["404"] if place == "gone" else [])


def test_zoomed_text_does_not_cut_the_page(failing, visit):
    """At twice the text size (WCAG 1.4.4) a small page is still whole."""
    page = visit(failing, viewport={"width": 640, "height": 900})
    for place in ("overview", "failures", "failure"):
        go(page, place)
        page.evaluate("document.documentElement.style.setProperty('font-size', '200%')")
        page.screenshot(path=SHOTS / f"failing-{place}-640-twice.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_whole_story_by_keyboard(open_shop, visit):
    """From the overview to a record that is gone, with the keyboard alone."""
    shop = open_shop("uvicorn")
    shop.let("mail-down")
    shop.post("/orders/5")
    page = visit(shop)
    page.goto(f"{page.dashboard}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()

    def tab_to(target):
        for _ in range(60):
            if target.evaluate("element => element === document.activeElement"):
                outline = target.evaluate("e => getComputedStyle(e).outlineStyle")
                assert outline != "none", "the focus is not visible"
                return
            page.keyboard.press("Tab")
        pytest.fail(f"the keyboard does not reach {target}")

    tab_to(menu(page).get_by_role("link", name="Failures"))
    page.keyboard.press("Enter")
    row = page.get_by_role("row").filter(has_text="send_receipt")
    expect(row).to_be_visible()
    tab_to(row.get_by_role("checkbox"))
    page.keyboard.press("Space")
    expect(row.get_by_role("checkbox")).to_be_checked()
    tab_to(row.get_by_role("link"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Traceback")).to_be_visible()
    tab_to(page.locator("pre.traceback"))
    shop.end("mail-down")
    page.keyboard.press("Control+Home")
    page.get_by_role("link", name="All failures").focus()
    tab_to(page.get_by_role("button", name="Run again"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("its record is gone")).to_be_visible()


def test_everything_works_without_scripts(open_shop, visit):
    """Plain pages and forms do all that there is to do."""
    shop = open_shop("gunicorn")
    shop.let("mail-down")
    for number in range(2):
        shop.post(f"/orders/{number}")
    page = visit(shop, java_script_enabled=False)
    page.goto(f"{page.dashboard}/")
    expect(page.get_by_role("region", name="Throughput")).to_be_visible()
    assert not page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("link", name="24h").click()
    expect(page.get_by_text("Ran in the last 24 hours")).to_be_visible()
    menu(page).get_by_role("link", name="Failures").click()
    rows = page.get_by_role("row").filter(has_text="send_receipt")
    while rows.count() < 2:  # they are written a moment after
        page.reload()
    page.get_by_label("Text").fill("order <b>1")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    rows.get_by_role("link").click()
    shop.end("mail-down")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("its record is gone")).to_be_visible()
    rows.get_by_role("checkbox").check()
    page.get_by_text("Forget …").click()
    page.get_by_role("button", name="Yes, forget them").click()
    expect(page.get_by_role("heading", name="No call has failed")).to_be_visible()


def test_the_page_is_never_moved_under_the_reader(failing, visit):
    """Focus, scroll, open details and half a filter stay while the page is live."""
    page = visit(failing)
    page.goto(page.dashboard)
    page.get_by_text("As a table").first.click()
    page.get_by_role("link", name="24h").focus()
    page.evaluate("scrollTo(0, 200)")
    with page.expect_response(lambda r: r.url.endswith("/staff/postlude/")):
        pass
    failing.post("/orders/77")
    expect(page.get_by_role("status").first).to_have_text(re.compile("1 new failure"))
    expect(page.get_by_role("link", name="24h")).to_be_focused()
    assert page.evaluate("document.querySelector('details').open")
    assert page.evaluate("scrollY") == 200

    page.goto(f"{page.dashboard}/failures")
    page.get_by_label("Text").type("half a wo")
    failing.post("/orders/78")
    expect(page.get_by_role("status").first).to_have_text(re.compile("1 new failure"))
    expect(page.get_by_label("Text")).to_have_value("half a wo")
    expect(page.get_by_label("Text")).to_be_focused()


def test_live_can_be_paused(failing, visit):
    """Whoever wants the page still gets it still, and live again (WCAG 2.2.2)."""
    page = visit(failing)
    page.goto(page.dashboard)
    with page.expect_response("**/staff/postlude/"):
        pass
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused")).to_be_visible()
    asked = looks(page)
    page.wait_for_timeout(3_000)
    assert looks(page) == asked
    with page.expect_response("**/staff/postlude/"):
        page.get_by_role("button", name="Resume").click()


def test_reduced_data_begins_paused(failing, visit):
    """Who saves data is not asked to load the page again and again."""
    page = visit(failing)
    page.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'connection', "
        "{get: () => ({saveData: true})})"
    )
    page.goto(page.dashboard)
    expect(page.get_by_text("Paused")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_a_hidden_page_asks_for_nothing(failing, visit):
    """A tab that nobody sees is not kept up to date; seen again, it is at once."""
    page = visit(failing)
    page.goto(page.dashboard)
    hide = """(hidden) => {
      const now = {get: () => hidden, configurable: true};
      Object.defineProperty(document, "hidden", now);
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    asked = looks(page)
    page.wait_for_timeout(3_000)
    assert looks(page) == asked
    with page.expect_response("**/staff/postlude/", timeout=1_500):
        page.evaluate(hide, False)


def test_it_says_when_nobody_answers(open_shop, visit):
    """A server that is away is told, what was shown stays, and it comes back."""
    shop = open_shop("uvicorn")
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    page.route("**/staff/postlude/failures", lambda route: route.abort())
    expect(page.get_by_text("No answer")).to_be_visible()
    expect(page.get_by_role("heading", name="No call has failed")).to_be_visible()
    page.unroute("**/staff/postlude/failures")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_signing_out_elsewhere_shows_nothing_new(open_shop, visit):
    """When the session ends, the page says so instead of going on."""
    shop = open_shop("uvicorn")
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    page.context.clear_cookies(name="who")
    expect(page.get_by_text("No answer")).to_be_visible()
