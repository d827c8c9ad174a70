"""C3 and C4: names, and taking calls back."""

import threading
from contextvars import copy_context

import pytest
from stage import Boom

from postlude import CallStartedError, DeferScope, _names, defer, defer_all, forget


def test_the_last_registration_of_a_name_wins_at_its_own_place(unit, form):
    """`a, b, a` runs `b, a`: the later takes the earlier's name, not its place (C3)."""
    seen = []
    calls = []

    def body():
        for name, value in (("a", 1), ("b", 2), ("a", 3)):
            calls.append(defer(form(seen.append), value).named(name))

    unit(body)
    assert seen == [2, 3]
    assert [(call.state, call.reason) for call in calls] == [
        ("dropped", "replaced"),
        ("done", None),
        ("done", None),
    ]


@pytest.mark.parametrize(
    ("one", "two"), [("1", "01"), ("a", "A"), ("a", "a "), ("ä", "a\u0308")]
)
def test_names_are_compared_exactly(one, two):
    """Names that look alike are two names (C3)."""
    seen = []
    with DeferScope():
        defer(seen.append, 1).named(one)
        defer(seen.append, 2).named(two)
    assert seen == [1, 2]


def test_the_name_of_a_function_is_no_name():
    """Calls without `.named()` do not replace each other, nor can be forgotten (C3)."""
    seen = []
    with DeferScope():
        name = defer(seen.append, 1).name
        defer(seen.append, 2)
        assert not forget(name)
    assert seen == [1, 2]


def test_a_running_call_may_register_a_name_anew(unit, form):
    """From inside a running call a later call is replaced if it has not begun (C3)."""
    seen = []

    def body():
        defer(form(lambda: defer(form(seen.append), "new").named("n")))
        defer(form(seen.append), "old").named("n")
        defer(form(seen.append), "between")

    unit(body)
    assert seen == ["between", "new"]


def test_a_call_that_has_started_is_not_replaced(unit, form):
    """A name registered again after its call began belongs to a second call (C3)."""
    seen = []

    def again():
        seen.append("old")
        defer(form(seen.append), "new").named("n")

    unit(lambda: defer(form(again)).named("n"))
    assert seen == ["old", "new"]


def test_a_call_may_replace_itself_by_name_without_being_lost():
    """Giving a call its own name again changes nothing (C3)."""
    seen = []
    with DeferScope():
        defer(seen.append, 1).named("n").named("n")
    assert seen == [1]


def test_a_call_that_was_renamed_gives_its_old_name_free():
    """Only the last name of a call counts: its old one replaces nothing (C3)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1).named("old").named("new")
        assert call.name == "new"
        assert not forget("old")
        defer(seen.append, 2).named("old")
    assert seen == [1, 2]


def test_a_name_whose_call_was_cancelled_is_free():
    """After a cancelled call its name can be used again (C3)."""
    seen = []
    with DeferScope():
        defer(seen.append, 1).named("n").cancel()
        defer(seen.append, 2).named("n")
    assert seen == [2]


def test_names_belong_to_their_unit():
    """A name in a nested unit concerns no call of the outer one (C3, A8)."""
    seen = []
    with DeferScope():
        defer(seen.append, "outer").named("n")
        with DeferScope():
            assert not forget("n")
            defer(seen.append, "inner").named("n")
        assert forget("n")
        defer(seen.append, "last").named("n")
    assert seen == ["inner", "last"]


def test_naming_a_member_of_a_group_replaces_as_ever():
    """Names work across groups and single calls (C3, D1)."""
    seen = []
    with DeferScope():
        one, _ = defer_all(lambda: seen.append(1), lambda: seen.append(2))
        one.named("n")
        defer(seen.append, 3).named("n")
    assert (seen, one.reason) == ([2, 3], "replaced")


def test_a_call_can_be_cancelled_until_it_starts(unit, form):
    """`.cancel()` drops a call, also from inside an earlier call of the drain (C4)."""
    seen = []
    calls = []

    def body():
        defer(form(lambda: calls[0].cancel()))  # noqa: PLW0108 - there is no call yet
        calls.append(defer(form(seen.append), "never"))
        calls.append(defer(form(seen.append), "cancelled").cancel())
        defer(form(seen.append), "next")

    unit(body)
    assert seen == ["next"]
    assert [call.reason for call in calls] == ["cancelled", "cancelled"]


def test_a_call_can_be_forgotten_by_name_until_it_starts(unit, form):
    """`forget(name)` drops a call, also from inside an earlier one (C4)."""
    seen = []
    answers = []

    def body():
        defer(form(lambda: answers.append(forget("later"))))
        calls.append(defer(form(seen.append), "never").named("later"))
        defer(form(seen.append), "never").named("now")
        answers.append(forget("now"))
        answers.append(forget("now"))
        answers.append(forget("unknown"))

    calls = []
    unit(body)
    assert seen == []
    assert answers == [True, False, False, True]
    assert (calls[0].state, calls[0].reason) == ("dropped", "cancelled")


def test_what_has_started_cannot_be_forgotten(unit, form):
    """`forget` of a running or finished call is False and changes nothing (C4)."""
    answers = []
    calls = []

    def body():
        calls.append(defer(form(lambda: answers.append(forget("n")))).named("n"))
        defer(form(lambda: answers.append(forget("n"))))

    unit(body)
    assert answers == [False, False]
    assert calls[0].state == "done"


def test_what_has_started_cannot_be_cancelled(unit, form):
    """`.cancel()` of a running call is an error that names option and call (C4)."""
    errors = []
    calls = []

    def cancel():
        with pytest.raises(CallStartedError) as caught:
            calls[0].cancel()
        errors.append(str(caught.value))

    unit(lambda: calls.append(defer(form(cancel)).named("mine")))
    assert calls[0].state == "done"
    assert len(errors) == 1
    assert ".cancel() was called on <DeferredCall mine running>" in errors[0]


def test_what_starts_at_this_very_moment_cannot_be_cancelled():
    """A call that somebody has out of the line runs; `cancel` must not say yes (C4)."""
    seen = []
    with DeferScope() as scope:
        call = defer(seen.append, 1)
        (taken,) = scope._calls[:]
        scope._calls.clear()  # as a thread does that is about to run it
        with pytest.raises(CallStartedError, match=r"(?s)cancel.*Usually"):
            call.cancel()
        assert call.state == "pending"
        scope._calls.append(taken)
    assert seen == [1]


def test_cancelling_twice_is_cancelling_once():
    """A call that is dropped already may be cancelled and changed in vain (C4)."""
    with DeferScope():
        call = defer(list).cancel().cancel().always().named("n")
    assert (call.state, call.reason) == ("dropped", "cancelled")


def test_a_condition_may_cancel_its_own_call():
    """A call that is taken back while its condition is asked does not run (C4)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        call.when(lambda outcome: call.cancel())
        defer(seen.append, 2)
    assert (seen, call.reason) == ([2], "cancelled")


def test_forgetting_outside_every_unit_is_false():
    """With no unit there is nothing to forget (C4)."""
    assert not forget("n")


def test_threads_that_share_a_name_leave_one_call():
    """Threads that register one name at once leave exactly one call of it (C3, C5)."""
    seen = []
    calls = []
    start = threading.Barrier(8)

    def register(number):
        start.wait()
        for _ in range(50):
            calls.append(defer(seen.append, number).named("n"))  # noqa: PERF401 - one by one, beside the others

    with DeferScope():
        threads = [
            threading.Thread(target=copy_context().run, args=(register, number))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 1
    reasons = [call.reason for call in calls]
    assert len(reasons) == 400
    assert reasons.count("replaced") == 399


def test_an_exception_in_the_unit_drops_named_calls_alike():
    """A name is no reason to run after a failure (C1, C3)."""
    seen = []
    with pytest.raises(Boom), DeferScope():  # noqa: PT012 - the block is what is tested
        defer(seen.append, 1).named("n")
        raise Boom
    assert seen == []


def test_a_place_is_that_of_its_own_code():
    """A place is looked up once; code made at run time is not taken for other (E1)."""
    source = "{lines}def handler(defer):\n    return defer(print)\n"
    for lines in range(1_200):  # more than are kept, with ids that come again
        space = {}
        text = source.format(lines="\n" * lines)
        exec(compile(text, f"made{lines}.py", "exec"), space)  # noqa: S102 - its own text
        with DeferScope():
            call = space["handler"](defer)
            call.cancel()
        assert call.site == f"made{lines}.py:{lines + 2} in handler"
        assert call.site == f"made{lines}.py:{lines + 2} in handler"
    assert len(_names._sites) <= 1_000
