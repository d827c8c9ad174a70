import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shop import postgresql
from shop.journal import EFFECTS
from shop.rollback.arms import Ordered, problems
from shop.rollback.databases import KINDS as DATABASES
from shop.rollback.databases import SQLITE, open_databases, wanted
from shop.rollback.notes import Drop
from shop.rollback.table import show
from shop.settings import BadSettingError
from shop.terminal import make_console

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALL = os.environ.get("TEST_SERVICES") == "all"
KINDS = {"sqlite": "SQLite"} | ({"postgresql": "PostgreSQL"} if ALL else {})
QUICK = dict.fromkeys(("MAIL_MS", "EVENT_MS", "INVENTORY_MS", "CACHE_MS"), "10")


def start(tmp_path, **settings):
    """Start the demo with latencies that a test can wait for."""
    return subprocess.Popen(
        [sys.executable, "-m", "shop.rollback"],
        env={
            **os.environ,
            **QUICK,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")])
            ),
            "REPORT_DIR": str(tmp_path / "report"),
            "DATABASES": ",".join(KINDS),
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def numbers_of(tmp_path):
    """Return what a run wrote down."""
    return json.loads((tmp_path / "report" / "rollback.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "framework",
    [
        "fastapi",
        pytest.param("flask", marks=pytest.mark.wide),
        pytest.param("django", marks=pytest.mark.wide),
    ],
)
def test_a_rollback_under_a_200(tmp_path, framework):
    """What rolls back under a 200 has four effects without gates, none with (C2)."""
    demo = start(tmp_path, FRAMEWORK=framework)
    out, errors = demo.communicate()
    assert demo.returncode == 0, out + errors
    assert errors == ""
    assert "with gates none." in out
    orders = numbers_of(tmp_path)["orders"]
    assert [order["status"] for order in orders] == [200] * 4 * len(KINDS)
    for at, title in enumerate(KINDS.values()):
        of_one = orders[4 * at : 4 * at + 4]
        assert all(order["database"].startswith(title) for order in of_one)
        assert [
            (order["gates"], order["stored"], sum(order["arrived"].values()))
            for order in of_one
        ] == [(False, True, 4), (False, False, 4), (True, True, 4), (True, False, 0)]
        *others, dropped = [order["dropped"] for order in of_one]
        assert others == [[], [], []]
        assert [drop["reason"] for drop in dropped] == ["rollback"] * 4
        (database,) = {drop["database"] for drop in dropped}
        assert "@" not in database, "the name of a user is nobody's business"
        scheme = f"{title.lower()}:///" if title == "SQLite" else f"{title.lower()}://"
        assert database.startswith("default" if framework == "django" else scheme)
        assert all(f"{framework}_app.py:" in drop["place"] for drop in dropped)


@pytest.fixture
def no_server(monkeypatch):
    """Send whoever looks for PostgreSQL to a port where nobody listens."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PGHOST", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(deaf.getsockname()[1]))
        yield


def test_a_missing_server_is_said(no_server, capsys):
    """Where no PostgreSQL can be had, SQLite is tried, and three beats say the rest."""
    with open_databases(wanted({}) or DATABASES, required=False) as databases:
        assert databases.found == [SQLITE]
    happened, cause, fix, _ = databases.missing.splitlines()
    assert happened.startswith("error: no PostgreSQL for the demo: ")
    assert cause == "cause: it does not run, or PGHOST is not what it must be."
    assert fix.startswith("fix:   install it")
    show(make_console(), RIGHT, [], databases.missing)
    assert databases.missing in capsys.readouterr().out


def test_a_missing_server_that_was_named_is_an_error(tmp_path, no_server):
    """A database that DATABASES names must be there: status 1, and nothing is tried."""
    demo = start(tmp_path, DATABASES="sqlite,postgresql")
    out, errors = demo.communicate()
    assert demo.returncode == 1
    assert errors.startswith("\nerror: no PostgreSQL for the demo: ")
    assert "Posting" not in out


def test_ctrl_c_ends_everything(tmp_path):
    """Ctrl-C while a shop is open ends it and its server, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    demo = start(tmp_path, PORT=str(port), MAIL_MS="10000")
    assert demo.stdout is not None
    while not demo.stdout.readline().startswith("Posting"):
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate()
    assert (demo.returncode, errors) == (130, "\nStopped; the shop is closed.\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


DROP = Drop("send_confirmation", "rollback", "sqlite:///shop.db", "app.py:1 in order")
NONE, ONE = dict.fromkeys(EFFECTS, 0), dict.fromkeys(EFFECTS, 1)
STORED = Ordered("SQLite", False, "commits", 200, True, ONE, [])
PHANTOM = replace(STORED, transaction="rolls back", stored=False)
GATED = replace(PHANTOM, gates=True, arrived=NONE, dropped=[DROP] * 4)
RIGHT = [STORED, PHANTOM, replace(STORED, gates=True), GATED]


@pytest.mark.parametrize("order", RIGHT, ids=str)
def test_what_must_be_is_no_problem(order):
    """Four side effects run, but for a rollback with gates: then none does."""
    assert problems(order) == []


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (replace(GATED, status=500), "was answered with 500, not with 200"),
        (replace(GATED, stored=True), "is stored"),
        (replace(STORED, stored=False), "is not stored"),
        (replace(PHANTOM, arrived=NONE), "has 0 of 4 side effects"),
        (replace(GATED, arrived={**NONE, EFFECTS[3]: 1}), "has 1 of 0 side effects"),
        (
            replace(STORED, arrived={**ONE, EFFECTS[0]: 2, EFFECTS[1]: 0}),
            "has 4 of 4 side effects, not one of each",
        ),
        (replace(GATED, dropped=[DROP] * 3), "has 3 of 4 calls dropped"),
        (replace(STORED, dropped=[DROP]), "has 1 of 0 calls dropped"),
        (
            replace(GATED, dropped=[DROP] * 3 + [replace(DROP, reason="outcome")]),
            "has calls dropped for another reason than a rollback",
        ),
        (
            replace(GATED, dropped=[DROP] * 3 + [replace(DROP, database=None)]),
            "has drops that name no database",
        ),
    ],
)
def test_what_must_not_be_is_a_problem(order, said):
    """An order that is not as it must be is named with what is wrong, and no more."""
    (problem,) = problems(order)
    assert problem.startswith(f"{order}: it {said}")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_is_wide_enough(width, capsys, monkeypatch):
    """No line of a table is wider than the terminal, and none is cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    show(make_console(), RIGHT, [], None)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    assert "…" not in shown
    assert "without   rolls back      200         no    4 of 4         –" in shown


def test_an_unknown_database_is_an_error():
    """A database that the demo does not know is refused, whatever stands beside it."""
    assert wanted({}) == wanted({"DATABASES": ""}) == ()
    assert wanted({"DATABASES": "SQLite,postgresql"}) == ("sqlite", "postgresql")
    with pytest.raises(BadSettingError, match="DATABASES=mysql is not one of"):
        wanted({"DATABASES": "sqlite,mysql"})


def test_the_newest_programs_start_a_server(tmp_path, monkeypatch):
    """Of several installed PostgreSQLs the newest is taken: 17 is more than 9.6."""
    monkeypatch.setattr(postgresql.shutil, "which", lambda _: None)
    for version in ("9.6", "17", "16"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        if version != "16":
            (folder / "initdb").touch()
    monkeypatch.setattr(postgresql, "PLACES", (f"{tmp_path}/*/bin".lstrip("/"),))
    assert postgresql._programs() == tmp_path / "17" / "bin"
    monkeypatch.setattr(postgresql, "PLACES", ())
    assert postgresql._programs() is None
