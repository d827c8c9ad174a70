"""G2: `capture()`, `inline()` and `failing_calls()`."""

import asyncio
import threading
from contextlib import suppress
from functools import partial

import pytest
from stage import ASGIServer, Boom, Gate, answering, replying, visit
from stage.units import in_block

from postlude import (
    DeferScope,
    NoScopeError,
    configure,
    defer,
    defer_all,
    drain,
    transaction,
)
from postlude.testing import capture, failing_calls, inline
from postlude.wsgi import PostludeMiddleware


def mail(to, subject=""):
    """Stand for what an application defers."""


def fail():
    """Stand for what goes wrong."""
    raise Boom


def test_captured_calls_do_not_run(unit, form):
    """Inside `capture()` calls are collected, in units of every kind, not run (G2)."""
    seen = []
    with capture() as captured:
        unit(lambda: [defer(form(seen.append), n) for n in range(3)])
    assert seen == []
    assert [call.args for call in captured.calls] == [(0,), (1,), (2,)]


def test_captured_calls_can_be_run(unit, form):
    """`run()` runs what was captured, in order, what that defers included (G2)."""
    seen = []

    def outer():
        seen.append("outer")
        defer(form(seen.append), "nested")

    def body():
        defer(form(outer))
        defer(form(seen.append), "second")

    with capture() as captured:
        unit(body)
        captured.run()
        assert seen == ["outer", "second", "nested"]
        captured.run()
    assert seen == ["outer", "second", "nested"]


def test_captured_calls_keep_the_rules(unit):
    """What a failed unit drops is not among the calls; what always runs is (G2, C1)."""
    seen = []

    def body():
        defer(seen.append, "plain")
        defer(seen.append, "always").always()
        defer(seen.append, "asked").when(lambda outcome: not outcome.ok)
        defer(seen.append, "old").named("n").always()
        defer(seen.append, "new").named("n").always()
        defer(seen.append, "cancelled").always().cancel()

    with capture() as captured:
        unit(body, fails=True)
        assert [call.args[0] for call in captured.calls] == ["always", "asked", "new"]
        captured.run()
    assert seen == ["always", "asked", "new"]


def test_captured_groups_run_together(unit):
    """`run()` keeps groups (G2, D1)."""
    barrier = threading.Barrier(2)
    with capture() as captured:
        unit(lambda: defer_all(partial(barrier.wait, 20), partial(barrier.wait, 20)))
        captured.run()
    assert [call.state for call in captured.calls] == ["done", "done"]


def test_capture_needs_no_unit():
    """Code under test may defer without a unit, in strict mode too (G2, A5)."""
    configure(strict=True)
    seen = []

    def work():
        defer(seen.append, "one")
        defer(lambda: defer(seen.append, "nested"))

    with capture() as captured:
        work()
        assert seen == []
        captured.run()
    assert seen == ["one", "nested"]
    with pytest.raises(NoScopeError):
        work()


def test_what_was_not_run_never_runs(form):
    """Calls that the test did not run are gone when `capture()` ends (G2)."""
    seen = []
    with capture():
        with DeferScope():
            defer(form(seen.append), "block")
        visit(PostludeMiddleware(replying(lambda: defer(form(seen.append), "wsgi"))))
    drain(20)
    assert seen == []


def test_a_unit_that_is_open_runs_at_its_own_end():
    """`run()` runs units that have ended; an open one is not ended by it (G2)."""
    seen = []
    with capture() as captured, DeferScope():
        defer(seen.append, 1)
        captured.run()
        assert seen == []
    assert seen == []


def test_run_raises_what_a_call_raised_after_all_have_run(form):
    """The first failure comes out of `run()`, its call named, the rest run (G2)."""
    seen = []
    with capture() as captured:
        with DeferScope():
            defer(form(fail)).named("mail")
            defer(form(seen.append), "next")
        with pytest.raises(Boom) as caught:
            captured.run()
    assert seen == ["next"]
    (note,) = caught.value.__notes__
    assert "<DeferredCall mail failed>" in note
    assert f"deferred at {__file__}:" in note


async def test_captured_calls_of_a_request_can_be_run_on_its_loop():
    """In an async test, too, `run()` has run async calls when it returns (G2)."""
    seen = []

    async def note():
        seen.append("async")

    def body():
        defer(note)
        defer(seen.append, "sync")

    with capture() as captured:
        async with ASGIServer(answering(body)) as server:
            await server.begin()
            captured.run()
    assert seen == ["async", "sync"]


def test_captures_nest():
    """The innermost `capture()` has the calls; the outer one goes on after it (G2)."""
    with capture() as outer, DeferScope():
        defer(mail, "a")
        with capture() as inner:
            defer(mail, "b")
        defer(mail, "c")
    assert [call.args for call in outer.calls] == [("a",), ("c",)]
    assert [call.args for call in inner.calls] == [("b",)]


def test_capture_sees_all_threads():
    """What another thread defers is captured too (G2)."""
    with capture() as captured:
        thread = threading.Thread(target=defer, args=(mail, "thread"))
        thread.start()
        thread.join()
    captured.assert_deferred(mail, "thread")


@pytest.fixture
def captured():
    """Three captured calls to ask about."""
    with capture() as captured, DeferScope():
        defer(mail, "ann", subject="hello")
        defer(mail, "bob").named("bob's mail")
        defer(list)
    return captured


def test_calls_are_found_by_function_name_and_arguments(captured):
    """`find()` takes a function or name, and arguments if they matter (G2)."""
    ann, bob, other = captured.calls
    assert captured.find(mail) == [ann, bob]
    assert captured.find(mail, "ann") == [ann]
    assert captured.find(mail, "ann", subject="hello") == [ann]
    assert captured.find(mail, subject="hello") == [ann]
    assert captured.find("bob's mail") == [bob]
    assert captured.find("bob's mail", "ann") == []
    assert captured.find(f"{__name__}:mail") == [ann]
    assert captured.find(list) == [other]
    assert captured.find("unknown") == []
    assert "bob's mail" in repr(captured)


def test_assertions_that_hold_say_nothing(captured):
    """What was deferred can be asserted by function, name, arguments, count (G2)."""
    captured.assert_deferred(mail)
    captured.assert_deferred(mail, times=2)
    captured.assert_deferred("bob's mail", "bob", times=1)
    captured.assert_deferred(mail, "ann", subject="hello")
    captured.assert_not_deferred(mail, "eve")
    captured.assert_not_deferred(print)
    with capture() as nothing:
        pass
    nothing.assert_nothing_deferred()


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (
            lambda c: c.assert_deferred(mail, "eve"),
            "mail('eve') was deferred 0 times, wanted at least once; deferred were: ",
        ),
        (
            lambda c: c.assert_deferred(mail, times=1),
            "mail was deferred 2 times, wanted 1 times; deferred were: ",
        ),
        (
            lambda c: c.assert_deferred("mail", subject="x"),
            "mail(subject='x') was deferred 0 times, wanted at least once; ",
        ),
        (
            lambda c: c.assert_not_deferred(list),
            "list was deferred 1 times, wanted 0 times; deferred were: ",
        ),
        (lambda c: c.assert_nothing_deferred(), "nothing should be deferred; was: "),
    ],
)
def test_assertions_that_fail_say_what_was_deferred(captured, check, text):
    """A failing assertion lists what was deferred instead (G2)."""
    with pytest.raises(AssertionError) as caught:
        check(captured)
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(f"{__name__}:mail, bob's mail, builtins:list")


def test_inline_runs_calls_at_once_where_they_are(unit, form):
    """Inside `inline()` a call has run when `defer` returns, in the caller (G2)."""
    seen = []
    states = []

    def body():
        states.append(defer(form(seen.append), "call").state)
        seen.append("body")

    with inline():
        unit(body)
    assert seen == ["call", "body"]
    assert states == ["done"]


def test_inline_lets_exceptions_through(form):
    """Inside `inline()` what a call raises comes out of `defer` (G2)."""
    with inline(), pytest.raises(Boom):
        defer(form(fail))


async def test_inline_works_on_a_running_loop(form):
    """In an async test an async call has run when `defer` returns (G2)."""
    seen = []
    with inline():
        defer(form(seen.append), 1)
        assert seen == [1]
        with pytest.raises(Boom):
            defer(form(fail))


def test_inline_needs_no_unit_and_no_rules(form):
    """Inside `inline()` units, names, rules and options have no effect (G2)."""
    configure(strict=True)
    seen = []
    with inline():
        for _ in range(2):
            call = defer(form(seen.append), 1).named("n").when(lambda outcome: False)
            call.always().timeout(1).concurrently().cancel()
        defer_all(lambda: seen.append(2), lambda: seen.append(3))
        with DeferScope():
            defer(form(seen.append), 4)
            assert seen == [1, 1, 2, 3, 4]
    assert seen == [1, 1, 2, 3, 4]


def test_inline_calls_inside_calls_run_at_once(form):
    """What an inline call defers runs before it goes on (G2)."""
    seen = []

    def outer():
        defer(form(seen.append), "nested")
        seen.append("outer")

    with inline():
        defer(form(outer))
    assert seen == ["nested", "outer"]


def test_after_inline_calls_are_deferred_again():
    """`inline()` ends with its block, whatever was raised in it (G2)."""
    seen = []
    with pytest.raises(Boom), inline():
        defer(fail)
    with DeferScope():
        defer(seen.append, 1)
        assert seen == []
    assert seen == [1]


def test_what_was_deferred_before_inline_stays_pending():
    """`inline()` concerns what is deferred inside it (G2)."""
    seen = []
    with DeferScope():
        defer(seen.append, "before")
        with inline():
            defer(seen.append, "inline")
        assert seen == ["inline"]
    assert seen == ["inline", "before"]


def test_a_failing_call_fails_the_block(unit, form):
    """`failing_calls()` raises what a call raised, with its name and place (G2)."""
    with pytest.raises(Boom) as caught, failing_calls():
        unit(lambda: defer(form(fail)).named("mail"))
    (note,) = caught.value.__notes__
    assert "<DeferredCall mail failed>" in note
    assert f"deferred at {__file__}:" in note


def test_an_expected_failure_fails_nothing(unit, form):
    """A failure that the test expects, by type and name, is taken out (G2)."""
    with failing_calls() as failed:
        unit(lambda: [defer(form(fail)).named("a"), defer(form(fail)).named("b")])
        assert [call.name for call in failed.calls] == ["a", "b"]
        assert failed.expect(Boom, "b").name == "b"
        assert failed.expect().name == "a"
        assert failed.calls == []


def test_an_expectation_that_is_not_met_fails():
    """Expecting what did not happen is an AssertionError that lists the rest (G2)."""
    with failing_calls() as failed:
        with pytest.raises(AssertionError, match="no deferred call failed with Boom"):
            failed.expect(Boom)
        with DeferScope():
            defer(fail).named("mail")
        with pytest.raises(AssertionError, match="mail failed"):
            failed.expect(LookupError)
        with pytest.raises(AssertionError, match="mail failed"):
            failed.expect(Boom, name="other")
        failed.expect(Boom, name="mail")


def test_a_timed_out_or_lost_call_fails_the_block_too(logged):
    """A call that was given up fails the block, though it raised nothing (G2, D5)."""
    held = Gate()
    with pytest.raises(AssertionError, match="mail timed_out"), failing_calls():
        in_block(lambda: defer(held.wait).named("mail").timeout(0.01))
    held.open()
    logged.wait_for("has ended after all")


def test_a_test_that_fails_already_keeps_its_own_error():
    """What the test raises is not hidden by what a call raised (G2)."""
    with pytest.raises(LookupError), failing_calls():  # noqa: PT012 - the block is what is tested
        in_block(lambda: defer(fail))
        raise LookupError


def test_good_calls_fail_nothing(unit):
    """`failing_calls()` is silent about dropped and finished calls (G2)."""
    with failing_calls() as failed:
        unit(lambda: [defer(list), defer(list).cancel()])
    assert failed.calls == []


def test_after_the_block_nobody_listens():
    """A failure after `failing_calls()` has ended concerns it no more (G2)."""
    with failing_calls() as failed:
        pass
    with DeferScope():
        defer(fail)
    assert failed.calls == []


def test_capture_works_where_calls_would_block():
    """A captured call that would wait for ever harms no test that only looks (G2)."""
    with capture() as captured:
        asyncio.run(_serve(lambda: defer(threading.Event().wait).named("for ever")))
    captured.assert_deferred("for ever", times=1)


async def _serve(body):
    async with ASGIServer(answering(body)) as server:
        await server.begin()


def test_capture_judges_by_the_commit_too():
    """What a rollback drops is not among the calls (C2, G2)."""
    with capture() as captured:
        with DeferScope(), suppress(Boom), transaction():
            defer(print, "rolled back")
            defer(print, "opted out").after_commit(False)
            defer(print, "always").always()
            raise Boom
        with transaction(), DeferScope():
            defer(print, "waits")
        assert [call.args for call in captured.calls] == [
            ("opted out",),
            ("always",),
            ("waits",),
        ]
