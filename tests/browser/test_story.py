"""E2: a failure arrives while somebody looks, is read, run again, and goes."""

import pytest
from playwright.sync_api import expect


def fail_once(shop, number):
    """Let an order's receipt fail."""
    shop.let("mail-down")
    shop.post(f"/orders/{number}")


def test_a_failure_arrives_is_read_run_again_and_goes(shop, visit):
    """A failure shows up by itself, says where it is from, and is gone when it ran."""
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    expect(page.get_by_role("heading", name="No call has failed")).to_be_visible()

    fail_once(shop, 7)
    row = page.get_by_role("row").filter(has_text="send_receipt")
    expect(row).to_be_visible()
    expect(page.get_by_role("status").first).to_have_text("1 new failure")
    expect(page.get_by_role("navigation", name="Pages")).to_contain_text("1 kept")

    row.get_by_role("link").click()
    expect(page.get_by_role("region", name="Traceback")).to_contain_text(
        "MailServerAwayError: no answer for order <b>7</b>"
    )
    main = page.get_by_role("main")
    expect(main).to_contain_text("/orders/")
    expect(main).to_contain_text("in order")  # the place that deferred it
    expect(main).to_contain_text("'7'")

    page.get_by_role("button", name="Run again").click()
    expect(main).to_contain_text("The call ran again and failed again.")
    expect(main).to_contain_text("Attempt\n2", use_inner_text=True)

    shop.end("mail-down")
    page.get_by_role("button", name="Run again").click()
    expect(main).to_contain_text("its record is gone")
    expect(page.get_by_role("heading", name="No call has failed")).to_be_visible()
    page.watch.check(page)


def test_a_second_reader_sees_it_go(shop, visit):
    """What one reader runs again disappears in front of another one."""
    fail_once(shop, 8)
    page, other = visit(shop), visit(shop)
    page.goto(f"{page.dashboard}/failures")
    page.get_by_role("row").filter(has_text="send_receipt").get_by_role("link").click()
    other.goto(page.url)
    shop.end("mail-down")
    page.get_by_role("button", name="Run again").click()
    expect(other.get_by_role("heading", name="This record is gone")).to_be_visible()
    # That it is gone is a 404, which the console mentions.
    other.watch.check(other, forgiven=["404"])


def test_a_record_is_forgotten(shop, visit):
    """Forgetting asks first, in two steps that need no script."""
    fail_once(shop, 9)
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    page.get_by_role("row").filter(has_text="send_receipt").get_by_role("link").click()
    assert not page.get_by_role("button", name="Yes, forget this record").is_visible()
    page.get_by_text("Forget …").click()
    page.get_by_role("button", name="Yes, forget this record").click()
    expect(page.get_by_text("The record is forgotten.")).to_be_visible()
    page.watch.check(page)


def test_a_long_run_is_watched_to_its_end(shop, visit):
    """A call that runs long does not hold the page, which shows its end by itself."""
    shop.let("hold")
    page = visit(shop)
    shop.post("/reports/1")
    page.goto(page.dashboard)
    running = page.get_by_role("region", name="Running now")
    expect(running).to_contain_text("rebuild")
    shop.end("hold")
    expect(running).to_contain_text("Nothing runs")
    page.watch.check(page)


@pytest.mark.parametrize("shop", ["uvicorn"], indirect=True)
def test_several_are_run_again_at_once(shop, visit):
    """Chosen rows stay chosen while the page is live, and are run together."""
    shop.let("mail-down")
    for number in range(3):
        shop.post(f"/orders/{number}")
    page = visit(shop)
    page.goto(f"{page.dashboard}/failures")
    boxes = page.get_by_role("checkbox")
    expect(boxes).to_have_count(3)
    boxes.nth(0).check()
    boxes.nth(1).check()
    shop.post("/orders/3")
    expect(boxes).to_have_count(4)
    assert [box.is_checked() for box in boxes.all()] == [False, True, True, False]
    shop.end("mail-down")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_role("main").get_by_text("done")).to_have_count(2)
    page.get_by_role("link", name="All failures").click()
    expect(boxes).to_have_count(2)
    page.watch.check(page)
