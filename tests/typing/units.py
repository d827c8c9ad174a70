"""B6: a DeferScope as block and as decorator keeps the types of what it surrounds."""

from typing import assert_type

from postlude import DeferScope, Outcome, defer


def blocks() -> None:
    with DeferScope() as scope:
        assert_type(scope, DeferScope)
        defer(print, "call")
        assert_type(scope.pending, int)
        assert_type(scope.ended, bool)
        assert_type(scope.outcome, Outcome | None)
        assert_type(scope.forget("n"), bool)


async def async_blocks() -> None:
    async with DeferScope() as scope:
        assert_type(scope, DeferScope)


def is_not_swallowed() -> int:
    """A block does not hide exceptions, so checkers see that this always returns."""
    with DeferScope():
        return 1


async def is_not_swallowed_either() -> int:
    async with DeferScope():
        return 1


@DeferScope()
def command(number: int, *names: str, loud: bool = False) -> str:
    return str(number) + str(names) + str(loud)


@DeferScope()
async def async_command(number: int, /) -> bytes:
    return bytes(number)


class Job:
    """Methods under the decorator stay methods."""

    @DeferScope()
    def run(self, attempt: int) -> float:
        return float(attempt)


async def calls() -> None:
    """What is right."""
    assert_type(command(1, "a", "b", loud=True), str)
    assert_type(await async_command(1), bytes)
    assert_type(Job().run(1), float)


# -- what is wrong ------------------------------------------------------------

command("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
command(1, loud="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Job().run()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
DeferScope()(7)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
DeferScope(7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def wrong() -> None:
    """What is wrong, awaited."""
    await async_command(number=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await async_command("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
