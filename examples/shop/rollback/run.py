"""One run: each order on each database, without and with gates; then the table."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from shop.report import write_numbers
from shop.results import versions_of
from shop.rollback.arms import Ordered, order_both, problems
from shop.rollback.databases import KINDS, Databases, open_databases, wanted
from shop.rollback.table import SECONDS, introduce, show
from shop.settings import Settings
from shop.terminal import make_progress

USAGE = """\
Posts orders whose transaction rolls back under a 200, and counts what follows.

usage: make demo-rollback      (or: PYTHONPATH=examples python -m shop.rollback)
       FRAMEWORK=flask make demo-rollback
       DATABASES=sqlite make demo-rollback

Settings are environment variables:

  FRAMEWORK     fastapi, flask or django                               [fastapi]
  DATABASES     sqlite, postgresql or both; those named must be there
                                          [sqlite, and postgresql if it is there]
  PORT          port of the shop, 0 picks a free one                         [0]
  REPORT_DIR    where rollback.json goes                            [build/demo]
  WAIT_S        longest wait for the last side effect, in seconds           [60]
  MAIL_MS, EVENT_MS, INVENTORY_MS, CACHE_MS           as make demo has them

PostgreSQL is the server that PGHOST, PGPORT, PGUSER and PGPASSWORD name, else the one
on port 5432, else one that the demo starts by itself where initdb is installed.

Exit status: 0 all went as it must (PostgreSQL may be missing, and that is said),
1 something did not, or a database that DATABASES names is missing, 2 bad setting,
130 stopped by Ctrl-C.
"""


def run(settings: Settings, console: Console) -> int:
    """Run the demo; return its exit status.

    Raises:
        BadSettingError: for a database that the demo does not know.
        ShopError: when a shop or a database that is required does not open.
        StoppedError: when a signal ends it.
    """
    named = wanted(os.environ)
    introduce(console, settings)
    with open_databases(named or KINDS, required=bool(named)) as databases:
        ordered: list[Ordered] = []
        seconds = SECONDS * len(databases.found)
        with make_progress(console, seconds, width=8) as progress:
            task = progress.add_task("orders", total=4 * len(databases.found))
            for database, gates in product(databases.found, (False, True)):
                ordered += order_both(settings, database, gates)
                progress.update(task, completed=len(ordered))
    wrong = [problem for order in ordered for problem in problems(order)]
    show(console, ordered, wrong, databases.missing)
    path = write(settings, databases, ordered, wrong)
    console.print(f"Numbers: {path}", soft_wrap=True)
    return 1 if wrong else 0


def write(
    settings: Settings, databases: Databases, ordered: list[Ordered], wrong: list[str]
) -> Path:
    """Write rollback.json; return its path."""
    numbers: dict[str, Any] = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "framework": settings.framework,
        "versions": versions_of(settings.framework),
        "missing": databases.missing,
        "problems": wrong,
        "orders": [asdict(order) for order in ordered],
    }
    return write_numbers(settings.report_dir / "rollback.json", numbers)
