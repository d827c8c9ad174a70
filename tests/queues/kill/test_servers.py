"""Durable calls under each server's and framework's own ways, killed for real."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing.engine import Engine
from killing.stand import UVICORN, Process, Stand, stand
from test_embedded import place

ENGINE = Engine("sqlite", place, leases=True, recovery=3.0, embedded=True)
GUNICORN = ("-m", "gunicorn", "--worker-class=gthread", "--threads=4")
BIND = "--bind=127.0.0.1:{port}"
SERVERS = {
    "gunicorn flask": (*GUNICORN, BIND, "killing.flask_site:site"),
    "gunicorn django autocommit": (*GUNICORN, BIND, "killing.django_site:wsgi"),
    "gunicorn django atomic": (*GUNICORN, BIND, "killing.atomic_site:wsgi"),
    "uvicorn django autocommit": tuple(
        w.replace(".app:app", ".django_site:asgi") for w in UVICORN
    ),
    "uvicorn django atomic": tuple(
        word.replace(".app:app", ".atomic_site:asgi") for word in UVICORN
    ),
    "hypercorn trio": ("-m", "hypercorn", "-k", "trio", BIND, "killing.app:app"),
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Stand]:
    """A queue in a file, with the processes that the test starts."""
    with stand(ENGINE, tmp_path) as made:
        yield made


each_server = pytest.mark.parametrize(
    "server",
    [
        pytest.param(name, marks=pytest.mark.wide if "autocommit" in name else ())
        for name in SERVERS
    ],
)


@pytest.mark.timeout(180)
@each_server
def test_killed_before_a_call_in_a_call_and_in_a_request(
    made: Stand, server: str
) -> None:
    """F2: what was acknowledged runs, begun or not; what was not, never was there."""
    web = made.web(SERVERS[server])
    assert made.post(web, "durable", "note", "first")
    made.until(lambda: "first" in made.done())
    assert made.post(web, "durable", "wait", "long")
    made.running("long")
    assert made.post(web, "behind", "note", "waited")
    made.running("before")
    unanswered = threading.Thread(target=ask_and_wait, args=(made, web))
    unanswered.start()
    made.running("request")
    web.kill()
    unanswered.join()
    made.gate.touch()
    # Its workers begin with its first request, unless the server tells when it starts.
    assert made.post(made.replace(web), "durable", "note", "second")
    made.until(lambda: "long" in made.done())
    begun = made.lines("began", "long")
    assert [line.attempt for line in begun] == list(range(1, len(begun) + 1))
    assert len(begun) > 1
    assert len({line.call for line in made.lines(name="long")}) == 1
    made.until(lambda: made.done() == {"first", "long", "waited", "second"})
    made.until(lambda: waiting(made) == 0)
    assert made.records() == []


@each_server
def test_an_engine_that_is_down_is_an_error_answer(made: Stand, server: str) -> None:
    """F1, F2: nothing that could not be written is acknowledged, nor does it run."""
    nowhere = f"sqlite:///{made.folder / 'gone' / 'queue.db'}"
    web = made.web(SERVERS[server], queue=nowhere)
    assert not made.post(web, "durable", "note", "refused")
    assert made.post(web, "retry", "note", "first")
    made.until(lambda: made.done() == {"first"})


def ask_and_wait(made: Stand, web: Process) -> None:
    """Ask for a call, and get no answer."""
    assert not made.post(web, "durable", "note", "unanswered", wait=1)


def waiting(made: Stand) -> int:
    """Count the jobs in the file."""
    database = sqlite3.connect(made.folder / "queue" / "queue.db")
    try:
        return database.execute("select count(*) from t_postlude").fetchone()[0]
    finally:
        database.close()
