"""E2: `postlude failures retry` runs calls again, and says what became of them."""

import signal
import time

import pytest

from postlude.failures import Batch


def test_one_call(project):
    """Retry runs a call with its arguments; what ends well is forgotten (E2)."""
    project.fail("send+push")
    project.heal()
    (send, push) = sorted(project.records, key=lambda r: r.name, reverse=True)
    done = project.postlude("failures", "retry", send.id[:8])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"done  {send.id[:8]}  shop:send  ")
    assert done.stdout.endswith("\n1 done.\n")
    assert project.ran[-1] == "send 17 de"
    assert [r.id for r in project.records] == [push.id]


@pytest.mark.parametrize(
    ("kind", "ran"),
    [
        ("send", ["send 17 de"]),
        ("push", ["push 17"]),
        ("order", ["order 17", "stock 17"]),
    ],
)
def test_every_kind(project, kind, ran):
    """Sync and async calls run again, and what they defer runs too (E2, A7)."""
    project.fail(kind)
    (project.folder / "ran.txt").unlink()
    project.heal()
    assert project.json("failures", "retry", "--all")["counts"]["done"] == 1
    assert project.ran == ran
    assert project.records == []


def test_failing_again(project):
    """What fails again exits with 1 and stays, with one attempt more (E2)."""
    project.fail("send")
    (before,) = project.records
    done = project.postlude("failures", "retry", before.id)
    assert (done.returncode, done.stderr) == (1, "")
    assert "failed again" in done.stdout
    assert "the mail server is down" in done.stdout
    (after,) = project.records
    assert (after.id, after.attempt, after.unit) == (before.id, 2, before.unit)
    assert "1 failed again." in done.stdout


def test_the_processs_own_store_gets_no_copy(project):
    """Whatever store the environment names, a failure stays in its own (E2)."""
    project.fail("send", store="night.db")
    other, night = {"POSTLUDE_FAILURES": "postlude.db"}, ("--store", "night.db")
    (record,) = project.json("failures", "list", *night)["failures"]
    done = project.json("failures", "retry", "--all", *night, code=1, **other)
    assert [r["state"] for r in done["results"]] == ["failed"]
    assert project.records == []
    (listed,) = project.json("failures", "list", *night)["failures"]
    assert (listed["id"], listed["attempt"]) == (record["id"], 2)


def test_json(project):
    """`retry --json` has results and counts, and not what calls print (E2)."""
    project.fail("talk+send+lambda")
    by_name = {r.name.partition(":")[2]: r for r in project.records}
    document = project.postlude("failures", "retry", "--all", "--json")
    assert document.returncode == 1
    assert "talking" in document.stderr
    found = project.json("failures", "retry", "--name", "shop:send", code=1)
    assert set(found) == {"results", "counts", "left"}
    (one,) = found["results"]
    assert one == {
        "id": by_name["send"].id,
        "name": "shop:send",
        "function": "shop:send",
        "state": "failed",
        "text": by_name["send"].exception,
        "seconds": one["seconds"],
        "attempt": 3,
    }
    assert found["counts"] == {
        "done": 0, "failed": 1, "timed_out": 0, "lost": 0, "refused": 0, "gone": 0,
        "queued": 0, "ready": 0,
    }  # fmt: skip


def test_dry_run(project):
    """`--dry-run` says what would run and what cannot, and runs nothing (E2)."""
    project.fail("send+lambda")
    before, ran = project.records, project.ran
    done = project.postlude("failures", "retry", "--all", "--dry-run")
    assert done.returncode == 1
    assert "would run" in done.stdout
    assert "shop:send(order_id=17, lang='de')" in done.stdout
    assert "cannot be run again" in done.stdout
    assert project.records == before
    assert project.ran == ran
    name = "--name", "shop:send"
    assert project.postlude("failures", "retry", *name, "--dry-run").returncode == 0


def test_what_is_to_run_must_be_said(project):
    """Retry without a word runs nothing, and ids do not go with filters (E2)."""
    project.fail("send")
    (record,) = project.records
    for words in ((), (record.id, "--all"), (record.id, "--since", "1h")):
        done = project.postlude("failures", "retry", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage:" in done.stderr
    assert project.records == [record]
    done = project.postlude("failures", "retry", "--state", "lost")
    assert (done.returncode, done.stdout) == (0, "Nothing to run.\n")


def change(project, **fields):
    """Put another record in the place of the only one."""
    store = project.store
    (record,) = store.list()
    store.write(Batch((record._replace(**fields),)))
    store.close()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "has no attribute 'send'"),
        ("def send(order_id, to): ...", "missing a required argument: 'to'"),
        ("send = 1", "send"),
        ("raise KeyError('SECRET_KEY')", "KeyError: 'SECRET_KEY'"),
        ("raise SystemExit", "SystemExit"),
        ("def send(", "SyntaxError"),
    ],
)
def test_a_function_that_changed(project, source, text):
    """No such function, or with other parameters: words, and an exit of 1 (E2)."""
    project.fail("send")
    (record,) = project.records
    (project.folder / "shop.py").write_text(source)
    done = project.postlude("failures", "retry", "--all")
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot be run again" in done.stdout
    assert text in done.stdout
    assert project.records == [record]


def test_a_forbidden_function(project):
    """Whoever can write into the store cannot run what he likes (E2)."""
    project.fail("send")
    change(project, function="os:system", payload='[["touch hacked"],{}]')
    done = project.postlude("failures", "retry", "--all")
    assert done.returncode == 1
    assert "belongs to Python" in done.stdout
    assert not (project.folder / "hacked").exists()


def test_many(project):
    """Of many, those that end well get one line together (E2)."""
    project.fail(*["send"] * 30)
    change_count = len(project.records)
    assert change_count == 30
    project.heal()
    done = project.postlude("failures", "retry", "--all")
    assert done.stdout == "30 done.\n"
    assert project.records == []


def test_killed(project):
    """A retry whose process is killed loses nothing: the record is still there (E2)."""
    project.fail("kill")
    project.heal()
    (record,) = project.records
    done = project.postlude("failures", "retry", "--all")
    assert done.returncode == -signal.SIGKILL
    (left,) = project.records
    assert left.id[:8] == record.id[:8]
    assert (left.attempt, left.payload) == (2, record.payload)
    assert project.json("failures", "list")["failures"][0]["retryable"] is True
    assert project.postlude("failures", "retry", left.id[:8]).returncode == -9
    (left,) = project.records
    assert left.attempt == 3


def begin_to_wait(project):
    """Start a retry, and see its call run."""
    project.fail("wait+send")
    project.heal()
    process = project.start("-m", "postlude", "failures", "retry", "--all")
    deadline = time.monotonic() + 30
    while "waiting" not in project.ran:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_interrupted(project):
    """Ctrl-C lets the call that runs end, and begins no other (E2)."""
    with begin_to_wait(project) as process:
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.readline()
        (project.folder / "go").touch()
        out = process.stdout.read()
    assert process.returncode == 130
    assert out.endswith("1 done, 1 not run.\n")
    assert project.ran[-1] == "waited"
    assert [r.name for r in project.records] == ["shop:send"]


def test_interrupted_twice(project):
    """A second Ctrl-C ends at once; the record of the call that ran is there (E2)."""
    with begin_to_wait(project) as process:
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130
    assert {(r.name, r.attempt) for r in project.records} == {
        ("shop:wait", 2),
        ("shop:send", 1),
    }


def test_two_people(project):
    """What somebody runs again now is run by nobody else (E2)."""
    with begin_to_wait(project) as process:
        second = project.postlude("failures", "retry", "--name", "shop:wait")
        assert second.returncode == 1
        assert f"process {process.pid} on" in second.stdout
        listed = project.json("failures", "list", "--name", "shop:wait")["failures"]
        assert "is running it again now" in listed[0]["refusal"]
        (project.folder / "go").touch()
        assert process.stdout.read().endswith("\n2 done.\n")
    assert process.returncode == 0
    assert project.ran.count("waiting") == 1
    assert project.records == []
