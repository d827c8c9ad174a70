"""One run of the demo from opening the shop to the report."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from shop import report
from shop.checking import problems, received
from shop.journal import EFFECTS, read
from shop.opening import Shop, ShopError, open_shop
from shop.posting import (
    Posted,
    effects_seen,
    orders_page,
    post_orders,
    steps_of,
    wait_until,
)
from shop.results import Results, results
from shop.settings import Settings
from shop.signals import StoppedError
from shop.terminal import introduce, make_progress, seconds_of, show
from shop.wording import ms

VISIT = """
The shop stays open at {address} until Ctrl-C. Order something:

  curl -w ' in %{{time_total}} s\\n' -H 'content-type: application/json' \\
    -d '{{"name": "Zoë", "email": "zoe@example.org", "lines": {{"cup": 2}}}}' \\
    {address}/after/orders

and the same with /before/orders. What follows from your order:
"""


def run(settings: Settings, console: Console) -> int:
    """Run the demo; return its exit status.

    Raises:
        ShopError: when the shop does not open, or breaks down.
        StoppedError: when a signal ends it.
    """
    introduce(console, settings)
    with (
        TemporaryDirectory(prefix="postlude-shop-") as folder,
        open_shop(settings, Path(folder)) as shop,
    ):
        measured = measure(settings, shop, console)
        show(console, measured)
        if measured.problems:
            log = shop.server.log_tail()
            console.print(f"\n{log}\n", markup=False, soft_wrap=True)
        page = report.write(measured, settings.report_dir)
        console.print(f"Report: {page}", soft_wrap=True)
        if settings.keep:
            keep_open(shop, console)
    return 1 if measured.problems else 0


def measure(settings: Settings, shop: Shop, console: Console) -> Results:
    """Post the orders, wait for what follows from them, and compare both."""
    # One order each way warms the shop up; it counts for "nothing lost" all the same.
    expected = 2 * (settings.orders + 1)
    posted: list[Posted] = []
    with make_progress(console, seconds_of(settings)) as progress:
        orders = progress.add_task("orders", total=expected)
        effects = progress.add_task("side effects", total=expected * len(EFFECTS))
        for order in post_orders(shop, settings.orders):
            posted.append(order)
            progress.update(orders, completed=len(posted))
            progress.update(effects, completed=effects_seen(shop))
        wait_until(
            lambda: effects_seen(shop),
            expected * len(EFFECTS),
            settings.wait_s,
            lambda seen: progress.update(effects, completed=seen),
        )
    if console.is_terminal:
        console.print()
    steps, ledger = steps_of(shop, posted), shop.ledger()
    pages = {order.id: orders_page(shop, order.basket.email) for order in posted}
    arrived = received(posted, ledger, pages)
    wrong = problems(posted, steps, arrived, ledger)
    return results(settings, posted, steps, arrived, wrong)


def keep_open(shop: Shop, console: Console) -> None:
    """Leave the shop to its visitors until Ctrl-C; show what follows from orders.

    Raises:
        ShopError: when the server ends by itself.
        StoppedError: when another signal than Ctrl-C ends it.
    """
    address = f"http://127.0.0.1:{shop.port}"
    console.print(
        VISIT.format(address=address), markup=False, highlight=False, soft_wrap=True
    )
    shown = len(read(shop.journal))
    try:
        while shop.server.running:
            for entry in read(shop.journal)[shown:]:
                shown += 1
                if entry.order:
                    took = ms(1000 * (entry.ended - entry.began))
                    end = f"failed: {entry.error}" if entry.error else took
                    console.print(f"  order #{entry.order}: {entry.step}, {end}")
            time.sleep(0.1)
        raise ShopError(
            "the server of the shop has ended.",
            "somebody stopped it, or it broke down.",
            "the log below says more; then run the same command again.",
            shop.server.log_tail(),
        )
    except StoppedError as stopped:
        if stopped.status != 130:
            raise
        console.print("\nThe shop is closed.")
