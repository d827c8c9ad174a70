"""One run: the orders both ways, then the table."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from shop.report import write_numbers
from shop.results import versions_of
from shop.settings import Settings, number
from shop.terminal import make_progress
from shop.webhook.engines import EMBEDDED, engine_named, open_engine
from shop.webhook.results import Counts, counts, lost, problems, reasons
from shop.webhook.table import introduce, seconds_of, show
from shop.webhook.trial import Plan, Trial, try_both

USUAL = {"ORDERS": "200", "OWN_MS": "40"}
"""What this demo has instead of the usual 20 and 80."""
SEED = 32
"""With this one no order is answered with 500 three times in a row.

Three retries make losses rare, and not impossible: with one in ten failing, one in a
thousand of those that met the downtime has no luck. Another seed may show that.
"""
USAGE = """\
Sends a webhook for each order to a receiver that fails now and then, without and with
.retry(3), and counts what is lost.

usage: make demo-webhook       (or: PYTHONPATH=examples python -m shop.webhook)
       FRAMEWORK=flask ORDERS=40 make demo-webhook
       ENGINE=celery make demo-webhook

Settings are environment variables:

  FRAMEWORK     fastapi, flask or django                               [fastapi]
  ORDERS        orders to post each way, 1 to 1000                         [200]
  ENGINE        sqlite (embedded), absurd, celery, dbos, dramatiq,
                huey, procrastinate, rq or taskiq; celery+redis and
                its like                                                [sqlite]
  DOWN_S        seconds that the receiver is down                            [5]
  SEED          of the receiver's bad luck                                  [32]
  PORT          port of the shop, 0 picks a free one                         [0]
  REPORT_DIR    where webhook.json goes                             [build/demo]
  WAIT_S        longest wait for the next webhook, in seconds               [60]
  OWN_MS        the order's own work, in milliseconds                       [40]

RabbitMQ and Redis are those that AMQP_URL and REDIS_URL name, else those of this
machine; PostgreSQL is found as by make demo-rollback. The demo has a queue of its own
there, and deletes it at the end.

Exit status: 0 all went as it must, 1 a webhook was lost with .retry(3), or without it
and without a record, or something did not start, 2 bad setting, 130 stopped by Ctrl-C.
"""


def run(settings: Settings, console: Console) -> int:
    """Run the demo; return its exit status.

    Raises:
        BadSettingError: for an engine that the demo does not know.
        ShopError: when the shop or the engine does not open.
        StoppedError: when a signal ends it.
    """
    scheme = engine_named(os.environ.get("ENGINE") or EMBEDDED)
    seed = number(os.environ, "SEED", SEED, 0, 1_000_000)
    down_s = number(os.environ, "DOWN_S", 5, 1, 60)
    with (
        TemporaryDirectory(prefix="postlude-shop-") as folder,
        open_engine(scheme, Path(folder)) as engine,
    ):
        plan = Plan(settings, engine, seed, down_s)
        introduce(console, plan)
        trial = _try(plan, Path(folder), console)
    numbers = {way: counts(seen) for way, seen in trial.seen.items()}
    wrong = [problem for seen in trial.seen.values() for problem in problems(seen)]
    show(console, trial, numbers, wrong)
    if wrong:
        console.print(f"\n{trial.log}\n", markup=False, soft_wrap=True)
    path = write(plan, trial, numbers, wrong)
    console.print(f"Numbers: {path}", soft_wrap=True)
    return 1 if wrong else 0


def _try(plan: Plan, folder: Path, console: Console) -> Trial:
    """Run the trial, and show how far it is."""
    total = 2 * plan.settings.orders
    seconds = seconds_of(plan.settings, plan.down_s)
    with make_progress(console, seconds, width=24) as progress:
        orders = progress.add_task("orders", total=total)
        webhooks = progress.add_task("webhooks", total=total)

        def tell(posted: int, over: int, is_down: bool) -> None:
            progress.update(orders, completed=posted)
            words = "webhooks (receiver down)" if is_down else "webhooks"
            progress.update(webhooks, completed=over, description=words)

        trial = try_both(plan, folder, tell)
    if console.is_terminal:
        console.print()
    return trial


def write(
    plan: Plan, trial: Trial, numbers: dict[str, Counts], wrong: list[str]
) -> Path:
    """Write webhook.json; return its path."""
    report: dict[str, Any] = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "framework": plan.settings.framework,
        "engine": plan.engine.title,
        "versions": versions_of(plan.settings.framework, plan.engine.package),
        "seed": plan.seed,
        "down_s": trial.down_s,
        "problems": wrong,
        "counts": {way: asdict(one) for way, one in numbers.items()},
        "records": {way: dict(reasons(seen)) for way, seen in trial.seen.items()},
        "lost": {way: lost(seen) for way, seen in trial.seen.items()},
    }
    return write_numbers(plan.settings.report_dir / "webhook.json", report)
