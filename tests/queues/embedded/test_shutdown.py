import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from killing.stand import free_port
from queue_stage import PATIENCE, rows, until

from postlude.failures.sqlite import SQLiteFailureStore

HERE = Path(__file__).parent
APP = """
import os, time
from pathlib import Path
from postlude import DeferScope, defer
from postlude.asgi import PostludeMiddleware
from postlude.wsgi import PostludeMiddleware as WSGI
import exit_jobs as jobs

def work(path):
    if path == "/two":
        defer(jobs.stay, "running")
        defer(jobs.note, "plain")
        defer(jobs.note, "retry").retry(2)
        defer(jobs.note, "durable").durable()
        defer(lambda: None).named("a lambda")
    if path == "/bad":
        defer(jobs.stay, "cleaner").always()
        defer(jobs.note, "of a failed unit")
        defer(jobs.note, "retry of a failed unit").retry(2)
        defer(jobs.note, "durable of a failed unit").durable()

async def site(scope, receive, send):
    if scope["type"] == "lifespan":
        while (m := await receive())["type"] != "lifespan.shutdown":
            await send({"type": m["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    work(scope["path"])
    status = 500 if scope["path"] == "/bad" else 200
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

def wsgi_site(environ, start_response):
    work(environ["PATH_INFO"])
    bad = environ["PATH_INFO"] == "/bad"
    start_response("500 Bad" if bad else "200 OK", [("Content-Length", "2")])
    return [b"ok"]

app, wsgi = PostludeMiddleware(site), WSGI(wsgi_site)
"""
JOBS = """
import os, time
from pathlib import Path

def note(name):
    with open("ledger", "a") as ledger:
        ledger.write(name + "\\n")

def stay(name):
    note(name)
    while not Path("gate").exists():
        time.sleep(0.01)
"""
SCRIPT = """
import exit_app, threading
from postlude import DeferScope, _background
from postlude._background import background

scope = DeferScope()
scope.runner = background
from postlude._scope import current
token = current.set(scope)
exit_app.work("/two")
current.reset(token)
scope.end()
"""
SERVERS = {
    "uvicorn": ("uvicorn", "exit_app:app", "--no-access-log", "--port"),
    "gunicorn": (
        *("gunicorn", "exit_app:wsgi", "--worker-class=gthread", "--threads=4"),
        *("--preload", "--bind"),
    ),
}


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an application and its functions."""
    (tmp_path / "exit_app.py").write_text(APP)
    (tmp_path / "exit_jobs.py").write_text(JOBS)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def start(folder: Path, *command: str, **settings: str) -> subprocess.Popen[bytes]:
    """Start a process of the project."""
    own = {f"POSTLUDE_{key.upper()}": value for key, value in settings.items()}
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder),
        "POSTLUDE_QUEUE": f"sqlite:///{folder / 'queue.db'}",
        "POSTLUDE_QUEUE_THREADS": "0",
        "POSTLUDE_FAILURES": f"sqlite:///{folder / 'failures.db'}",
        "POSTLUDE_GRACE": "0.3",
        **own,
    }
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            (sys.executable, *command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def serve(folder: Path, server: str, port: int) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it answers."""
    where = str(port) if server == "uvicorn" else f"127.0.0.1:{port}"
    process = start(folder, "-m", *SERVERS[server], where)
    until(lambda: get(port, "/") == 200)
    return process


def get(port: int, path: str) -> int | None:
    """Ask for a path, and give the status; None if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def ledger(folder: Path) -> list[str]:
    """Give what has run."""
    path = folder / "ledger"
    return path.read_text().splitlines() if path.exists() else []


def lost(folder: Path) -> dict[str, str]:
    """Give the names of calls that were recorded, with their states."""
    store = SQLiteFailureStore(folder / "failures.db")
    try:
        return {record.name: record.state for record in store.list()}
    finally:
        store.close()


@pytest.mark.parametrize("server", SERVERS)
def test_what_the_grace_is_too_short_for(folder: Path, port, server) -> None:
    """SIGTERM: what can be carried is handed over, the rest is lost on record (D7)."""
    process = serve(folder, server, port)
    assert get(port, "/two") == 200
    until(lambda: ledger(folder) == ["running"])
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    names = sorted(name for _, name in rows(folder / "queue.db"))
    assert names == ["durable", "plain", "retry", "running"]
    assert lost(folder) == {"a lambda": "lost"}
    (folder / "gate").touch()
    worker = start(folder, "-m", "postlude", "work")
    until(lambda: {"durable", "plain", "retry"} <= set(ledger(folder)))
    until(lambda: ledger(folder).count("running") == 2)
    until(lambda: rows(folder / "queue.db") == [])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0


@pytest.mark.parametrize("server", SERVERS)
def test_calls_of_failed_units_stay_dropped(folder: Path, port, server) -> None:
    """SIGTERM: what was not to run is neither handed over nor lost (C1)."""
    process = serve(folder, server, port)
    assert get(port, "/bad") == 500
    until(lambda: ledger(folder) == ["cleaner"])
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert [name for _, name in rows(folder / "queue.db")] == ["cleaner"]
    assert lost(folder) == {}


def test_script_that_ends(folder: Path) -> None:
    """A script hands over what its grace is too short for (D7)."""
    process = start(folder, "script.py")
    assert process.wait(PATIENCE) == 0
    names = sorted(name for _, name in rows(folder / "queue.db"))
    assert names == ["durable", "plain", "retry", "running"]
    assert lost(folder) == {"a lambda": "lost"}


def test_queue_that_is_down_at_the_end(folder: Path) -> None:
    """What cannot be handed over at the end is lost on record (D7)."""
    process = start(folder, "script.py", queue=f"sqlite:///{folder}/gone/queue.db")
    assert process.wait(PATIENCE) == 0
    names = ["exit_jobs:note", "exit_jobs:stay", "a lambda"]
    assert lost(folder) == dict.fromkeys(names, "lost")
    text = (folder / "log").read_text()
    assert text.count("was lost") == 5
