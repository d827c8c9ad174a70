"""A2, A3: the arguments of a deferred call are those of its function."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import assert_type

from postlude import DeferredCall, DeferScope, current_scope, defer, defer_all, forget


class Order:
    """What functions of an application take."""

    id: int = 1

    def confirm(self, how: str, *, urgent: bool = False) -> None: ...

    async def ship(self, to: str) -> str:
        return to

    def __call__(self, weight: float) -> None: ...


def mail(order: Order, subject: str = "", *, copies: int = 1) -> bool:
    return bool(order.id and subject and copies)


async def publish(topic: str, *parts: bytes) -> int:
    return len(topic) + len(parts)


def log(**fields: int) -> None: ...


def takes_fn(fn: int, *, self: str) -> None: ...


def nothing() -> None: ...


order = Order()

# -- what is right ------------------------------------------------------------

assert_type(defer(nothing), DeferredCall)
assert_type(defer(mail, order), DeferredCall)
assert_type(defer(mail, order, "subject", copies=2), DeferredCall)
assert_type(defer(mail, order=order, subject="by name"), DeferredCall)
assert_type(defer(publish, "topic", b"1", b"2"), DeferredCall)
assert_type(defer(log, a=1, b=2), DeferredCall)
assert_type(defer(order.confirm, "now", urgent=True), DeferredCall)
assert_type(defer(order.ship, "home"), DeferredCall)
assert_type(defer(order, 2.5), DeferredCall)
assert_type(defer(Order), DeferredCall)
assert_type(defer(partial(mail, order), "subject"), DeferredCall)
assert_type(defer(lambda: mail(order)), DeferredCall)
assert_type(defer(lambda: publish("topic")), DeferredCall)
assert_type(defer([1].append, 2), DeferredCall)
assert_type(defer(takes_fn, 1, self="me"), DeferredCall)


@defer
def decorated() -> None: ...


@defer
async def async_decorated() -> None: ...


assert_type(decorated, DeferredCall)
assert_type(async_decorated, DeferredCall)

assert_type(defer_all(nothing, lambda: mail(order)), tuple[DeferredCall, ...])
assert_type(defer_all(partial(publish, "topic"), nothing), tuple[DeferredCall, ...])
assert_type(defer_all(), tuple[DeferredCall, ...])
assert_type(forget("name"), bool)
assert_type(current_scope(), DeferScope | None)


def generic(fn: Callable[[], Awaitable[None]], other: Callable[[int], object]) -> None:
    """A function that was handed in can be handed on."""
    defer(fn)
    defer(other, 1)


# -- what is wrong ------------------------------------------------------------

# mypy does not look into a partial that is handed on.
defer(partial(mail, order), 7)  # pyright: ignore[reportArgumentType]
defer(mail)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(mail, "no order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(mail, order, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(mail, order, "a", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(mail, order, copies="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(mail, order, copy=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(publish, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(publish, "topic", "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(log, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(log, a="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(nothing, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(order.confirm)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer(order.ship, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(order, "heavy")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
defer("mail", order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
defer(publish("topic"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
defer(mail(order))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
defer(fn=nothing)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
defer()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@defer  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
def with_parameters(order: Order) -> None: ...


defer_all(mail)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
defer_all(nothing, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
forget(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
