"""A unit of work against a model of the contract, under random programs.

Hypothesis writes a program: what is deferred with which options, what running calls do
in their turn (defer, cancel, forget, name, raise), how the unit ends, what comes late.
The model below says what must happen; whatever differs is printed as a program.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model import Model, Spec

import postlude
from postlude import CallStartedError, DeferScope, defer, forget

pytestmark = pytest.mark.timeout(600)  # half a minute on two idle cores
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 50)
FORMS = st.sampled_from(["sync", "async", "awaitable"])
RULES = st.sampled_from([None, None, None, "always", "true", "false", "raises"])
"""What a call's condition says; plain calls are the most common ones."""


class Boom(Exception):  # noqa: N818 - it stands for no error in particular
    """What units, calls and conditions raise."""


def specs(depth: int) -> st.SearchStrategy[Spec]:
    """Describe calls whose scripts nest to a depth."""
    actions = [
        st.tuples(st.just("cancel"), NUMBERS),
        st.tuples(st.just("forget"), NAMES),
        st.tuples(st.just("name"), NUMBERS, NAMES),
        st.just(("raise",)),
    ]
    if depth:
        actions.append(st.tuples(st.just("defer"), specs(depth - 1)))
    single = st.builds(
        Spec,
        form=FORMS,
        rule=RULES,
        name=st.none() | NAMES,
        script=st.lists(st.one_of(actions), max_size=3).map(tuple),
    )
    # What members of a group do to others has no order, so they do nothing to others.
    member = st.builds(
        Spec,
        form=FORMS,
        rule=RULES,
        name=st.none() | NAMES,
        grouped=st.just(True),
        script=st.sampled_from([(), (("raise",),)]),
    )
    return single | single | member


class Real(NamedTuple):
    """What really happened."""

    calls: list[postlude.DeferredCall]
    log: list[tuple[Any, ...]]
    deferring: Any
    """Held until a call is in the list: a late one may begin before `defer` returns."""

    def defer(self, spec: Spec) -> None:
        """Defer a call that notes what it does."""
        with self.deferring:
            number = len(self.calls)
            call = defer(self._function(spec, number))
            self.calls.append(call)
        if spec.name is not None:
            call.named(spec.name)
        if spec.grouped:
            call.concurrently()
        if spec.rule == "always":
            call.always()
        elif spec.rule is not None:
            call.when(lambda _outcome: self._asked(spec.rule, number))

    def _asked(self, answer: str | None, number: int) -> bool:
        self.log.append(("asked", number))
        if answer == "raises":
            raise Boom
        return answer == "true"

    def _function(self, spec: Spec, number: int) -> Callable[[], object]:
        def run() -> None:
            with self.deferring:
                self.log.append(("begins", number))
            for action in spec.script:
                self.act(action)
            self.log.append(("ends", number))

        async def arun() -> None:
            await asyncio.sleep(0)
            run()

        def make() -> object:
            return arun()

        return {"sync": run, "async": arun, "awaitable": make}[spec.form]

    def act(self, action: tuple[Any, ...]) -> None:
        """Do one step of a script."""
        match action:
            case ("defer", spec):
                self.defer(spec)
            case ("raise",):
                raise Boom
            case ("forget", name):
                self.log.append(("forget", name, forget(name)))
            case ("cancel" | "name" as option, number, *rest):
                self._change(option, number % len(self.calls), *rest)

    def _change(self, option: str, number: int, *rest: str) -> None:
        call = self.calls[number]
        try:
            call.cancel() if option == "cancel" else call.named(*rest)
        except CallStartedError:
            self.log.append((option, number, "too late"))


class UnitOfWork(RuleBasedStateMachine):
    """One unit, from its first `defer` to its late calls (A6, A7, C1 to C5, D1, D2)."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.real = Real([], [], threading.RLock())
        self.scope = DeferScope()
        self.context = Context()
        self.enter()

    # What a kind of block does differently.

    def enter(self) -> None:
        """Open the block in the context of this machine."""
        raise NotImplementedError

    def leave(self, error: Boom | None) -> None:
        """Leave the block, by an error or in good order."""
        raise NotImplementedError

    def inside(self, work: Callable[..., object], *args: object) -> None:
        """Run a step of the program where the block's code runs."""
        raise NotImplementedError

    # The steps of a program.

    @precondition(lambda self: not self.model.ended)
    @rule(spec=specs(2))
    def defer(self, spec: Spec) -> None:
        """Defer a call."""
        self.inside(self.real.defer, spec)
        self.model.defer(spec)

    @precondition(lambda self: self.model.calls)
    @rule(number=NUMBERS, name=st.none() | NAMES)
    def change(self, number: int, name: str | None) -> None:
        """Cancel or name any call, whatever has become of it."""
        action = ("cancel", number) if name is None else ("name", number, name)
        self.inside(self.real.act, action)
        self.model.act(action)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        """Take back a call by its name."""
        self.inside(self.real.act, ("forget", name))
        self.model.act(("forget", name))

    @precondition(lambda self: len(self.model.calls) > 3 and not self.model.ended)
    @rule(ok=st.booleans())
    def end(self, ok: bool) -> None:
        """Leave the block."""
        self.leave(None if ok else Boom())
        self.model.end(ok)

    @precondition(lambda self: self.model.ended)
    @rule(ok=st.booleans())
    def end_again(self, ok: bool) -> None:
        """End the unit once more, in another way even: nothing happens (C5)."""
        assert not self.scope.close()
        assert not self.scope.end()
        self.leave(None if ok else Boom())

    @precondition(lambda self: self.model.ended)
    @rule(spec=specs(2))
    def late(self, spec: Spec) -> None:
        """Defer a call after the end. It may begin at once, so it has no options."""
        plain = Spec(form=spec.form, script=spec.script)
        self.inside(self.real.defer, plain)
        postlude.drain(20)
        self.model.late(plain)

    # What must hold after every step.

    @invariant()
    def states_are_as_the_model_says(self) -> None:
        """Each call has one state and reason, the right one (C5)."""
        found = [(call.state, call.reason) for call in self.real.calls]
        assert found == [(call.state, call.reason) for call in self.model.calls]

    @invariant()
    def everything_ran_in_order_and_once(self) -> None:
        """What ran, was asked and was refused is what the model says, in order (D1)."""
        rest = list(self.real.log)
        for together in self.model.log:
            now, rest = rest[: len(together)], rest[len(together) :]
            assert sorted(now, key=repr) == sorted(together, key=repr)
        assert rest == []

    @invariant()
    def no_call_is_left(self) -> None:
        """Once the unit has ended there is nothing pending in it (B6, A7)."""
        if self.model.ended:
            assert self.scope.pending == 0

    def teardown(self) -> None:
        """Leave the block if the program did not."""
        if not self.model.ended:
            self.leave(None)


class SyncBlock(UnitOfWork):
    """The unit is a `with` block; async calls run on Postlude's own loop."""

    def enter(self) -> None:
        """Open the block."""
        self.context.run(self.scope.__enter__)

    def leave(self, error: Boom | None) -> None:
        """Leave the block."""
        self.context.run(self.scope.__exit__, error and Boom, error, None)

    def inside(self, work: Callable[..., object], *args: object) -> None:
        """Run a step in the context of the block, as a task that outlived it has it."""
        token = self.context.run(_enter_again, self.scope)
        self.context.run(work, *args)
        self.context.run(_leave_again, token)


class AsyncBlock(SyncBlock):
    """The unit is an `async with` block on a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        super().__init__()

    def _run(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine, context=self.context)
        self.loop.run_until_complete(task)

    def enter(self) -> None:
        """Open the block."""
        self._run(self.scope.__aenter__())

    def leave(self, error: Boom | None) -> None:
        """Leave the block."""
        self._run(self.scope.__aexit__(error and Boom, error, None))

    def inside(self, work: Callable[..., object], *args: object) -> None:
        """Run a step on the loop."""

        async def step() -> None:
            token = _enter_again(self.scope)
            work(*args)
            _leave_again(token)

        self._run(step())

    def teardown(self) -> None:
        """Leave the block and close the loop."""
        super().teardown()
        postlude.drain(20)
        self._run(asyncio.sleep(0))
        self.loop.close()


def _enter_again(scope: DeferScope) -> Any:
    return postlude._scope.current.set(scope)


def _leave_again(token: Any) -> None:
    postlude._scope.current.reset(token)


class TestSyncBlock(SyncBlock.TestCase):
    """Random programs in a `with` block (A6, A7, C1, C3, C4, C5, D1, D2)."""


class TestAsyncBlock(AsyncBlock.TestCase):
    """Random programs in an `async with` block (A6, A7, C1, C3, C4, C5, D1, D2)."""


TestSyncBlock.settings = settings(stateful_step_count=25)
TestAsyncBlock.settings = settings(stateful_step_count=25)
