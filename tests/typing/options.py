"""A2: options chain, keep the type, and take what they say."""

from collections.abc import Callable
from typing import Any, Literal, assert_type

from postlude import DeferredCall, Outcome, current_call, defer, queue


def nothing() -> None: ...


call = defer(nothing)

# -- what is right ------------------------------------------------------------

assert_type(call.named("n"), DeferredCall)
assert_type(call.always(), DeferredCall)
assert_type(call.when(lambda outcome: outcome.ok), DeferredCall)
assert_type(call.when(lambda outcome: outcome.exception), DeferredCall)
assert_type(call.timeout(2.5), DeferredCall)
assert_type(call.timeout(2), DeferredCall)
assert_type(call.after_commit(), DeferredCall)
assert_type(call.after_commit(False), DeferredCall)
assert_type(call.concurrently(), DeferredCall)
assert_type(call.cancel(), DeferredCall)
assert_type(
    defer(nothing).named("n").always().when(bool).timeout(1).concurrently().cancel(),
    DeferredCall,
)


def of_outcome(outcome: Outcome) -> bool:
    """Decide like a user's own condition."""
    assert_type(outcome.ok, bool)
    assert_type(outcome.status, int | None)
    assert_type(outcome.exception, BaseException | None)
    assert_type(outcome.delivered, bool)
    assert_type(outcome.committed, bool | None)
    assert_type(outcome.reason, str | None)
    return outcome.ok


call.when(of_outcome)

assert_type(call.name, str)
assert_type(call.id, str)
assert_type(call.site, str)
assert_type(call.outcome, Outcome | None)
assert_type(
    call.state,
    Literal[
        "pending",
        "running",
        "done",
        "failed",
        "timed_out",
        "handed_over",
        "lost",
        "dropped",
    ],
)
assert_type(
    call.reason,
    Literal["outcome", "rollback", "cancelled", "replaced", "overflow"] | None,
)
assert_type(call.exception, BaseException | None)
assert_type(call.started, float | None)
assert_type(call.fn, Callable[..., object])
assert_type(call.args, tuple[Any, ...])
assert_type(call.kwargs, dict[str, Any])


assert_type(call.retry(3, backoff=2.0), DeferredCall)
assert_type(call.retry(3, backoff=[1, 10, 60]).durable(), DeferredCall)
assert_type(queue(print, "later", delay=5, key="one"), DeferredCall)
assert_type(current_call(), DeferredCall | None)


# -- what is wrong ------------------------------------------------------------

call.named(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.named(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.named()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
call.always(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
call.when(True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.when(lambda: True)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
call.when(lambda outcome: outcome.okay)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
call.timeout("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.timeout(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.after_commit("yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.nammed("n")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
Outcome().ok = False  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
call.state = "finished"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
call.retry("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
call.retry(3, backoff="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
