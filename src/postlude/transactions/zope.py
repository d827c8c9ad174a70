"""The `transaction` package of Zope and Pyramid: `install()`, once, and calls wait.

```python
from postlude.transactions import zope

zope.install()
```

From then on a deferred call waits for the transaction that is open in its thread, or
that a manager of one's own opened in the same unit (pyramid_tm's `request.tm`). It
begins with `begin()`, and so with `with transaction.manager:`; where nobody says
`begin()`, with the first resource that joins. `commit()` opens, `abort()` drops, and so
does a commit that fails in any of its phases. `rollback()` of a savepoint drops what
was deferred since it was made.

The package's own hooks do not suffice: those after commit and abort have every resource
aborted once more, synchronizers belong to one manager in one thread, and neither hears
of savepoints. So these public methods are wrapped: `TransactionManager.begin`, `join`,
`savepoint`, `commit` and `abort` of `Transaction`, and `rollback` of what `savepoint()`
gives. Checked on transaction 5.1.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from postlude.transactions._gate import ROLLED_BACK
from postlude.transactions._stack import FAILED, Stack
from postlude.transactions._subclasses import wrap

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install"]

_transaction: Any = import_module("transaction")
_stacks: WeakKeyDictionary[Any, Stack] = WeakKeyDictionary()
NAME = "the transaction package"


def install() -> None:
    """Have calls wait for the transactions of every manager of this process.

    Once, at any time. A second time does nothing.
    """
    wrap(_transaction.TransactionManager, {"begin": _beginning})
    wrap(
        _transaction.Transaction,
        {
            "join": _joining,
            "savepoint": _saving,
            "commit": _committing,
            "abort": _aborting,
        },
    )
    wrap(_transaction.Savepoint, {"rollback": _rolling_back})


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    def begin(self: Any) -> Any:
        transaction = original(self)
        _stack_of(transaction)
        return transaction

    return begin


def _joining(original: Callable[..., Any]) -> Callable[..., Any]:
    def join(self: Any, resource: Any) -> None:
        original(self, resource)
        _stack_of(self).wrote()  # they join when they change, by and large

    return join


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    def savepoint(self: Any, optimistic: bool = False) -> Any:
        made = original(self, optimistic)
        stack = _stack_of(self)
        # Nobody can roll back to a savepoint that nobody has kept; some make thousands.
        while (key := stack.top) is not None and key() is None:
            stack.release(key)
        stack.savepoint(ref(made))
        return made

    return savepoint


def _rolling_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def rollback(self: Any) -> None:
        stack = _stacks.get(self.transaction)
        try:
            original(self)
        finally:
            if stack is not None and ref(self) in stack:
                stack.rollback(ref(self))
                stack.savepoint(ref(self))  # one can come back here again

    return rollback


def _committing(original: Callable[..., Any]) -> Callable[..., Any]:
    def commit(self: Any) -> None:
        try:
            original(self)
        except BaseException:
            _end(self, FAILED)
            raise
        _end(self)

    return commit


def _aborting(original: Callable[..., Any]) -> Callable[..., Any]:
    def abort(self: Any) -> None:
        try:
            original(self)
        finally:
            _end(self, ROLLED_BACK)

    return abort


def _stack_of(transaction: Any) -> Stack:
    """Give the stack of a transaction, which has begun by now."""
    stack = _stacks.get(transaction)
    if stack is None:
        stack = _stacks[transaction] = Stack()
        stack.begin(NAME)
    return stack


def _end(transaction: Any, why: str | None = None) -> None:
    stack = _stacks.pop(transaction, None)
    if stack is not None:
        stack.commit() if why is None else stack.drop(why)
