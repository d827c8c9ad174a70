"""Bad input: a clear error in three beats or the stated rule, and nothing lost."""

import gc

import pytest
from stage import Boom

from postlude import (
    CallStartedError,
    DeferScope,
    NoQueueError,
    PostludeError,
    defer,
    defer_all,
    failure_store,
)


async def send_mail(order):
    """Stand for the async function of somebody."""


def numbers():
    """Stand for a generator function."""
    yield 1


async def async_numbers():
    """Stand for an async generator function."""
    yield 1


def three_beats(error, what, cause, fix):
    """Check that a text says what happened, the usual cause, and the exact fix."""
    text = str(error)
    assert text.startswith(what)
    assert cause in text
    assert fix in text
    assert text.index(cause) < text.rindex(fix)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "None"),
        ("send_mail", "an object of type 'str'"),
        (7, "an object of type 'int'"),
        ([], "an object of type 'list'"),
        (Boom(), "an object of type 'Boom'"),
    ],
)
def test_what_is_not_callable(value, named):
    """What cannot be called is a TypeError that names its type and the fix (A4)."""
    with DeferScope() as scope:
        with pytest.raises(TypeError) as caught:
            defer(value)
        assert scope.pending == 0
    three_beats(
        caught.value,
        f"defer() got {named}, which cannot be called.",
        "Usually the function was called by mistake",
        "`defer(fn, arg)`, not `defer(fn(arg))`",
    )


def test_a_coroutine_object():
    """A coroutine object is a TypeError that names the function and the fix (A4)."""
    with DeferScope(), pytest.raises(TypeError) as caught:
        defer(send_mail("order"))
    three_beats(
        caught.value,
        "defer() got the coroutine object send_mail, not a coroutine function.",
        "Usually the async function was called by mistake",
        "`defer(send_mail, ...)`, not `defer(send_mail(...))`",
    )
    del caught
    gc.collect()  # a coroutine that nobody awaited would warn, and fail this test


@pytest.mark.parametrize("function", [numbers, async_numbers])
def test_a_generator_function(function):
    """A function with a `yield`, which would run nothing, is a TypeError (A4)."""
    with DeferScope(), pytest.raises(TypeError) as caught:
        defer(function)
    three_beats(
        caught.value,
        f"defer() got the generator function {__name__}:{function.__name__}",
        "Usually a `yield` was left in it.",
        "Pass a function that does the work",
    )


def test_nothing_at_all():
    """`defer()` without a function is Python's own TypeError (A4)."""
    with DeferScope(), pytest.raises(TypeError, match="fn"):
        defer()


def test_a_wrong_member_of_a_group():
    """One wrong function refuses the whole group (A4, D1)."""
    seen = []
    with DeferScope() as scope:
        with pytest.raises(TypeError, match="None, which cannot be called"):
            defer_all(lambda: seen.append(1), None)
        assert scope.pending == 0
    assert seen == []


def test_without_a_unit_bad_input_is_the_same_error():
    """What cannot be called is refused before anybody asks for the unit (A4)."""
    with pytest.raises(TypeError, match="cannot be called"):
        defer(None)
    with pytest.raises(TypeError, match="coroutine object"):
        defer(send_mail("order"))


def test_wrong_arguments_are_a_failure_at_run_time(unit, form):
    """Arguments that do not fit are recorded with the call's place, not raised (D2)."""
    calls = []
    unit(lambda: calls.append(defer(form(lambda: None), "one too many")))
    (record,) = failure_store().list()
    assert record.exception.startswith("TypeError(")
    assert record.site == calls[0].site


@pytest.mark.parametrize(
    ("name", "kind"),
    [(7, "int"), (None, "NoneType"), (b"mail", "bytes"), ("", "str"), (True, "bool")],
)
def test_a_name_that_is_no_name(name, kind):
    """A name that is not a non-empty string is a TypeError; the call stays (C3)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        with pytest.raises(TypeError) as caught:
            call.named(name)
    three_beats(
        caught.value,
        f".named() got {name!r} ({kind}), and a name is a non-empty string.",
        "Usually an id was passed as it is.",
        "Use `.named(f'...-{id}')`",
    )
    assert seen == [1]


@pytest.mark.parametrize(
    "seconds", [-1, 0, -0.5, float("inf"), float("nan"), "5", None, True, 1j]
)
def test_a_time_out_that_is_no_time(seconds):
    """A time-out that is not a positive number is a ValueError; the call stays (D5)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        with pytest.raises(ValueError, match="timeout") as caught:
            call.timeout(seconds)
    three_beats(
        caught.value,
        f".timeout() got {seconds!r}, and a timeout is a positive number",
        "Usually milliseconds were meant",
        "Use `.timeout(2.5)`",
    )
    assert seen == [1]


@pytest.mark.parametrize("condition", [True, None, "ok"])
def test_a_condition_that_cannot_be_asked(condition):
    """A condition that is no function is a TypeError; the call stays plain (C1)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        with pytest.raises(TypeError) as caught:
            call.when(condition)
    three_beats(
        caught.value,
        ".when() got ",
        "The condition is decided after the response",
        "`.when(lambda outcome: ...)`",
    )
    assert seen == [1]


OPTIONS = {
    "named": lambda call: call.named("n"),
    "always": lambda call: call.always(),
    "when": lambda call: call.when(bool),
    "timeout": lambda call: call.timeout(1),
    "after_commit": lambda call: call.after_commit(),
    "concurrently": lambda call: call.concurrently(),
    "cancel": lambda call: call.cancel(),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_on_a_call_that_is_over(option):
    """An option after the call has started is an error that names both (A2)."""

    def fail():
        raise Boom

    with DeferScope():
        calls = [defer(list).named("done"), defer(fail).named("failed")]
    for call in calls:
        with pytest.raises(CallStartedError) as caught:
            OPTIONS[option](call)
        three_beats(
            caught.value,
            f".{option}() was called on <DeferredCall {call.name} {call.name}>",
            "Usually the handle was kept",
            f"`defer(fn).{option}(...)`",
        )
        assert isinstance(caught.value, PostludeError)
        assert isinstance(caught.value, RuntimeError)
    assert [call.state for call in calls] == ["done", "failed"]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_on_a_call_that_is_running(option, form):
    """A running call refuses options like one that is over, and goes on (A2)."""
    errors = []

    def change():
        with pytest.raises(CallStartedError) as caught:
            OPTIONS[option](call)
        errors.append(caught.value)

    with DeferScope():
        call = defer(form(change))
    assert len(errors) == 1
    assert call.state == "done"


@pytest.mark.parametrize("option", ["retry", "durable"])
def test_a_promise_that_needs_a_queue(option):
    """Without a queue its options are refused, and the call does not run (A2, F1)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        with pytest.raises(NoQueueError) as caught:
            call.retry(3, backoff=2.0) if option == "retry" else call.durable()
        defer(seen.append, 2)
    three_beats(
        caught.value,
        f".{option}() was asked for builtins:list.append, and no queue is configured:",
        "Usually the setting is missing.",
        "`postlude.configure(queue='sqlite:///postlude-queue.db')`",
    )
    assert (seen, call.state, call.reason) == ([2], "dropped", "cancelled")


def test_waiting_for_a_commit_is_an_option_like_the_others():
    """`.after_commit()` takes True, False and nothing; no transaction, no wait (B3)."""
    seen = []
    with DeferScope():
        defer(seen.append, 1).after_commit()
        defer(seen.append, 2).after_commit(True)
        defer(seen.append, 3).after_commit(False)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("function", [numbers, async_numbers])
def test_a_generator_function_cannot_be_a_unit(function):
    """`@DeferScope()` on a generator function is a TypeError with the way out (B6)."""
    with pytest.raises(TypeError) as caught:
        DeferScope()(function)
    three_beats(
        caught.value,
        f"@DeferScope() was put on {__name__}:{function.__name__}",
        "calling it runs none of its body",
        "Use `with DeferScope():` inside its body instead.",
    )


def test_what_is_not_callable_cannot_be_a_unit():
    """`@DeferScope()` on something else than a function is a TypeError (B6)."""
    with pytest.raises(TypeError, match="cannot be called"):
        DeferScope()(7)
