"""Shops that are open, and a browser to look at their dashboards."""

import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

# As in the other folders: importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from stand import SHOTS, Watch, chromium, start

PATIENCE = 20_000  # milliseconds; a process tells what it runs every five seconds
expect.set_options(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def blockbuster():
    """Look for no blocking calls: the browser's driver has a loop in this thread."""


@pytest.fixture(scope="module")
def browser():
    """One browser for the tests of a file: its driver's loop ends with it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    # Chromium has no sandbox for root, who runs the tests in most containers.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium(),
            args=[*flags, "--host-resolver-rules=MAP *.test 127.0.0.1"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory):
    """Open shops that belong to the tests of a file."""
    shops = []

    def open_shop(kind):
        shops.append(start(kind, tmp_path_factory.mktemp(kind)))
        return shops[-1]

    yield open_shop
    for shop in shops:
        shop.close()


@pytest.fixture(params=["uvicorn", "gunicorn"])
def shop(request, tmp_path):
    """A shop of a test's own, under ASGI and under WSGI."""
    shop = start(request.param, tmp_path)
    yield shop
    shop.close()


@pytest.fixture
def visit(browser):
    """Make pages: `visit(shop)`; with what the browser saw in `page.watch`."""
    contexts = []

    def visit(shop, *, staff=True, host=None, **options):
        origin = shop.address if host is None else f"http://{host}:{shop.port}"
        context = browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        if staff:
            context.add_cookies([{"name": "who", "value": "staff", "url": origin}])
        page = context.new_page()
        page.watch = Watch(context, origin)
        page.dashboard = f"{origin}/staff/postlude"
        return page

    yield visit
    for context in contexts:
        context.close()
