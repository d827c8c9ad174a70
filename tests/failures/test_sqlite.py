"""E2, E3: one SQLite file, many processes, and everything that can happen to a file."""

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import postlude
from postlude import DeferScope, _reporting, defer
from postlude.exceptions import StoreError
from postlude.failures import Batch, Tally, _sqlite_file, _writer
from postlude.failures._opening import open_store
from postlude.failures.sqlite import SQLiteFailureStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the file system is POSIX's")


def fail(number=0):
    """Raise what these tests look for."""
    raise ValueError(number)


def defer_failing(count=1):
    """Let calls fail, each in a unit of its own."""
    for number in range(count):
        with DeferScope():
            defer(fail, number)


def complaints(logged):
    """Give what was said of the store, and not of calls."""
    return [text for text in logged.texts(30) if "failure store" in text]


@pytest.fixture
def file(tmp_path):
    """Where the store is."""
    return tmp_path / "postlude.db"


@pytest.fixture
def impatient(monkeypatch):
    """Try a store that is down again after some milliseconds."""
    monkeypatch.setattr(_writer, "_PAUSE", 0.01)
    monkeypatch.setattr(_writer, "_LONGEST", 0.02)
    monkeypatch.setattr(_writer, "_PULSE", 0.05)
    monkeypatch.setattr(_writer, "_SETTLED", 0.5)


@pytest.fixture
def configured(file, impatient):
    """The store of this process is that file."""
    postlude.configure(failures=f"sqlite:///{file}")
    return postlude.failure_store()


def count(file):
    """Count the records as a process does that has nothing to do with this one."""
    store = SQLiteFailureStore(file, create=False)
    try:
        return store.count()
    finally:
        store.close()


# -- many processes ------------------------------------------------------------

PROCESSES, THREADS, EACH = 8, 4, 3_125
CROWD = """
    import json, logging, sys, threading, time
    import postlude
    from postlude import _reporting
    from postlude.failures import FailureRecord

    said = []

    class Listener(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    logging.getLogger("postlude").addHandler(Listener())
    file, number, threads, each = sys.argv[1], *map(int, sys.argv[2:])
    postlude.configure(failures=f"sqlite:///{file}")
    postlude.failure_store()
    one = FailureRecord(
        "", "mail", "shop:mail", {"n": "1"}, "failed", {"route": "/"}, "shop.py:7",
        "ValueError()", "Traceback" * 50, None, time.time(),
    )
    print("ready", flush=True)
    sys.stdin.readline()

    def work(thread):
        for n in range(each):
            _reporting._writer.failed(one._replace(id=f"{number}-{thread}-{n}"))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps([_reporting.flush(60), said]))
"""


def start_all(script, file, processes, *numbers):
    """Start processes that write, once all of them are there."""
    program = script.folder / "crowd.py"
    lines = [line.removeprefix("    ") for line in CROWD.splitlines()]
    program.write_text("\n".join(lines))
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", program, file, str(n), *map(str, numbers)],
            env=script.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    return started


@pytest.mark.wide
def test_many_processes_and_threads_write_to_one_file(script, file):
    """100,000 records of 8 processes with 4 threads each: none is lost, none is there
    twice, and nobody hears of a locked file (E2, E3).
    """
    started = start_all(script, file, PROCESSES, THREADS, EACH)
    for process in started:
        said, _ = process.communicate(timeout=60)
        assert json.loads(said) == [True, []]
        assert process.returncode == 0
    store = SQLiteFailureStore(file, create=False)
    every = {f"{p}-{t}-{n}" for p in range(8) for t in range(4) for n in range(EACH)}
    assert {record.id for record in store.list()} == every
    assert store.count() == len(every) == 100_000
    store.close()


def test_many_processes_make_the_file_at_the_same_time(script, file):
    """Whoever comes first makes the tables, and nobody is in the way (E2)."""
    for attempt in range(3):
        here = file.with_name(f"{attempt}.db")
        started = start_all(script, here, 8, 1, 1)
        told = [json.loads(process.communicate(timeout=60)[0]) for process in started]
        assert told == [[True, []]] * 8
        assert count(here) == 8


# -- killed --------------------------------------------------------------------

DOOMED = """
    import sys
    from postlude.failures import Batch, FailureRecord
    from postlude.failures.sqlite import SQLiteFailureStore

    store = SQLiteFailureStore(sys.argv[1])
    one = FailureRecord(
        "", "mail", "shop:mail", {}, "failed", {}, "", None, "x" * 5_000, None, 2.5
    )
    n = 0
    while True:
        n += 1
        store.write(Batch(tuple(one._replace(id=f"{n}-{i}") for i in range(20))))
        print(n, flush=True)
"""


def test_a_process_killed_while_it_writes_loses_nothing_it_was_told_of(script, file):
    """After SIGKILL at any moment the file opens, all that was acknowledged is there,
    and of a batch all or nothing (E2).
    """
    for moment in (1, 2, 3, 5, 8, 13, 21, 34):
        file.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        process = script.start(DOOMED, str(file))
        for _ in range(moment):
            told = int(process.stdout.readline())
        time.sleep(0.0007 * moment)  # another moment of the batch each time
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()  # what lies in its buffer, too
        process.communicate()
        told = int(rest[-1]) if rest else told
        store = SQLiteFailureStore(file)
        batches = [record.id.partition("-")[0] for record in store.list()]
        assert len(batches) in {told * 20, (told + 1) * 20}
        assert {batches.count(one) for one in set(batches)} == {20}
        store.write(Batch((), (Tally(1, "ended", "", "", "", 1, 0.0),)))
        store.close()
        with sqlite3.connect(file) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


def test_others_go_on_when_one_is_killed(script, file, configured):
    """A process that dies in the middle of a transaction holds up nobody (E3)."""
    process = script.start(DOOMED, str(file))
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    defer_failing(3)
    assert _reporting.flush(20)
    assert len(list(configured.list(name="test_sqlite:fail"))) in {0, 3}
    assert configured.count() % 20 == 3


# -- what can happen to a file -------------------------------------------------


def test_a_full_disk_makes_records_wait(configured, file, logged):
    """On a full disk calls run, one line says so, and the records come later (E3)."""
    defer_failing()
    assert _reporting.flush(20)
    size = max(part.stat().st_size for part in file.parent.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        defer_failing(500)
        logged.wait_for("cannot be written to")
        assert not _reporting.flush(20)
        defer_failing(100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(complaints(logged)) == 1
    assert "Usually its disk is full" in complaints(logged)[0]
    logged.wait_for("works again")
    assert _reporting.flush(20)
    assert count(file) == 601


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB, where mounting is allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    try:
        allowed = subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        allowed = 1
    yield None if allowed else place
    postlude.failure_store().close()
    if not allowed:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # noqa: S607 - where it is differs


def test_a_disk_that_is_really_full(small_disk, impatient, logged):
    """The same with a small disk of its own, where there can be one (E3)."""
    if small_disk is None:
        return  # the limit above is the same for SQLite
    file = small_disk / "postlude.db"
    ballast = small_disk / "ballast"
    postlude.configure(failures=str(file))
    defer_failing()
    assert _reporting.flush(20)
    with ballast.open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while rest.write(b"x" * 4096):
            pass
    defer_failing(100)
    logged.wait_for("cannot be written to")
    assert not _reporting.flush(20)
    assert len(complaints(logged)) == 1
    assert "disk is full" in complaints(logged)[0]
    ballast.unlink()
    logged.wait_for("works again")
    assert _reporting.flush(20)
    assert count(file) == 101


READ_ONLY = """
    import logging, os, sys
    import postlude
    from postlude import DeferScope, _codec, _reporting, defer
    from postlude.failures import _writer, sqlite
    _writer._PAUSE, _writer._LONGEST = 0.01, 0.02
    said = []

    class Listener(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    logging.getLogger("postlude").addHandler(Listener())
    file = sys.argv[1]

    def fail():
        raise ValueError

    def some():
        with DeferScope():
            defer(fail)

    some()  # and so load all that is loaded late: not everybody may read it
    import urllib.parse  # so does pathlib with a file's URI, from Python 3.13 on
    if os.getuid() == 0:
        os.chown(os.path.dirname(file), 65534, 65534)
        os.chown(file, 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)  # root may write to everything
    os.chmod(file, 0o400)
    postlude.configure(failures=file)
    some()
    print(_reporting.flush(20))
    some()
    print(_reporting.flush(20))
    print([text for text in said if "store" in text])
    os.chmod(file, 0o600)
    while not _reporting.flush(20):
        pass
    print(postlude.failure_store().count())
    os.seteuid(os.getuid())  # for whoever writes at the end, as coverage does
    os.setegid(os.getgid())
"""


def test_a_read_only_file_makes_records_wait(script, file):
    """With a file that may only be read calls run, and their records wait (E3)."""
    store = SQLiteFailureStore(file)
    store.count()
    store.close()
    for folder in (file.parent, *file.parent.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):  # noqa: S108 - pytest's own folders are private
            folder.chmod(0o755)
    ran = script.run(READ_ONLY, str(file))
    assert ran.stderr == ""
    first, second, said, kept = ran.stdout.splitlines()
    assert (first, second, kept) == ("False", "False", "2")
    assert said.count("cannot be written to") == 1
    assert said.count("failure store") == 2  # the store's own words are in the line
    assert "made read-only" in said


def _cut_in_half(file):
    os.truncate(file, file.stat().st_size // 2)


def _cut_to_nothing(file):
    os.truncate(file, 0)


def _replace_by_garbage(file):
    garbage = file.with_name("garbage")
    garbage.write_bytes(b"This is no database. " * 4_000)
    garbage.rename(file)


def _overwrite_with_garbage(file):
    with file.open("r+b") as database:
        database.write(b"\xff" * file.stat().st_size)


def _delete(file):
    file.unlink()


def _delete_all(file):
    for part in list(file.parent.glob(f"{file.name}*")):
        part.unlink()


def _cut_a_page_in_the_middle(file):
    with file.open("r+b") as database:
        database.seek(4096)
        database.write(b"\xff" * (file.stat().st_size - 8192))


HARM = [
    _cut_in_half,
    _cut_to_nothing,
    _cut_a_page_in_the_middle,
    _replace_by_garbage,
    _overwrite_with_garbage,
    _delete,
    _delete_all,
]


HEALED = {_cut_in_half, _cut_a_page_in_the_middle, _overwrite_with_garbage}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize(
    "when",
    ["open", "closed", pytest.param("flushed", marks=pytest.mark.wide)],
)
def test_a_harmed_file_costs_no_new_record(configured, file, logged, harm, when):
    """Whatever was done to the file, calls run, one line says so, and what fails from
    now on is kept (E3).
    """
    defer_failing(100)
    assert _reporting.flush(20)
    if when == "flushed":
        configured._file.change(lambda database: None)
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
    with configured._file._lock:  # the writer looks from time to time by itself
        if when == "closed":
            configured._file._let_go()
        harm(file)
    calls = []
    with DeferScope():
        calls += [defer(fail, n) for n in range(30)]
    assert [call.state for call in calls] == ["failed"] * 30
    assert _reporting.flush(20)
    defer_failing()
    assert _reporting.flush(20)
    newest = [record.arguments["number"] for record in configured.list(limit=31)]
    assert newest == [*map(str, range(30)), "0"]
    said = complaints(logged)
    if when == "closed" and harm in {_delete, _delete_all, _cut_to_nothing}:
        assert said == []  # as if nothing had ever been there
    elif when == "open" and harm in HEALED:
        assert said == []  # all is in the log still, and mends the file
    else:
        assert len(said) == 1
    if when == "open" and harm in {*HEALED, _cut_to_nothing}:
        assert configured.count() == 131
    assert count(file) == configured.count()
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_damaged_file_is_put_aside_and_can_be_looked_at(file):
    """What was in a damaged file stays there, under another name (E3)."""
    store = SQLiteFailureStore(file)
    store.count()
    store.close()
    _replace_by_garbage(file)
    content = file.read_bytes()
    assert store.count() == 0
    (aside,) = file.parent.glob("postlude.db.damaged-*")
    assert aside.read_bytes() == content
    store.close()


@pytest.mark.wide
def test_many_processes_that_meet_a_damaged_file_make_one_new_one(script, file):
    """However many see the damage at once, nobody puts the new file aside (E3)."""
    for attempt in range(3):
        here = file.with_name(f"{attempt}.db")
        here.write_bytes(b"This is no database. " * 4_000)
        started = start_all(script, here, 8, 2, 50)
        told = [json.loads(process.communicate(timeout=60)[0]) for process in started]
        assert [written for written, _ in told] == [True] * 8
        assert sum(len(said) for _, said in told) == 1
        assert count(here) == 8 * 2 * 50
        assert len(list(here.parent.glob(f"{here.name}.damaged-*"))) == 1


def test_a_file_replaced_while_it_is_opened_stays(file, record, monkeypatch):
    """Who opened the damaged file does not take the new one for it (E3)."""
    file.write_bytes(b"This is no database. " * 4_000)
    other = SQLiteFailureStore(file)
    store = SQLiteFailureStore(file)
    connect = sqlite3.connect

    def connect_late(*args, **options):
        database = connect(*args, **options)
        monkeypatch.setattr(sqlite3, "connect", connect)
        other.write(Batch((record(),)))  # puts the damaged file aside meanwhile
        return database

    monkeypatch.setattr(sqlite3, "connect", connect_late)
    store.write(Batch((record(),)))
    other.close()
    store.write(Batch((record(),)))
    store.close()
    assert count(file) == 3
    assert len(list(file.parent.glob("*.damaged-*"))) == 1


def test_a_command_puts_no_file_aside(file):
    """Who only looks leaves a damaged file where it is (E2)."""
    file.write_bytes(b"This is no database. " * 4_000)
    store = SQLiteFailureStore(file, create=False)
    with pytest.raises(StoreError, match=r"is damaged.*Usually.*\.recover"):
        store.count()
    assert [part.name for part in file.parent.iterdir()] == [file.name]


def test_a_command_makes_no_file(file):
    """Who only looks is told that there is nothing to look at (E2)."""
    store = open_store(f"sqlite:///{file}", create=False)
    with pytest.raises(StoreError, match=r"There is no failure store at .*--store"):
        store.list()
    assert not file.exists()


def test_a_missing_folder_makes_records_wait(tmp_path, impatient, logged):
    """Without its folder a file cannot be; with it, what waited is written (E3)."""
    file = tmp_path / "later" / "postlude.db"
    postlude.configure(failures=str(file))
    defer_failing(3)
    assert not _reporting.flush(20)
    defer_failing(3)
    assert not _reporting.flush(20)
    (said,) = complaints(logged)
    assert "its folder is missing" in said
    file.parent.mkdir()
    logged.wait_for("works again")
    assert _reporting.flush(20)
    assert count(file) == 6


def test_a_newer_schema_is_refused(file, impatient, logged):
    """Tables of a newer Postlude are left as they are, and one line says so (E2)."""
    store = SQLiteFailureStore(file)
    store.count()
    store._file.change(lambda database: database.execute(_SET, ("7",)))
    store.close()
    with pytest.raises(StoreError, match=r"version 7, and this .* up to 1.*Upgrade"):
        store.count()
    postlude.configure(failures=str(file))
    defer_failing(2)
    assert not _reporting.flush(20)
    (said,) = complaints(logged)
    assert "version 7" in said
    with sqlite3.connect(file) as database:
        database.execute(_SET, ("1",))
    database.close()
    logged.wait_for("works again")
    assert _reporting.flush(20)
    assert count(file) == 2


_SET = "UPDATE postlude_meta SET value = ? WHERE key = 'version'"


@pytest.mark.parametrize("value", ["", "x", None])
def test_a_version_that_is_none_is_refused(file, value):
    """A meta table of somebody else's is an error in three beats (E2)."""
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE postlude_meta (key TEXT, value TEXT)")
        if value is not None:
            database.execute(
                "INSERT INTO postlude_meta VALUES ('version', ?)", (value,)
            )
    database.close()
    with pytest.raises(StoreError, match=r"without a version. Usually .* Name another"):
        SQLiteFailureStore(file).count()


def test_a_file_that_somebody_locks_makes_records_wait(
    configured, file, logged, monkeypatch
):
    """Another program's transaction holds up records, and no call (E3)."""
    monkeypatch.setattr(_sqlite_file, "_PATIENCE", 0.1)
    monkeypatch.setattr(_sqlite_file, "_TURN", 0.01)
    configured.count()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    defer_failing(5)
    assert not _reporting.flush(20)
    (said,) = complaints(logged)
    assert "database is locked" in said
    assert "End that program's transaction" in said
    assert configured.count() == 0  # who reads does not wait
    other.execute("COMMIT")
    other.close()
    logged.wait_for("works again")
    assert _reporting.flush(20)
    assert configured.count() == 5


def test_the_file_stays_in_order_over_time(file, record):
    """A log that many write to does not grow without end (E2)."""
    store = SQLiteFailureStore(file)
    sizes = []
    for _ in range(4):
        for _ in range(200):
            store.write(Batch((record(traceback="x" * 4_000, id="1"),)))
        sizes.append(file.with_name(f"{file.name}-wal").stat().st_size)
    assert all(after <= 1.1 * before for before, after in pairwise(sizes[1:]))
    store.close()
    assert [part.name for part in file.parent.iterdir()] == [file.name]


def test_a_relative_path_is_the_folder_of_the_start(tmp_path, monkeypatch):
    """Whoever changes the folder later does not change the store (E2)."""
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///kept.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.count() == 0
    assert (tmp_path / "kept.db").exists()
    store.close()


@pytest.mark.parametrize("name", ["a b#c?d%20e&f.db", "é😀.db", "x'y.db"])
def test_a_path_may_have_any_letter(tmp_path, name):
    """A file's name is no address: `?` and `%20` are letters (E2)."""
    store = SQLiteFailureStore(tmp_path / name)
    store.count()
    store.close()
    assert [part.name for part in Path(tmp_path).iterdir()] == [name]
