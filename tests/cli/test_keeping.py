"""E2: `forget`, `flush` and `prune` take records out."""

import os
import pty
import subprocess
import sys
import time

from postlude.failures import Batch


def test_forget(project):
    """Forget takes ids, or what records are (E2)."""
    project.fail("send+push+lambda")
    send, push, _ = project.records
    done = project.postlude("failures", "forget", send.id[:8], push.id[:9], send.id)
    assert (done.returncode, done.stdout) == (0, "2 failures forgotten.\n")
    assert len(project.records) == 1
    assert project.json("failures", "forget", "--since", "1h") == {"forgotten": 1}
    assert project.records == []
    assert project.postlude("failures", "forget").returncode == 2


def test_one_wrong_id_and_nothing_is_forgotten(project):
    """All ids are looked at before anything is done (E2)."""
    project.fail("send+push")
    (send, _) = project.records
    assert project.postlude("failures", "forget", send.id, "zz").returncode == 2
    assert len(project.records) == 2


def test_flush(project):
    """Flush takes out all records, more than a page of them, and no numbers (E2)."""
    project.fail("send")
    store = project.store
    (one,) = store.list()
    more = [one._replace(id=f"{i:032}") for i in range(2_500)]
    store.write(Batch(tuple(more)))
    store.close()
    done = project.postlude("failures", "flush")
    assert (done.returncode, done.stdout) == (2, "")
    assert "2,501 failures" in done.stderr
    done = project.postlude("failures", "flush", "--yes")
    assert (done.returncode, done.stdout) == (0, "2,501 failures forgotten.\n")
    assert project.records == []
    assert project.json("stats")["functions"] != []
    assert project.json("failures", "flush") == {"forgotten": 0}


def test_flush_asks(project):
    """At a terminal, flush asks before it does anything (E2)."""
    project.fail("send")
    for answer, left in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "postlude", "failures", "flush"],
            cwd=project.folder,
            env=project.environment,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(theirs)
            os.write(ours, answer)
            out, err = process.communicate(timeout=30)
        os.close(ours)
        assert b"Forget 1 failure?" in err
        assert len(project.records) == left
        assert process.returncode == left
        assert out.strip() == (b"" if left else b"1 failure forgotten.")


def test_prune(project):
    """Prune takes out what is old, or what is too many (E2)."""
    project.fail("send")
    store = project.store
    (one,) = store.list()
    day = 86_400
    records = [
        one._replace(id=f"{i:032}", ended=time.time() - i * day) for i in range(9)
    ]
    store.write(Batch(tuple(records)))
    store.close()
    assert project.json("failures", "prune", "--older", "7d") == {"pruned": 2}
    done = project.postlude("failures", "prune", "--keep", "3")
    assert (done.returncode, done.stdout) == (0, "5 failures pruned.\n")
    assert len(project.records) == 3
    assert project.json("stats")["functions"] != []
    assert project.json("failures", "prune", "--keep", "0") == {"pruned": 3}


def test_prune_must_be_told_what(project):
    """Prune without a word, or with a wrong one, does nothing (E2)."""
    project.fail("send")
    for words in ((), ("--older", "7x"), ("--older", "-1d"), ("--keep", "-1")):
        done = project.postlude("failures", "prune", *words)
        assert (done.returncode, done.stdout) == (2, "")
    assert len(project.records) == 1
