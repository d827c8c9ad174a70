"""`advise` says in exact sentences what the numbers show, and nothing else."""

import time
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postlude.advice import Advice, advise
from postlude.advice._numbers import Histogram, at_least
from postlude.failures import Batch, FailureRecord, ProcessRecord, Tally
from postlude.failures._schema import KEPT_FINE
from postlude.failures._tallies import BOUNDS, LABELS
from postlude.failures.memory import MemoryFailureStore
from postlude.failures.sqlite import SQLiteFailureStore

NOW = 1_800_000_000.0 - 1_800_000_000 % 3600
MINUTE = int(NOW // 60) - 30
SINCE = NOW - 86_400
FN = "shop.mail:send"


def tally(kind, label, count, *, total=0.0, function=FN, route="", minute=MINUTE):
    """Make one number."""
    return Tally(minute, kind, function, route, label, count, total)


def process(**changes):
    """Make the record of a process that was there all the time."""
    limits = {
        "threads": 4.0,
        "concurrency": 100.0,
        "max_pending": 10_000.0,
        "grace": 8.0,
        "soft_limit": 5.0,
    }
    known = ProcessRecord("web1:7:0", "web1", 7, SINCE, NOW, 0, (), limits)
    return known._replace(**changes)


def failure(state="failed", **changes):
    """Make one failure record."""
    record = FailureRecord(
        id="0123456789abcdef",
        name="send",
        function=FN,
        arguments={},
        state=state,
        unit={},
        site="shop/views.py:12 in order",
        exception="TimeoutError('late')" if state == "failed" else None,
        traceback=None,
        started=NOW - 1000,
        ended=NOW - 999,
        host="web1",
        pid=7,
    )
    return record._replace(**changes)


HERE = process()


def advice(*tallies, records=(), processes=(HERE,)):
    """Give the advice of these numbers."""
    store = MemoryFailureStore(10_000)
    for one in records:
        store.write(Batch(failures=(one,)))
    store.write(Batch(tallies=tuple(tallies)))
    for one in processes:
        store.write(Batch(process=one))
    store.processes = lambda since: [p for p in processes if p.seen >= since]
    return advise(store, SINCE, NOW)


def only(found, kind):
    """Give the one advice there is, and see that it is of that kind."""
    assert [each.kind for each in found] == [kind]
    return found[0]


def ended(**states):
    """Make the numbers of how calls ended."""
    return [
        tally("ended", label, n, route="POST /orders") for label, n in states.items()
    ]


# -- the five-second rule -----------------------------------------------------


def durations(**labels):
    """Make a histogram of durations: `_5=3` is three of at most 5 s."""
    return [tally("duration", label.strip("_"), n) for label, n in labels.items()]


def test_a_slow_function_belongs_on_a_queue():
    """More than one call in twenty over 5 s, with confidence, is said (advice)."""
    found = advice(*durations(_1=26, _10=12, _30=2), *ended(done=40))
    one = only(found, "slow")
    assert one.subject == FN
    assert one.sentence == (
        "shop.mail:send ran for more than 5 s in 14 of 40 calls (35 %; at least 22 % "
        "with 95 % confidence), and the slowest for more than 10 s. Work over 5 s "
        "belongs on a queue, `queue(fn, ...)` in place of `defer(fn, ...)`: no restart "
        "waits for it for long, and what is cut off is lost. All of them come from "
        "POST /orders."
    )
    assert one.evidence["calls"] == 40
    assert one.evidence["over"] == 14
    assert one.evidence["slowest_over"] == 10.0


@pytest.mark.parametrize(
    "labels",
    [
        {"_10": 2},  # two of two
        {"_1": 1, "_10": 1},  # one of two
        {"_10": 19},  # all of too few
        {"_1": 100, "_10": 5},  # 5 %, but at least 2 % only
        {"_5": 40},  # at most 5 s is within the rule
        {"_1": 20, "_10": 2},  # two may be chance
    ],
)
def test_few_calls_are_no_finding(labels):
    """Without a sample, or without confidence, nothing is said (advice)."""
    assert advice(*durations(**labels)) == []


def test_the_rule_is_the_setting():
    """A `soft_limit` that the user raised is the one that counts (advice)."""
    limits = {**process().limits, "soft_limit": 20.0}
    slow = durations(_1=20, _30=20)
    assert advice(*slow, processes=[process(limits=limits)]) == []
    slow = durations(_1=20, _60=20)
    both = [process(limits=limits), process(id="old", limits={"soft_limit": 2.0})]
    one = only(advice(*slow, processes=both), "slow")
    assert "ran for more than 30 s in 20 of 40 calls" in one.sentence
    assert "Work over 20 s belongs on a queue, `queue(fn, ...)`" in one.sentence


# -- failures -----------------------------------------------------------------


def test_a_function_that_fails_now_and_then_belongs_on_a_queue():
    """The story's ten percent of lost webhooks is said with numbers (advice)."""
    records = [failure(id=f"{i:032x}") for i in range(30)]
    records += [failure("timed_out", id=f"{i:032x}") for i in range(30, 41)]
    numbers = ended(done=359, failed=30, timed_out=11)
    one = only(advice(*numbers, records=records), "queue")
    assert one.sentence == (
        "shop.mail:send failed in 41 of 400 calls (10 %; at least 7.6 % with 95 % "
        "confidence), with TimeoutError in 30 of 41 records kept. 11 of them had their "
        "`.timeout()`. A plain deferred call is not tried again: if it must arrive, "
        "add `.retry(3)`, and only its failures go to the queue. All of them come from "
        "POST /orders."
    )
    assert one.evidence["failed"] == 30
    assert one.evidence["timed_out"] == 11


def test_a_bug_is_no_reason_for_a_queue():
    """What raises TypeError would raise it at every attempt (advice)."""
    records = [failure(id=f"{i:032x}", exception="TypeError('x')") for i in range(9)]
    one = only(advice(*ended(done=91, failed=9), records=records), "broken")
    assert one.sentence == (
        "shop.mail:send failed in 9 of 100 calls (9 %; at least 4.8 % with 95 % "
        "confidence), with TypeError in 9 of 9 records kept. Such an error comes again "
        "at every attempt, so a queue would only repeat it: fix it first. The newest: "
        "`postlude failures show 00000000`."
    )


def test_a_hint_is_a_bug_too():
    """What Postlude has a hint for is fixed in the code (advice)."""
    records = [failure(id=f"{i:032x}", hint="open a session") for i in range(9)]
    one = only(advice(*ended(done=91, failed=9), records=records), "broken")
    assert one.evidence["hinted_records"] == 9


def test_a_function_that_mostly_fails_is_broken():
    """Most calls failing is nothing that another attempt mends (advice)."""
    one = only(advice(*ended(done=2, failed=38)), "broken")
    assert one.sentence == (
        "shop.mail:send failed in 38 of 40 calls (95 %; at least 83 % with 95 % "
        "confidence). That is most of the time, and more than another attempt mends: "
        "look at what it needs before it goes on a queue."
    )


@pytest.mark.parametrize(
    "states",
    [
        {"done": 1, "failed": 1},
        {"failed": 19},
        {"done": 1000, "failed": 20},
        {"done": 40},
        {"done": 100, "dropped:outcome": 100},
        {"done": 18, "failed": 2},
    ],
)
def test_few_failures_are_no_finding(states):
    """One of two is no finding, and neither is two percent of a thousand (advice)."""
    assert advice(*ended(**states)) == []


# -- losses ---------------------------------------------------------------------


def lost(n, began=True, **changes):
    """Make records of lost calls."""
    started = NOW - 1004 if began else None
    return [
        failure("lost", id=f"{began:d}{i:031x}", started=started, **changes)
        for i in range(n)
    ]


GONE = process(seen=NOW - 995)


def test_calls_lost_at_shutdown_name_the_grace_that_would_have_held():
    """The p95 of the durations, an upper bound, is what to set (advice)."""
    numbers = [*ended(done=100, lost=3), *durations(_5=92, _10=7, _30=1)]
    found = advice(*numbers, records=lost(3), processes=[GONE])
    one = only(found, "lost")
    assert one.sentence == (
        "3 calls of shop.mail:send were lost when 1 process ended: 3 had begun, 0 had "
        "not. The grace is 8 s, and 95 of 100 runs take at most 10 s: set grace=10, "
        "and give the process 12 s between SIGTERM and SIGKILL. The newest was "
        "deferred at shop/views.py:12 in order."
    )
    assert one.evidence["p95_at_most"] == 10.0


@pytest.mark.parametrize(
    ("labels", "began", "text"),
    [
        ({"_1": 90, "_60": 10}, True, "more than 1 of 20 runs takes longer than 30 s"),
        ({"_1": 100}, False, "so they waited behind others: more threads"),
        ({"_1": 100}, True, "so these were unusual: a `.timeout()`"),
    ],
)
def test_what_to_do_about_a_loss_depends_on_the_times(labels, began, text):
    """A queue for what takes minutes, more threads for what waited (advice)."""
    numbers = [*ended(done=100, lost=3), *durations(**labels)]
    found = advice(*numbers, records=lost(3, began), processes=[GONE])
    assert text in found[0].sentence


def test_one_lost_call_is_a_fact():
    """A loss needs no sample (advice)."""
    one = only(advice(*ended(lost=1), records=lost(1), processes=[GONE]), "lost")
    assert one.sentence == (
        "1 call of shop.mail:send was lost when 1 process ended: 1 had begun, 0 had "
        "not. The newest was deferred at shop/views.py:12 in order."
    )


def test_a_process_that_went_on_lost_it_in_another_way():
    """No shutdown is named where the process was seen long after (advice)."""
    one = only(advice(*ended(lost=2), records=lost(2)), "lost")
    assert "2 in a process that went on: usually a transaction" in one.sentence
    assert "ended:" not in one.sentence
    assert "grace" not in one.sentence


def test_an_unknown_end_is_not_guessed():
    """Without the process's record nothing is said of its end (advice)."""
    one = only(advice(*ended(lost=2), records=lost(2), processes=[]), "lost")
    assert "do not show yet whether their process ended" in one.sentence
    recent = lost(1, ended=NOW - 5)
    one = only(advice(*ended(lost=1), records=recent), "lost")
    assert "do not show yet whether their process ended" in one.sentence


def test_a_reused_process_id_is_told_apart():
    """The process that had begun before the call ended is meant (advice)."""
    later = process(id="web1:7:1", began=NOW - 500, seen=NOW)
    one = only(advice(*ended(lost=1), records=lost(1), processes=[GONE, later]), "lost")
    assert one.evidence["processes_ended"] == 1


def test_records_that_were_forgotten_count_all_the_same():
    """The numbers know of losses whose records are gone (advice)."""
    assert only(advice(*ended(lost=5), records=lost(1)), "lost").evidence["lost"] == 5


def test_overflow_is_a_fact():
    """Calls dropped at the bound, and the setting that loses none (advice)."""
    one = only(advice(tally("ended", "dropped:overflow", 120)), "overflow")
    assert one.sentence == (
        "120 calls were dropped at the bound of 10,000 pending calls, 120 of them of "
        "shop.mail:send. Set overflow='wait', and the requests wait for their own "
        "calls after their response instead; nothing is lost then."
    )


def test_many_rollbacks_are_said():
    """What is dropped by a rollback is right, and can be chosen (advice)."""
    one = only(advice(*ended(done=83, **{"dropped:rollback": 37})), "rollback")
    assert one.sentence == (
        "37 of 120 calls of shop.mail:send (31 %; at least 23 % with 95 % confidence) "
        "did not run, because their transaction was rolled back. That is the rule; "
        "what must run all the same says `.after_commit(False)` or `.always()`. All of "
        "them come from POST /orders."
    )
    assert advice(*ended(done=95, **{"dropped:rollback": 5})) == []


# -- limits -----------------------------------------------------------------------


def crowd(met=34, looks=120, late=60, calls=200, where="thread", limit="threads"):
    """Make the numbers of a service whose calls wait for a limit."""
    return [
        tally("beat", "all", looks, function=""),
        tally("beat", limit, met, function=""),
        tally("delay", "2.5", late, total=late * 2.0),
        tally("delay", "0.005", calls - late),
        tally("busy", where, 52, total=52 * 4.6),
        tally("ended", "done", calls),
    ]


def test_the_bottleneck_is_named_with_what_to_set():
    """Little's law on the busiest minute, the limit met, the late starts (advice)."""
    one = only(advice(*crowd()), "limit")
    assert one.subject == "threads"
    assert one.sentence == (
        "All 4 threads of a process were in use at 34 of 120 looks (28 %), and 60 of "
        "200 sync calls (30 %) began more than 1 s after their response. In the "
        "busiest minute, 2027-01-15 07:30 UTC, 0.867 calls/s × 4.6 s kept about 4 at "
        "work (Little's law). Set threads=8 and look again; more threads help calls "
        "that wait for others, not a full processor. 100 % of that time is "
        "shop.mail:send: on a queue, or quicker, it would make room by itself."
    )
    assert one.evidence["set"] == 8
    assert one.evidence["together"] == pytest.approx(52 * 4.6 / 60)


def test_the_loop_has_its_own_limit():
    """Async calls meet `concurrency`, not `threads` (advice)."""
    limits = {**process().limits, "concurrency": 4.0}
    numbers = crowd(where="loop", limit="concurrency")
    one = only(advice(*numbers, processes=[process(limits=limits)]), "limit")
    assert one.subject == "concurrency"
    assert "All 4 places for async calls" in one.sentence
    assert "full processor" not in one.sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"met": 0},
        {"met": 4},
        {"met": 6, "looks": 1000},
        {"met": 19, "looks": 19},
        {"late": 0},
        {"late": 1, "calls": 2},
        {"late": 5, "calls": 2000},
        {"where": "loop"},
    ],
)
def test_a_limit_that_hurts_nobody_is_no_finding(changes):
    """Both are needed: the limit met, and calls that began late for it (advice)."""
    assert advice(*crowd(**changes)) == []


def test_a_limit_that_is_not_known_is_no_finding():
    """Without the settings of a process nothing can be said of them (advice)."""
    assert advice(*crowd(), processes=[]) == []


def test_short_bursts_want_half_as_much_again():
    """Where the minute's average is low, the limit was met in bursts (advice)."""
    numbers = [*crowd()[:4], tally("busy", "thread", 60, total=30.0)]
    one = only(advice(*numbers), "limit")
    assert one.evidence["set"] == 6


def test_the_load_is_per_process():
    """Two processes share the calls, and each has its own threads (advice)."""
    two = [process(), process(id="web1:8:0", pid=8)]
    one = only(advice(*crowd(), processes=two), "limit")
    assert one.evidence["together"] == pytest.approx(52 * 4.6 / 120)
    assert "at work in each process" in one.sentence


def test_a_long_call_is_not_all_in_the_minute_that_it_ended_in():
    """Ten minutes of one call are one thread, not ten (advice)."""
    numbers = [*crowd()[:4], tally("busy", "thread", 1, total=600.0)]
    assert only(advice(*numbers), "limit").evidence["together"] == pytest.approx(1.0)


def test_hours_are_not_taken_for_minutes():
    """Old numbers are put together by the hour, which is no busy minute (advice)."""
    old = int(NOW // 60) - KEPT_FINE - 60
    rolled = tally("busy", "thread", 3000, total=90_000.0, minute=old)
    store = MemoryFailureStore(10)
    store.write(Batch(tallies=(*crowd(), rolled), process=process(began=0)))
    one = only(advise(store, NOW - 30 * 86_400, NOW), "limit")
    assert one.evidence["together"] == pytest.approx(52 * 4.6 / 60)


def test_pending_calls_at_the_bound_are_said():
    """`max_pending` met means that calls come quicker than they are done (advice)."""
    numbers = [tally("beat", "all", 100), tally("beat", "max_pending", 30)]
    one = only(advice(*numbers), "limit")
    assert one.subject == "max_pending"
    assert one.sentence.startswith(
        "A process had 10,000 calls pending, which is all that it takes, at 30 of 100 "
        "looks (30 %)."
    )


# -- time saved ---------------------------------------------------------------------


def test_the_time_that_nobody_waits_is_said_per_route_and_in_total():
    """The user waits 81 ms instead of 1.2 s (advice)."""
    numbers = [
        tally("unit", "", 10_000, total=810.0, function="", route="POST /orders"),
        tally("ended", "done", 10_000, total=11_190.0, route="POST /orders"),
        tally("unit", "", 100, total=1.0, function="", route="GET /"),
        tally("ended", "done", 100, total=50.0, route="GET /"),
    ]
    total, orders, start = advice(*numbers)
    assert total.subject == ""
    assert orders.sentence == (
        "POST /orders: the user waits 81 ms instead of 1.2 s; 3.1 h saved in 10,000 "
        "requests since 2027-01-15 07:30 UTC."
    )
    assert start.sentence.startswith(
        "GET /: the user waits 10 ms instead of 510 ms; 50 s"
    )
    assert total.sentence == (
        "On 2 routes users did not wait 3.1 h in 10,100 requests since 2027-01-15 "
        "07:30 UTC."
    )


@pytest.mark.parametrize(
    "route", ["", "WEBSOCKET /feed", "nightly", "import_orders in jobs.py"]
)
def test_only_requests_have_somebody_who_waits(route):
    """Blocks, commands and WebSockets save nobody's time (advice)."""
    numbers = [
        tally("unit", "", 1000, total=10.0, function="", route=route),
        tally("ended", "done", 1000, total=1000.0, route=route),
    ]
    assert advice(*numbers) == []


def test_a_few_requests_are_no_average():
    """A route needs a sample, too (advice)."""
    numbers = [
        tally("unit", "", 19, total=1.0, function="", route="GET /"),
        tally("ended", "done", 19, total=100.0, route="GET /"),
    ]
    assert advice(*numbers) == []


# -- all together ---------------------------------------------------------------------


def test_harm_comes_before_savings():
    """The weightiest is first: a loss, then the bug, then what is slow (advice)."""
    numbers = [
        *ended(done=60, failed=40, lost=1),
        *durations(_1=50, _10=50),
        tally("ended", "dropped:overflow", 1),
        tally("unit", "", 100, total=1.0, function="", route="POST /orders"),
        tally("ended", "done", 100, total=900.0, function="a:b", route="POST /orders"),
    ]
    found = advice(*numbers, records=lost(1), processes=[GONE])
    assert [one.kind for one in found] == ["lost", "overflow", "queue", "slow", "saved"]
    assert [one.weight for one in found] == sorted(
        (a.weight for a in found), reverse=True
    )


def test_an_empty_store_has_nothing_to_say(tmp_path):
    """No numbers, no advice; and a real file gives what memory gives (advice)."""
    assert advice(processes=[]) == []
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    assert advise(store, SINCE) == []
    numbers = (*durations(_1=26, _10=14), *ended(done=40))
    store.write(Batch(tallies=numbers, process=process()))
    assert advise(store, SINCE, NOW) == advice(*numbers)
    store.close()


def test_the_clock_is_asked_if_nobody_says_when():
    """*now* is for tests (advice)."""
    store = MemoryFailureStore(10)
    record = failure("lost", ended=time.time())
    store.write(Batch(failures=(record,)))
    assert only(advise(store, time.time() - 60), "lost").evidence["lost"] == 1


# -- properties -----------------------------------------------------------------------

LABEL = st.sampled_from(
    [
        *(*LABELS, "done", "failed", "timed_out", "lost", "dropped:overflow", "thread"),
        *("dropped:rollback", "loop", "all", "threads", "concurrency", "max_pending"),
        "?",
    ]
)
KIND = st.sampled_from(["ended", "duration", "delay", "busy", "unit", "beat", "new"])
TALLY = st.builds(
    Tally,
    minute=st.integers(int(SINCE // 60), int(NOW // 60)),
    kind=KIND,
    function=st.sampled_from(["a:b", "c:d", ""]),
    route=st.sampled_from(["GET /", "", "job"]),
    label=LABEL,
    count=st.integers(0, 2000),
    total=st.floats(-1, 1e6),
)
NUMBER = st.sampled_from([0.0, 1.0, 5.0, 16.0, 1e4])
PROCESS = st.builds(
    process,
    began=st.floats(0, NOW),
    seen=st.floats(SINCE, NOW),
    limits=st.dictionaries(
        st.sampled_from(
            ["threads", "concurrency", "max_pending", "grace", "soft_limit"]
        ),
        NUMBER,
    ),
)
RECORD = st.builds(
    failure,
    state=st.sampled_from(["failed", "timed_out", "lost"]),
    id=st.uuids().map(lambda u: u.hex),
    exception=st.none() | st.text(max_size=20),
    started=st.none() | st.floats(SINCE, NOW),
    ended=st.floats(SINCE, NOW),
    hint=st.none() | st.just("x"),
)


@given(
    st.lists(TALLY, max_size=60),
    st.lists(RECORD, max_size=10),
    st.lists(PROCESS, max_size=3),
)
def test_whatever_the_numbers_are_it_does_not_fail(tallies, records, processes):
    """No division by zero, no empty sentence, numbers only in the evidence (advice)."""
    for one in advice(*tallies, records=records, processes=processes):
        assert isinstance(one, Advice)
        assert one.sentence.endswith((".", "`."))
        for value in one.evidence.values():
            assert isinstance(value, int | float | str)
            assert not (isinstance(value, float) and isnan(value))


@given(st.integers(0, 19), st.integers(0, 19))
def test_below_its_sample_size_no_share_is_spoken_of(good, bad):
    """Fewer than twenty calls are no share, whatever they did (advice)."""
    bad = min(bad, 19 - good)
    numbers = [
        *ended(done=good, failed=bad, **{"dropped:rollback": 0}),
        *durations(_1=good, _60=bad),
        tally("delay", "60", bad),
        tally("beat", "threads", bad),
        tally("beat", "all", good + bad),
        tally("unit", "", good + bad, total=1.0, function="", route="POST /orders"),
    ]
    assert advice(*numbers) == []


@given(st.integers(1, 10_000), st.data())
def test_the_lower_bound_is_below_the_share(of, data):
    """Wilson's bound is a share, at most what was seen, and tightens (advice)."""
    hits = data.draw(st.integers(0, of))
    bound = at_least(hits, of)
    assert 0 <= bound <= hits / of
    assert at_least(hits * 10, of * 10) >= bound - 1e-12


def test_the_lower_bound_is_wilsons():
    """Known values, as tables have them (advice)."""
    assert at_least(1, 2) == pytest.approx(0.0945, abs=1e-4)
    assert at_least(10, 100) == pytest.approx(0.0552, abs=1e-4)
    assert at_least(0, 0) == 0
    assert at_least(5, 5) == pytest.approx(0.5655, abs=1e-4)


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=300))
def test_a_bound_of_a_histogram_is_true_of_the_values(values):
    """`at most`, `more than`, `the slowest over` hold for what was counted (advice)."""
    histogram = Histogram()
    for value in values:
        label = next((b for b in BOUNDS if value <= b), None)
        histogram.add("inf" if label is None else f"{label:g}", 1)
    p95 = histogram.most(0.95)
    assert sum(value <= p95 for value in values) >= 0.95 * len(values)
    over, limit = histogram.over(5.0)
    assert limit == 5.0
    assert over == sum(value > 5.0 for value in values)
    assert max(values) >= histogram.floor()
    over, limit = histogram.over(7.0)
    assert (over, limit) == (sum(value > 10.0 for value in values), 10.0)
