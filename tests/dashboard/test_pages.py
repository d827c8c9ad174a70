"""What the pages show: numbers, failures, and nothing that a stranger smuggled in."""

import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from desk import SITE, chores, record, tally

from postlude import DeferScope, _reporting, configure, defer, failure_store
from postlude.dashboard._overview import PERIODS, Overview
from postlude.exceptions import StoreError
from postlude.failures import Batch, ProcessRecord
from postlude.failures.sqlite import SQLiteFailureStore

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raise %}",
    "&lt;b&gt;",
    "a\x00b\x1b[31mred\x07\x7f\x9b",
    "left\u202etfel\u2066x\u2069",
    "half \ud800 pair",
    "</textarea></title></select><b>",
    "javascript:alert(1)",
    "x" * 5_000,
]


def process(**other):
    """Give a process that was seen just now."""
    now = time.time()
    fields = {
        "id": "web-1:7:1",
        "host": "web-1",
        "pid": 7,
        "began": now - 60,
        "seen": now,
        "pending": 0,
        "running": (),
        "limits": {"soft_limit": 5.0},
    }
    return ProcessRecord(**{**fields, **other})


# -- the overview -----------------------------------------------------------


def test_an_empty_store_says_what_to_do(visitor):
    """With nothing to show, the page shows how something comes there."""
    text = visitor.get("/").text
    assert "No call has run in the last hour" in text
    assert "defer(send_receipt, order.id)" in text


@pytest.mark.parametrize("there", [[], ["0" * 32]], ids=["gone", "came"])
def test_a_page_is_of_one_moment(visitor, store, monkeypatch, there):
    """What comes or goes between two looks at the store breaks no page (E2)."""
    store.write(Batch(tuple(record(id=one) for one in there)))
    monkeypatch.setattr(SQLiteFailureStore, "count", lambda _: 1 - len(there))
    answer = visitor.get("/failures")
    assert answer.status == 200
    assert ("No call has failed" in answer.text) is not bool(there)


def test_what_runs_now_stands_oldest_first_over_all_processes(visitor, store):
    """The calls of all processes are one list, with age, place and process."""
    now = time.time()
    running = (("mail", SITE, now - 2), ("report", SITE, now - 75))
    store.write(Batch(process=process(pending=3, running=running)))
    other = process(id="b", host="web-2", pid=8, running=(("sync", SITE, now - 9),))
    store.write(Batch(process=other))
    text = visitor.get("/").text
    text = text[text.index("Running now", text.index("Not run, by reason")) :]
    places = [text.index(word) for word in ("report", "sync", "mail")]
    assert places == sorted(places)
    assert "1 min 15 s" in text
    assert "web-2:8" in text
    assert SITE in text
    assert "2 processes" in text


def test_processes_that_are_gone_do_not_run_anything(visitor, store):
    """A process that has told nothing for minutes is not shown."""
    old = time.time() - 600
    store.write(Batch(process=process(seen=old, running=(("ghost", SITE, old),))))
    assert "ghost" not in visitor.get("/").text


def test_a_process_that_fell_silent_is_marked(visitor, store):
    """A process with running calls that has not told for long is called silent."""
    seen = time.time() - 40
    running = (("mail", SITE, seen - 1),)
    store.write(Batch(process=process(seen=seen, running=running)))
    assert "silent" in visitor.get("/").text


def test_numbers_are_added_up(visitor, store):
    """Calls, failures and shares are those of the period."""
    tallies = (
        tally("ended", "done", 90, 108.0),
        tally("ended", "failed", 8, 8.0),
        tally("ended", "timed_out", 2, 4.0),
        tally("ended", "done", 5, minute=int(time.time() // 60) - 200),
    )
    store.write(Batch(tallies=tallies))
    text = visitor.get("/").text
    assert "Ran in the last hour 100 1.7 a minute" in text
    assert "Failed 10 10 % of them" in text
    assert "Ran in the last 24 hours 105" in visitor.get("/?period=24h").text


def test_time_saved_is_a_sentence(visitor, store):
    """Each route says how long its users wait now, and how long they would."""
    tallies = (
        tally("unit", "", 10, 0.81, function="", route="/orders"),
        tally("ended", "done", 20, 11.19, route="/orders"),
        tally("unit", "", 5, 50.0, function="", route="nightly"),
        tally("ended", "done", 5, 50.0, route="nightly"),
    )
    store.write(Batch(tallies=tallies))
    text = visitor.get("/").text
    assert "/orders : the user waits 81 ms instead of 1.2 s" in text
    assert "10 requests, 11 s in all" in text
    assert "nightly" not in text  # nobody waits for a command


def test_drops_are_told_by_reason(visitor, store):
    """What was not to run is counted by reason, in words."""
    tallies = (
        tally("ended", "dropped:rollback", 12),
        tally("ended", "dropped:overflow", 3),
        tally("ended", "done", 1),
    )
    store.write(Batch(tallies=tallies))
    text = visitor.get("/").text
    assert "rollback 12 The transaction around the call was rolled back." in text
    assert "overflow 3 Too many calls were waiting" in text
    assert "Ran in the last hour 1 " in text


def test_plots_have_their_numbers_in_words_and_tables(visitor, store):
    """A plot is an image with a text; the same numbers stand in a table."""
    tallies = (
        tally("ended", "done", 100, 9.0),
        tally("duration", "0.1", 90),
        tally("duration", "10", 10),
        tally("delay", "0.0025", 100, 0.2),
    )
    store.write(Batch(tallies=tallies))
    body = visitor.get("/").body
    expected = "Duration of mail: 100 measured; half within 100 ms, 95 % within 10 s"
    assert f'role="img" aria-label="{expected}"' in body
    assert 'class="over"' in body
    text = visitor.get("/").text
    assert "100 ms, 10 s" in text
    assert "mail duration 100 ms 90" in text
    assert "mail start delay 2.5 ms 100" in text


@pytest.mark.parametrize("period", PERIODS.values(), ids=PERIODS)
def test_every_number_of_a_period_is_in_its_plot(period):
    """No call falls between two bars, and none of before is counted in."""
    now = 1_800_000_000.0
    minute = int(now // 60)
    steps = period.minutes // period.step
    inside = (minute // period.step - steps + 1) * period.step
    tallies = [
        tally("ended", "done", 1, minute=m) for m in (minute, minute - 1, inside)
    ]
    view = Overview.of(
        [*tallies, tally("ended", "done", 1, minute=inside - 1)], [], period, now
    )
    assert sum(bar.ran for bar in view.timeline.bars) == 3
    assert view.timeline.bars[-1].place == steps - 1
    assert view.timeline.bars[0].place == 0
    assert all(0 <= bar.ran_height <= 100 for bar in view.timeline.bars)


def test_an_unknown_period_is_the_hour(visitor):
    """Nonsense in the address changes nothing."""
    assert "in the last hour" in visitor.get("/?period=<b>&period=2").text


def test_advice_that_cannot_be_given_hurts_nobody(visitor, store, monkeypatch, said):
    """The numbers are shown even if the advice fails (E3)."""
    store.write(Batch(tallies=(tally("ended", "done", 3),)))

    def advise(*_anything):
        raise ZeroDivisionError

    monkeypatch.setattr("postlude.advice.advise", advise)
    assert "Ran in the last hour 3" in visitor.get("/").text
    assert "advice" in said.text


# -- failures ---------------------------------------------------------------


def test_no_failure_is_a_good_message(visitor, store):
    """Without failures the page says how many calls ran, and since when."""
    store.write(
        Batch(
            tallies=(
                tally("ended", "done", 1_234),
                tally("ended", "dropped:rollback", 5),
            )
        )
    )
    text = visitor.get("/failures").text
    assert "No call has failed 1,234 ran since" in text


def test_failures_stand_newest_first(visitor, store):
    """The list has call, error, unit and time of each, the newest first."""
    now = time.time()
    old = record("1" * 32, name="old", ended=now - 7200)
    new = record("2" * 32, name="new", ended=now - 5, attempt=3)
    store.write(Batch((old, new)))
    text = visitor.get("/failures").text
    assert text.index(" new ") < text.index(" old ")
    assert "2 h ago" in text
    assert "5 s ago · attempt 3" in text
    assert "POST /orders → 201" in text


def test_failures_are_filtered(visitor, store):
    """State, function and text narrow the list; text looks everywhere."""
    records = (
        record("1" * 32, name="alpha", state="lost", exception=None),
        record("2" * 32, name="beta", traceback="in deep_down"),
        record("3" * 32, fn=chores.awork, name="gamma"),
    )
    store.write(Batch(records))

    def names(query):
        text = visitor.get(f"/failures?{query}").text
        return [n for n in ("alpha", "beta", "gamma") if f" {n} " in text]

    assert names("state=lost") == ["alpha"]
    assert names("text=DEEP_DOWN") == ["beta"]
    assert names("function=desk.chores%3Aawork") == ["gamma"]
    assert names("text=req-7&state=failed") == ["beta", "gamma"]
    assert names("text=key%3D%27x%27") == ["alpha", "beta", "gamma"]
    assert names("state=nonsense") == ["alpha", "beta", "gamma"]
    assert "No failure fits" in visitor.get("/failures?text=nowhere").text


def test_many_failures_come_in_pages(visitor, store):
    """Fifty stand on a page, and the filter goes along."""
    now = time.time()
    store.write(
        Batch(
            tuple(record(f"{i:032d}", name=f"n{i}", ended=now - i) for i in range(120))
        )
    )
    first = visitor.get("/failures?text=n")
    assert " n0 " in first.text
    assert " n50 " not in first.text
    assert "text=n&amp;page=2" in first.body
    assert " n119 " in visitor.get("/failures?page=3").text
    for odd in ("0", "-1", "999999999999", "x", "²", "1e3"):
        assert visitor.get(f"/failures?page={odd}").status == 200
    assert "Page 3 of 3" in visitor.get("/failures?page=77").text


def test_only_the_newest_thousand_are_looked_at(visitor, store):
    """However many there are, a page reads a bounded number, and says so."""
    now = time.time()
    records = tuple(
        record(f"{i:032d}", ended=now - i, traceback=None) for i in range(1_010)
    )
    store.write(Batch(records))
    text = visitor.get("/failures").text
    assert "1,010 kept" in text
    assert "Only the newest thousand" in text


def test_a_failure_is_all_on_its_page(visitor, store):
    """Traceback, place, unit, arguments and hint stand on one page."""
    store.write(Batch((record(hint="open a session of its own", attempt=2),)))
    text = visitor.get(f"/failures/{record().id}").text
    for part in (
        "ConnectionRefusedError('mail server away')",
        "Boom: no",
        SITE,
        "POST /orders → 201",
        "req-7",
        "key 'x'",
        "Hint: open a session of its own",
        "Attempt 2",
        "web-1:4242",
        "after 300 ms",
        "Run again",
    ):
        assert part in text


def test_what_cannot_be_run_again_says_why(visitor, store):
    """Instead of a button there is the reason (E2)."""
    store.write(Batch((record(payload=None, refusal="it is a lambda"),)))
    page = visitor.get(f"/failures/{record().id}")
    assert "It cannot be run again: it is a lambda." in page.text
    assert 'action="../retry"' not in page.body


def test_a_lost_call_has_a_page_too(visitor, store):
    """A record with nothing but a name is shown as well."""
    bare = record(
        state="lost",
        exception=None,
        traceback=None,
        started=None,
        arguments={},
        unit={},
        payload=None,
    )
    store.write(Batch((bare,)))
    text = visitor.get(f"/failures/{bare.id}").text
    assert "Started never" in text
    assert "There is none: no exception was raised." in text


class Strange:
    """A store in which every text is the same, and a stranger's."""

    immediate = True

    def __init__(self, text):
        self.text = text
        self.record = record(
            name=text,
            function=text,
            arguments={text: text},
            unit={"method": text, "route": text, "path": "/", "request_id": text},
            site=text,
            exception=text,
            traceback=text,
            hint=text,
            payload=None,
            refusal=text,
            host=text,
            state=text,
        )

    def list(self, **_filters):
        """Give the record, whatever is looked for."""
        return [self.record]

    def find(self, _prefix):
        """Give the record, whatever its id."""
        return [self.record]

    def count(self):
        """Count it."""
        return 1

    def tallies(self, _since):
        """Give numbers of every kind."""
        names = {"function": self.text, "route": f"/{self.text}"}
        return [
            tally("ended", f"dropped:{self.text}", 3, **names),
            tally("ended", "failed", 3, 1.0, **names),
            tally("ended", self.text, 3, **names),
            tally("duration", self.text, 3, **names),
            tally("unit", "", 3, 1.0, **names),
            tally(self.text, self.text, 3, **names),
        ]

    def processes(self, _since):
        """Give a process that runs something."""
        return [process(host=self.text, running=((self.text, self.text, 0.0),))]


def structure(page):
    """Give the elements of a page and the names of their attributes."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append(
        (tag, [n for n, _ in attrs])
    )
    parser.feed(page.body)
    return found


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize(
    "path", ["/", "/failures?text=", f"/failures/{record().id}"], ids=lambda p: p[:10]
)
def test_hostile_strings_are_only_text(open_to, evil, path):
    """Whatever a stranger's text is, it makes no element, attribute or control."""
    harmless = "harm:less" if ":" in evil else "harmless"
    page = open_to(Strange(evil)).get(path)
    assert page.status == 200
    assert structure(page) == structure(open_to(Strange(harmless)).get(path))
    assert not any(ord(c) < 32 and c not in "\t\n" for c in page.body)
    assert not {*page.body} & {*"\x7f\x9b\u202e\u2066\u2069\ud800"}


def test_what_was_asked_is_not_shown_as_markup(visitor, store):
    """The filter comes back in its field, escaped, and in links, quoted."""
    store.write(Batch((record(),)))
    body = visitor.get("/failures?text=%22%3E%3Cb%3E&function=%3Cb%3E%26%22").body
    assert "<b>" not in body
    assert 'value="&#34;&gt;&lt;b&gt;"' in body


# -- stores that do not work ------------------------------------------------


def test_a_store_that_is_away_is_a_page_that_says_so(open_to, tmp_path):
    """A missing file is told with its fix, and is not made."""
    path = tmp_path / "elsewhere.db"
    page = open_to(f"sqlite:///{path}").get("/")
    assert page.status == 503
    assert "There is no failure store at" in page.text
    assert not path.exists()


def test_a_store_that_comes_back_is_shown_again(open_to, store):
    """The next look after an error tries anew."""
    store.path.rename(store.path.with_suffix(".away"))
    store.close()
    visitor = open_to(str(store.path))
    assert visitor.get("/failures").status == 503
    store.path.with_suffix(".away").rename(store.path)
    assert visitor.get("/failures").status == 200


def test_a_bug_in_a_store_hurts_only_its_page(open_to, said):
    """Whatever a store raises, the visitor gets a response and the log the reason."""

    class Broken:
        immediate = True

        def __getattr__(self, _name):
            raise RuntimeError("what a store")

    page = open_to(Broken()).get("/")
    assert page.status == 500
    assert "what a store" not in page.body
    assert "what a store" in said.text


def test_the_head_of_a_page_needs_no_store(visitor, store, monkeypatch):
    """A store that fails is asked once for a page, not again for its head."""
    asked = []

    def fail(*_anything, **_more):
        asked.append(1)
        raise StoreError("locked")

    for name in ("list", "count", "tallies", "processes", "find"):
        monkeypatch.setattr(type(store), name, fail)
    assert visitor.get("/failures").status == 503
    assert len(asked) == 1


# -- the store of this process ----------------------------------------------


def test_by_default_it_shows_this_process(open_to):
    """Mounted without a store it shows the failures of this process, in memory."""
    visitor = open_to()
    with DeferScope():
        defer(chores.fail, "x")
    assert "still no luck with x" in visitor.get("/failures").text


def test_calls_are_counted_once_it_is_mounted(open_to):
    """A process that keeps failures in memory counts its calls from the mounting on."""
    visitor = open_to()
    open_to()  # a second dashboard counts nothing twice
    with DeferScope():
        defer(chores.work, "x")
        defer(chores.work, "y")
    assert _reporting.flush()
    assert "Ran in the last hour 2 " in visitor.get("/").text


def test_a_store_that_is_configured_later_is_shown(open_to, tmp_path):
    """The store is asked for at each page, so the order of set-up does not matter."""
    visitor = open_to()
    configure(failures=f"sqlite:///{tmp_path / 'later.db'}")
    with DeferScope():
        defer(chores.fail, "later")
    assert _reporting.flush()
    assert "still no luck with later" in visitor.get("/failures").text
    assert Path(failure_store().path).name == "later.db"
    assert "Ran in the last hour 1 " in visitor.get("/").text
