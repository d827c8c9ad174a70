"""Post the orders both ways, with the receiver down for a while; gather all sides."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from postlude.failures import FailureRecord
from postlude.failures.sqlite import SQLiteFailureStore
from shop.customers import basket
from shop.journal import Entry, read
from shop.opening import Shop, ShopError, open_shop
from shop.posting import Posted, post, wait_until
from shop.processes import Process, Processes
from shop.settings import Settings
from shop.webhook.delivery import WEBHOOK
from shop.webhook.engines import Engine
from shop.webhook.handovers import handed_over
from shop.webhook.receiver import Receiver, Request
from shop.webhook.results import WAYS, Seen, is_over

LOOK = 5
"""After so many orders each way there is a look at what became of all so far."""
Tell = Callable[[int, int, bool], None]
"""Hears of orders posted, webhooks that are over, and whether the receiver is down."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried."""

    settings: Settings
    engine: Engine
    seed: int
    down_s: int
    """Seconds that the receiver is down."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen of each way, and for how long the receiver was down."""

    seen: dict[str, Seen]
    down_s: float | None
    """Measured; None: it was not."""
    log: str
    """The ends of the logs of the server and the worker."""


def try_both(plan: Plan, folder: Path, tell: Tell) -> Trial:
    """Run the whole trial in a folder.

    Raises:
        ShopError: when the shop does not open, or breaks down.
    """
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(plan.seed))
        variables = {
            "POSTLUDE_FAILURES": f"sqlite:///{folder / 'failures.db'}",
            "POSTLUDE_QUEUE": plan.engine.address,
            "POSTLUDE_QUEUE_THREADS": "0" if plan.engine.workers else "2",
            "SHOP_DOWN": str(plan.down_s),
            "SHOP_RECEIVER": f"http://127.0.0.1:{receiver.port}",
        }
        shop = stack.enter_context(
            open_shop(
                plan.settings, folder, package="shop.webhook", variables=variables
            )
        )
        processes = [shop.server]
        if plan.engine.workers:
            workers = stack.enter_context(Processes(folder))
            processes.append(_start_worker(workers, shop, plan))
        posted = _post_all(plan, shop, receiver, tell)
        _await_webhooks(plan, shop, receiver, posted, processes, tell)
        # What they still have to write down, they write before they end.
        for process in reversed(processes):
            process.stop()
        seen = _seen(folder, receiver, posted, _records(folder))
        down = receiver.downtime
        return Trial(
            seen=seen,
            down_s=None if down is None else down[1] - down[0],
            log="\n\n".join(process.log_tail() for process in processes),
        )


def _start_worker(workers: Processes, shop: Shop, plan: Plan) -> Process:
    app = f"shop.webhook.{plan.settings.framework}_app:app"
    command = [sys.executable, "-m", "postlude", "work", "--app", app]
    return workers.start("worker", command, dict(shop.environment))


def _post_all(plan: Plan, shop: Shop, receiver: Receiver, tell: Tell) -> list[Posted]:
    """Post each order both ways; after a third of them the receiver goes down."""
    posted: list[Posted] = []
    for number in range(plan.settings.orders):
        if number == plan.settings.orders // 3:
            receiver.go_down(plan.down_s)
        for at, way in enumerate(WAYS):
            posted.append(post(shop, way, basket(2 * number + at)))
        if number % LOOK == 0:
            over = _over(shop.journal.parent, receiver, posted)
            tell(len(posted), over, receiver.is_down)
    return posted


def _await_webhooks(
    plan: Plan,
    shop: Shop,
    receiver: Receiver,
    posted: list[Posted],
    processes: list[Process],
    tell: Tell,
) -> None:
    """Wait until nothing more is to come."""

    def over() -> int:
        for process in processes:
            if not process.running:
                raise ShopError(
                    f"the {process.name} of the shop has ended.",
                    "it broke down, or somebody stopped it.",
                    "the log below says more; then run the same command again.",
                    process.log_tail(),
                )
        return _over(shop.journal.parent, receiver, posted)

    wait_until(
        over,
        len(posted),
        plan.settings.wait_s,
        lambda seen: tell(len(posted), seen, receiver.is_down),
    )


def _over(folder: Path, receiver: Receiver, posted: list[Posted]) -> int:
    """Count the webhooks of which nothing more is to come."""
    both = _seen(folder, receiver, posted, {}).values()
    return sum(is_over(seen, order.id) for seen in both for order in seen.posted)


def _seen(
    folder: Path,
    receiver: Receiver,
    posted: list[Posted],
    records: dict[int, FailureRecord],
) -> dict[str, Seen]:
    """Put side by side what was seen of each way so far."""
    runs: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(read(folder / "journal.jsonl"), key=lambda entry: entry.began):
        if entry.step == WEBHOOK:
            runs[entry.order].append(entry)
    requests: defaultdict[int, list[Request]] = defaultdict(list)
    for request in list(receiver.requests):
        requests[request.order].append(request)
    seen = {}
    for way in WAYS:
        orders = [order for order in posted if order.way == way]
        ids = {order.id for order in orders}
        seen[way] = Seen(
            posted=orders,
            runs={one: runs[one] for one in ids},
            requests={one: requests[one] for one in ids},
            records={one: records[one] for one in ids & records.keys()},
            jobs=len(handed_over(folder, way)),
        )
    return seen


def _records(folder: Path) -> dict[int, FailureRecord]:
    """Read the failure store; none was made if nothing failed."""
    path = folder / "failures.db"
    if not path.exists():
        return {}
    store = SQLiteFailureStore(path, create=False)
    try:
        return {_order(record): record for record in store.list()}
    finally:
        store.close()


def _order(record: FailureRecord) -> int:
    number = re.fullmatch(r"\d+", record.arguments.get("order_id", ""))
    return int(number[0]) if number else 0
