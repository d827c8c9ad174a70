"""E2: several processes show as one."""

from playwright.sync_api import expect


def test_two_workers_show_as_one(open_shop, visit):
    """Calls, failures and running work of two processes are on one page."""
    shop = open_shop("uvicorn-2")
    shop.let("hold")
    shop.let("mail-down")
    pids = set()
    held = 0
    while len(pids) < 2:
        pid = shop.post(f"/reports/{held}")
        if pid in pids:  # dozens may come to one worker, more than it has threads
            shop.let(f"go-{held}")
        pids.add(pid)
        held += 1
        assert held < 200, "the other worker gets no request"
    failed = {}
    while len(failed) < 2:
        number = len(failed) + held
        failed.setdefault(shop.post(f"/orders/{number}"), number)
    page = visit(shop)
    page.goto(page.dashboard)
    running = page.get_by_role("region", name="Running now")
    for pid in pids:
        expect(running).to_contain_text(f":{pid}")
    expect(running).to_contain_text("2 processes")
    # Whichever worker answers, the page is the same.
    seen = set()
    page.on("response", lambda r: seen.add(r.status))
    page.goto(f"{page.dashboard}/failures")
    for number in failed.values():
        expect(page.get_by_role("main")).to_contain_text(f"order <b>{number}</b>")
    # And what one worker's page was asked to do, another one can.
    shop.end("mail-down")
    for _ in failed:
        row = page.get_by_role("row").filter(has_text="send_receipt")
        row.first.get_by_role("link").click()
        page.get_by_role("button", name="Run again").click()
        expect(page.get_by_text("its record is gone")).to_be_visible()
    assert seen <= {200, 303}
    page.watch.check(page)
