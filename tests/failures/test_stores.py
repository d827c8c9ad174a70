"""E2: what every failure store does, in memory, in SQLite, in other databases."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from postlude.failures import Batch, FailureRecord, ProcessRecord, Tally
from postlude.failures._schema import LENGTHS


def ids(records):
    """Give what records are told apart by."""
    return [record.id for record in records]


def tally(minute=60, kind="ended", count=1, total=0.5, **fields):
    """Make a number."""
    values = {"function": "shop:mail", "route": "GET /orders", "label": "done"}
    return Tally(
        minute=minute, kind=kind, count=count, total=total, **{**values, **fields}
    )


def process(number=1, **fields):
    """Make what is known of a process."""
    values = {
        "id": f"host:{number}:1700000000",
        "host": "host",
        "pid": number,
        "began": 1_700_000_000.5,
        "seen": 1_700_000_060.25,
        "pending": 3,
        "running": (("mail", "shop.py:7 in order", 1_700_000_059.5),),
        "limits": {"threads": 16.0, "grace": 8.0},
    }
    return ProcessRecord(**{**values, **fields})


def test_a_record_comes_back_as_it_went_in(store, record):
    """All fields of a record survive, the missing ones too (E2)."""
    full = record(hint="h", payload="[[],{}]", refusal=None, host="web-1", pid=77)
    bare = record(
        arguments={},
        unit={},
        exception=None,
        traceback=None,
        started=None,
        refusal="it is a lambda",
        attempt=3,
    )
    store.write(Batch((full, bare)))
    assert list(store.list()) == [full, bare]


def test_records_outlive_whoever_wrote_them(opener, record):
    """What one store object has written, another one reads (E2)."""
    one, other = opener(), opener()
    one.write(Batch((record(),), (tally(),), process()))
    one.close()
    assert other.count() == 1
    assert list(other.tallies(0)) == [tally()]
    assert list(other.processes(0)) == [process()]
    other.close()


def test_a_closed_store_opens_again(store, record):
    """After `close` the next use works (E2)."""
    store.write(Batch((record(),)))
    store.close()
    store.close()
    store.write(Batch((record(),)))
    assert store.count() == 2


def test_an_empty_batch_is_nothing(store):
    """Nothing to write is written without an error (E2)."""
    store.write(Batch())
    assert store.count() == 0
    assert list(store.list()) == []
    assert list(store.tallies(0)) == []
    assert list(store.processes(0)) == []


def test_records_are_listed_oldest_first(store, record):
    """The order is that of their ends, however they were written (E2)."""
    first, second, third = record(), record(), record()
    store.write(Batch((first, second)))
    store.write(Batch((third,)))
    assert ids(store.list()) == ids([first, second, third])
    assert ids(store.list(limit=2)) == ids([second, third])
    assert ids(store.list(limit=0)) == []
    assert ids(store.list(limit=9)) == ids([first, second, third])


def test_records_are_chosen_by_time_name_and_state(store, record):
    """A list is narrowed by the end, by name or function, and by state (E2)."""
    old = record(name="a")
    mail = record(name="b", state="timed_out")
    other = record(name="c", function="shop:b", state="lost")
    store.write(Batch((old, mail, other)))
    assert ids(store.list(since=mail.ended)) == ids([mail, other])
    assert ids(store.list(name="b")) == ids([mail])
    assert ids(store.list(name="shop:b")) == ids([other])
    assert ids(store.list(name="B")) == []
    assert ids(store.list(state="lost")) == ids([other])
    assert ids(store.list(state="lost", name="b")) == []
    assert ids(store.list(name="shop:mail", limit=1)) == ids([mail])


def test_a_record_is_found_by_the_beginning_of_its_id(store, record):
    """`find` takes letters as they are, and gives ten at most (E2)."""
    one, two = record(id="abc1"), record(id="abd2")
    many = [record(id=f"f{n:02}") for n in range(12)]
    store.write(Batch((one, two, *many)))
    assert ids(store.find("ab")) == ["abc1", "abd2"]
    assert ids(store.find("abc1")) == ["abc1"]
    assert ids(store.find("f")) == [f"f{n:02}" for n in range(10)]
    assert len(ids(store.find(""))) == 10
    for nothing in ("AB", "%", "a%", "_bc1", "abc12", "\\", "'", "\0", "\ud800"):
        assert ids(store.find(nothing)) == [], nothing


def test_a_record_of_the_same_id_replaces_the_first(store, record):
    """A call that fails again has one record, its newest (E2)."""
    one, other = record(), record()
    store.write(Batch((one, other)))
    again = record(id=one.id, attempt=2, exception=None)
    store.write(Batch((again,)))
    assert store.count() == 2
    assert list(store.list()) == [other, again]
    store.write(Batch((other._replace(hint="1"), other._replace(hint="2"))))
    assert [r.hint for r in store.find(other.id)] == ["2"]


def test_records_are_forgotten_once(store, record):
    """`forget` tells how many were there, so that two who forget know it (E2)."""
    records = [record() for _ in range(5)]
    store.write(Batch(tuple(records)))
    assert store.forget([]) == 0
    assert store.forget(["nobody", "\0", "\ud800", records[0].id, records[0].id]) == 1
    assert store.forget(record.id for record in records[:3]) == 2
    assert ids(store.list()) == ids(records[3:])


def test_one_of_many_who_forget_a_record_has_done_it(opener, record):
    """However many forget the same record at once, one is told so (E2)."""
    stores = [opener() for _ in range(4)]
    records = [record() for _ in range(10)]
    stores[0].write(Batch(tuple(records)))
    start = threading.Barrier(4)

    def forget(store):
        start.wait()
        return [store.forget([one.id]) for one in records]

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(forget, stores))
    assert [sum(each) for each in zip(*told, strict=True)] == [1] * 10
    for store in stores:
        store.close()


def test_many_records_are_forgotten_at_once(store, record):
    """There is no bound to how many records are forgotten at once (E2)."""
    records = [record() for _ in range(900)]
    store.write(Batch(tuple(records)))
    assert store.forget(ids(records)) == 900
    assert store.count() == 0


def test_old_records_are_pruned(store, record):
    """By age and by number; numbers and processes that are as old go too (E2)."""
    now = time.time()
    records = [record(ended=now - 100 + n) for n in range(10)]
    minutes = [int((now - 7200) // 60), int(now // 60)]
    store.write(
        Batch(tuple(records), tuple(map(tally, minutes)), process(1, seen=now - 7200))
    )
    store.write(Batch((), (), process(2, seen=now)))
    assert store.prune(before=0) == 0
    assert store.prune(before=now - 97) == 3
    assert ids(store.list()) == ids(records[3:])
    assert store.prune(before=0, keep=7) == 0
    assert store.prune(before=0, keep=2) == 5
    assert ids(store.list()) == ids(records[8:])
    store.prune(before=now - 3600)
    assert [number.minute for number in store.tallies(0)] == minutes[1:]
    assert [one.pid for one in store.processes(0)] == [2]
    assert store.prune(before=0, keep=0) == 2


def test_records_of_one_moment_are_pruned_to_the_number(store, record):
    """`keep` counts exactly, even where all ended at the same time (E2)."""
    store.write(Batch(tuple(record(ended=5.0) for _ in range(10))))
    assert store.prune(before=0, keep=4) == 6
    assert store.count() == 4


def test_numbers_are_added_up(store):
    """Numbers of the same minute, kind, function, route and label are one (E2)."""
    store.write(Batch((), (tally(), tally(label="failed"), tally(count=2, total=1.0))))
    store.write(Batch((), (tally(count=4, total=0.25),)))
    assert sorted(store.tallies(0)) == sorted(
        [tally(count=7, total=1.75), tally(label="failed")]
    )


@pytest.mark.parametrize("field", ["kind", "function", "route", "label"])
def test_numbers_are_told_apart_by_each_word(store, field):
    """Names differ by letters' case and accents, in every database (E2)."""
    numbers = [tally(**{field: word}) for word in ("Aa", "aa", "aä", "äa", "")]
    store.write(Batch((), tuple(numbers)))
    assert sorted(store.tallies(0)) == sorted(numbers)


def test_numbers_are_given_from_a_moment_on(store):
    """A minute is given if *since* lies in it (E2)."""
    store.write(Batch((), tuple(map(tally, (10, 11, 12)))))
    minutes = [number.minute for number in store.tallies(11 * 60 + 59)]
    assert minutes == [11, 12]


def test_numbers_are_added_up_over_threads(opener):
    """Several who write the same numbers at once lose none (E2)."""
    stores = [opener() for _ in range(4)]
    start = threading.Barrier(4)

    def write(store):
        start.wait()
        for n in range(20):
            labels = [f"{n % 3}", "x", f"{store is stores[0]}"]
            store.write(Batch((), tuple(tally(label=label) for label in labels)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, stores))
    assert sum(number.count for number in stores[0].tallies(0)) == 4 * 20 * 3
    for store in stores:
        store.close()


def test_old_numbers_are_put_together_by_the_hour(opener):
    """Pruning keeps the sums of what is older than two days, hour by hour (E2)."""
    one, other = opener(), opener()
    hour = int((time.time() - 72 * 3600) // 3600) * 60
    new = int(time.time() // 60)
    batch = Batch(
        (), (*(tally(hour + n) for n in range(0, 60, 7)), tally(hour + 60), tally(new))
    )
    one.write(batch)
    if one is other:  # in memory, numbers are kept for a day
        assert [number.minute for number in one.tallies(0)] == [new]
        return
    one.prune(before=0)
    other.prune(before=0)
    assert list(other.tallies(0)) == [
        tally(hour, count=9, total=4.5),
        tally(hour + 60),
        tally(new),
    ]
    one.write(batch)
    one.prune(before=0)
    assert sum(number.count for number in one.tallies(0)) == 22
    one.close()
    other.close()


def test_a_process_is_known_by_its_last_look(opener):
    """Each process has one row, the newest (E2)."""
    store = opener()
    store.write(Batch((), (), process(1)))
    store.write(Batch((), (), process(1, pending=0, running=(), seen=1_700_000_100.5)))
    assert list(store.processes(1_700_000_100.5)) == [
        process(1, pending=0, running=(), seen=1_700_000_100.5)
    ]
    assert list(store.processes(1_700_000_101)) == []
    store.close()


HOSTILE = [
    "NUL \0 in it",
    "half a pair \ud83d or \udc80",
    "four bytes \U0001f600 \U0010ffff",
    "' OR 1=1; DROP TABLE postlude_failures; -- \" ` \\ %s :x ? $1 {} %",
    "\x1b[31m\x07\r\n\t\x7f\x85\u2028",
    "<script>alert(1)</script>",
    "\ufeff\ufffe\uffff",
    "e\u0301 " * 100,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_can_be_stored(store, record, text):
    """No text makes a batch fail: it comes back, or a sign stands for a letter (E3)."""
    one = record(
        name=text,
        function=text,
        arguments={text: text},
        unit={"path": text, text: 1},
        site=text,
        exception=text,
        traceback=text,
        hint=text,
        refusal=text,
        host=text,
    )
    number = tally(function=text, route=text)
    look = process(running=((text, text, 1.5),), host=text)
    store.write(Batch((one,), (number, number), look))
    (found,) = store.list(name=text)
    shown = text
    if not store.immediate:
        shown = text.replace("\0", "\u2400").replace("\ud83d", "\ufffd")
        shown = shown.replace("\udc80", "\ufffd")
    assert found.traceback == found.exception == found.site == shown
    assert found.arguments == {shown: shown}
    (counted,) = store.tallies(0)
    assert counted.count == 2
    assert counted.route == shown[: LENGTHS["route"]]
    (seen,) = store.processes(0)
    assert seen.running == ((shown, shown, 1.5),)
    assert store.forget([one.id]) == 1


def test_no_text_is_too_long(store, record):
    """What is longer than its column is cut, what has no end is kept whole (E3)."""
    long = "\U0001f600" * 70_000
    one = record(
        name=long, function=long, host=long, traceback=long, payload=long, site=long
    )
    store.write(Batch((one,), (tally(function=long, route=long),), process(host=long)))
    (found,) = store.list()
    assert found.traceback == found.payload == found.site == long
    assert long.startswith(found.name)
    assert len(list(store.tallies(0))) == 1


class Unshowable:
    """Has no text."""

    def __str__(self):
        raise ValueError

    __repr__ = __str__


def test_what_cannot_be_written_does_not_hold_up_the_rest(store, record):
    """A unit that nobody can write down is left out, and its record kept (E3)."""
    strange = [{"route": Unshowable()}, {("a",): float("nan")}, {"x": {1, 2}}]
    records = [record(unit=unit) for unit in strange]
    store.write(Batch((*records, record())))
    assert store.count() == 4


def test_all_of_a_batch_is_kept_or_nothing(store, record):
    """A batch that fails leaves nothing behind, and the next one works (E2)."""
    if store.immediate:
        return  # in memory nothing can fail
    good, bad = record(), record()._replace(started="not a time".encode)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
        store.write(Batch((good, bad), (tally(),)))
    assert store.count() == 0
    assert list(store.tallies(0)) == []
    store.write(Batch((good,), (tally(),)))
    assert (store.count(), len(list(store.tallies(0)))) == (1, 1)


def test_a_row_that_was_broken_by_hand_hides_no_other(store, record):
    """A record whose JSON somebody broke is listed without it (E2)."""
    broken = record(arguments={"a": "1"})
    store.write(Batch((broken, record())))
    if _break(store):
        assert [r.arguments for r in store.list()] == [{}, {"to": "'ann'"}]
    assert store.count() == 2


def _break(store):
    sql = "UPDATE postlude_failures SET arguments = '{' WHERE arguments LIKE '%1%'"
    if hasattr(store, "_engine"):
        with store._engine.begin() as database:
            database.exec_driver_sql(sql.replace("%", "%%"))
    elif hasattr(store, "_file"):
        store._file.change(lambda database: database.execute(sql))
    else:
        return False
    return True


def test_a_store_names_itself(store):
    """A store's `repr` says which one it is, and no password (E2)."""
    assert type(store).__name__ in repr(store)
    assert str(os.environ.get("MYSQL_PWD") or "no such text") not in repr(store)


def test_rows_and_records_have_the_same_fields(store, record):
    """What a store gives is what the port promises (E2)."""
    store.write(Batch((record(),), (tally(),), process()))
    assert isinstance(next(iter(store.list())), FailureRecord)
    assert isinstance(next(iter(store.find(""))), FailureRecord)
    assert isinstance(next(iter(store.tallies(0))), Tally)
    assert isinstance(next(iter(store.processes(0))), ProcessRecord)
