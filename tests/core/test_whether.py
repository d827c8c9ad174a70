"""C1 and C5: which calls run, and the one state in which each of them ends."""

import asyncio

import pytest
from stage import ASGIServer, Boom, Gate, answering, replying, visit

from postlude import DeferScope, Outcome, configure, defer, failure_store
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware


def judged(status, raised=None):
    """Defer one call of each rule, and note what becomes of them."""
    calls = {}

    def body():
        calls["plain"] = defer(list)
        calls["always"] = defer(list).always()
        calls["asked"] = defer(list).when(lambda outcome: outcome.status == status)
        calls["refused"] = defer(list).when(lambda outcome: False)

    return body, calls


def ends(calls):
    """Give the state and reason of each call."""
    return {name: (call.state, call.reason) for name, call in calls.items()}


RAN, DROPPED = ("done", None), ("dropped", "outcome")


@pytest.mark.parametrize("status", [200, 204, 302, 304, 399])
async def test_a_good_status_runs_plain_calls(status):
    """With a status below 400 plain calls run, those on condition as it says (C1)."""
    body, calls = judged(status)
    async with ASGIServer(answering(body, status)) as server:
        await server.begin()
    assert ends(calls) == {
        "plain": RAN,
        "always": RAN,
        "asked": RAN,
        "refused": DROPPED,
    }


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_a_bad_status_drops_plain_calls(status):
    """From status 400 on plain calls are dropped, `.always()` runs (C1)."""
    body, calls = judged(status)
    async with ASGIServer(answering(body, status)) as server:
        await server.begin()
    assert ends(calls) == {
        "plain": DROPPED,
        "always": RAN,
        "asked": RAN,
        "refused": DROPPED,
    }


@pytest.mark.parametrize(
    ("status", "plain"), [(200, RAN), (304, RAN), (399, RAN), (400, DROPPED)]
)
def test_a_wsgi_status_decides_the_same(status, plain):
    """Under WSGI the status decides as under ASGI (C1)."""
    body, calls = judged(status)
    done = Gate()

    def last():
        body()
        defer(done.open).always()

    visit(WSGIMiddleware(replying(last, status)))
    done.wait()
    assert ends(calls) == {
        "plain": plain,
        "always": RAN,
        "asked": RAN,
        "refused": DROPPED,
    }


def test_a_unit_that_failed_runs_always_calls_only(unit, form):
    """However a unit of any kind fails, `.always()` runs and plain does not (C1)."""
    seen = []

    def body():
        defer(form(seen.append), "plain")
        defer(form(seen.append), "always").always()
        defer(form(seen.append), "on failure").when(lambda outcome: not outcome.ok)
        defer(form(seen.append), "on success").when(lambda outcome: outcome.ok)

    unit(body, fails=True)
    assert seen == ["always", "on failure"]


async def test_an_exception_before_the_response_is_a_failure():
    """An unhandled exception drops plain calls and is in the outcome (C1)."""
    outcomes = []
    body, calls = judged(500)

    async def app(scope, receive, send):
        body()
        defer(list).when(outcomes.append)
        raise Boom

    async with ASGIServer(app) as server:
        answer = await server.begin()
    assert isinstance(answer.exception, Boom)
    assert ends(calls) == {
        "plain": DROPPED,
        "always": RAN,
        "asked": RAN,
        "refused": DROPPED,
    }
    assert outcomes[0].exception is answer.exception
    assert (outcomes[0].ok, outcomes[0].reason) == (False, "unhandled Boom")


async def test_an_exception_after_the_start_is_a_failure():
    """A unit that broke after a good status had been sent has failed (C1)."""
    body, calls = judged(200)

    async def app(scope, receive, send):
        body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Boom

    async with ASGIServer(app) as server:
        await server.begin()
    assert ends(calls)["plain"] == DROPPED
    assert ends(calls)["always"] == RAN
    assert calls["plain"].outcome.status == 200


@pytest.mark.parametrize("started", [False, True])
def test_a_wsgi_exception_is_a_failure(started):
    """Under WSGI an exception from the app or its body fails the unit (C1)."""
    body, calls = judged(500)
    done = Gate()

    def app(environ, start_response):
        body()
        defer(done.open).always()
        if not started:
            raise Boom
        start_response("200 OK", [])
        return broken()

    def broken():
        yield b"half"
        raise Boom

    answer = visit(WSGIMiddleware(app))
    done.wait()
    assert isinstance(answer.exception, Boom)
    assert ends(calls)["plain"] == DROPPED
    assert ends(calls)["always"] == RAN
    assert calls["plain"].outcome.exception is answer.exception


async def test_a_request_without_a_response_has_failed():
    """An app that returns without having answered has not succeeded (C1)."""
    calls = []

    async def app(scope, receive, send):
        calls.append(defer(list))

    async with ASGIServer(app) as server:
        await server.begin()
    assert calls[0].state == "dropped"
    assert calls[0].outcome == Outcome(ok=False, reason="no response was started")


@pytest.mark.parametrize("code", [None, 0, False])
def test_exit_code_zero_is_a_success(code):
    """A block that a command leaves by `sys.exit(0)` has succeeded (C1)."""
    seen = []
    with pytest.raises(SystemExit), DeferScope():  # noqa: PT012 - the block is what is tested
        defer(seen.append, "ran")
        raise SystemExit(code)
    assert seen == ["ran"]


@pytest.mark.parametrize("code", [1, 2, "a message", ["unhashable"], True])
def test_any_other_exit_code_is_a_failure(code):
    """A block that a command leaves with another exit code has failed (C1)."""
    seen = []
    with pytest.raises(SystemExit), DeferScope():  # noqa: PT012 - the block is what is tested
        defer(seen.append, "never")
        defer(seen.append, "always").always()
        raise SystemExit(code)
    assert seen == ["always"]


@pytest.mark.parametrize("exception", [Boom, KeyboardInterrupt, GeneratorExit])
def test_an_exception_in_a_block_is_a_failure_and_goes_on(exception):
    """A block's exception fails its unit and leaves the block unchanged (C1)."""
    calls = []
    raised = exception()
    with pytest.raises(exception) as caught, DeferScope() as scope:  # noqa: PT012 - the block is what is tested
        calls.append(defer(list))
        raise raised
    assert caught.value is raised
    assert (calls[0].state, calls[0].reason) == DROPPED
    assert scope.outcome == Outcome(
        ok=False, exception=raised, reason=f"unhandled {exception.__name__}"
    )


def test_the_outcome_of_a_good_block():
    """A block that ended well is ok, delivered, without status or exception (C1)."""
    with DeferScope():
        call = defer(list)
        assert call.outcome is None
    assert call.outcome == Outcome(
        ok=True,
        status=None,
        exception=None,
        delivered=True,
        committed=None,
        reason=None,
    )


async def test_the_outcome_of_a_bad_answer_says_why():
    """The outcome of a request has its status and says why it is not ok (C1)."""
    outcomes = []
    app = answering(lambda: defer(list).when(outcomes.append), 404)
    async with ASGIServer(app) as server:
        await server.begin()
    assert outcomes == [Outcome(ok=False, status=404, reason="status 404")]


def test_an_outcome_cannot_be_changed():
    """What a condition is given is a value: setting a field is an error (C1)."""
    with pytest.raises(AttributeError):
        Outcome().ok = False


def test_a_condition_is_asked_once_right_before_its_call(unit, form):
    """Conditions are asked in their call's turn, once, after earlier calls (C1)."""
    seen = []

    def body():
        defer(form(seen.append), "first")
        defer(form(seen.append), "second").when(lambda _: seen.append("asked") or True)

    unit(body)
    assert seen == ["first", "asked", "second"]


def test_the_last_rule_wins():
    """`.always()` undoes an earlier `.when()`, and the other way round (C1)."""
    seen = []
    with DeferScope():
        defer(seen.append, "always").when(lambda outcome: False).always()
        defer(seen.append, "when").always().when(lambda outcome: False)
    assert seen == ["always"]


@pytest.mark.parametrize("exception", [Boom, KeyboardInterrupt, SystemExit])
def test_a_condition_that_raises_fails_its_call(unit, form, exception):
    """What a condition raises is the failure of its own call, and of no other (C1)."""
    seen = []
    calls = []

    def condition(outcome):
        raise exception

    def body():
        calls.append(defer(form(seen.append), "never").when(condition))
        calls.append(defer(form(seen.append), "next"))

    unit(body)
    assert seen == ["next"]
    assert [call.state for call in calls] == ["failed", "done"]
    assert isinstance(calls[0].exception, exception)
    assert [record.id for record in failure_store().list()] == [calls[0].id]


def test_each_call_ends_in_one_state(unit):
    """Done, failed, cancelled, replaced, refused: each call says which (C5)."""
    calls = {}

    def fail():
        raise Boom

    def body():
        calls["done"] = defer(list)
        calls["failed"] = defer(fail)
        calls["cancelled"] = defer(list).cancel()
        calls["replaced"] = defer(list).named("n")
        calls["last"] = defer(list).named("n")
        calls["refused"] = defer(list).when(lambda outcome: False)

    unit(body)
    assert ends(calls) == {
        "done": RAN,
        "failed": ("failed", None),
        "cancelled": ("dropped", "cancelled"),
        "replaced": ("dropped", "replaced"),
        "last": RAN,
        "refused": DROPPED,
    }
    assert isinstance(calls["failed"].exception, Boom)


def test_ending_a_unit_twice_runs_nothing_twice():
    """A unit that has ended may be ended again, and nothing happens (C5)."""
    seen = []
    scope = DeferScope()
    with scope:
        defer(seen.append, 1)
    assert not scope.close()
    assert not scope.end()
    scope.__exit__(None, None, None)
    assert seen == [1]


async def test_ending_an_async_unit_twice_runs_nothing_twice():
    """An `async with` whose end is called again runs nothing again (C5)."""
    seen = []
    scope = DeferScope()
    async with scope:
        defer(seen.append, 1)
    assert not scope.end()
    await scope.__aexit__(None, None, None)
    assert seen == [1]


def test_a_body_that_is_closed_twice_ends_its_unit_once():
    """A WSGI server that closes a response twice runs the calls once (C5)."""
    seen = []
    done = Gate()

    def handler():
        defer(seen.append, 1)
        defer(done.open)

    app = WSGIMiddleware(replying(handler))

    def twice(environ, start_response):
        body = app(environ, start_response)
        list(body)
        body.close()
        return body

    visit(twice)
    done.wait()
    assert seen == [1]


async def test_no_state_is_left_once_it_is_final():
    """A call that has run and is cancelled or forgotten afterwards stays done (C5)."""
    with DeferScope() as scope:
        call = defer(list).named("n")
    assert not scope.forget("n")
    assert (call.state, call.reason) == RAN


def test_dropped_calls_are_logged_with_reason_and_place(logged):
    """A call that is dropped says so in the log, with the reason (C5, D7)."""
    with DeferScope():
        call = defer(list).named("mail").cancel()
    assert logged.texts() == [
        f"deferred call mail dropped: cancelled (deferred at {call.site})"
    ]


def test_conditions_of_calls_in_a_group_are_asked_each(unit):
    """A group runs those of its calls whose condition holds (C1, D1)."""
    seen = []

    def body():
        for number in range(4):
            call = defer(seen.append, number).concurrently()
            call.when(lambda outcome, odd=number % 2: odd)

    unit(body)
    assert sorted(seen) == [1, 3]


def test_a_unit_of_another_protocol_is_left_alone():
    """What is neither HTTP nor WebSocket nor lifespan is passed on as it is (C1)."""
    passed = []

    async def app(scope, receive, send):
        passed.append(scope)

    scope = {"type": "something-else"}
    asyncio.run(ASGIMiddleware(app)(scope, None, None))
    assert passed == [scope]
    assert scope == {"type": "something-else"}


def test_overflow_is_a_state_too(own_threads):
    """A call that the bound refuses ends as dropped for overflow (C5, D6)."""
    configure(max_pending=1, overflow="drop")
    calls = []
    visit(WSGIMiddleware(replying(lambda: calls.extend(defer(list) for _ in "ab"))))
    assert [(call.state, call.reason) for call in calls] == [
        ("dropped", "overflow"),
        ("dropped", "overflow"),
    ]
