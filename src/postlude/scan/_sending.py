"""A place that hands a task to its queue, and what becomes of what that gives."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from postlude.scan._scopes import Module, Scope

LATER = frozenset({"on_commit", "run_after_commit", "call_after_commit", "defer"})
"""Functions that run what they are given later, and give no result."""


class Send(NamedTuple):
    """One place that hands a task to its queue."""

    node: ast.Call
    scope: Scope
    verb: str
    options: Mapping[str | None, ast.expr]
    """What the send says besides the task's own arguments."""


def is_dropped(module: Module, call: ast.Call) -> bool:
    """Tell whether nobody keeps what a send gives."""
    node: ast.AST = call
    parent = module.parents.get(node)
    while isinstance(parent, ast.Await | ast.IfExp | ast.BoolOp):
        node, parent = parent, module.parents.get(parent)
    if isinstance(parent, ast.Lambda):
        outer = module.parents.get(parent)
        return isinstance(outer, ast.Call) and last_name(outer.func) in LATER
    return isinstance(parent, ast.Expr)


def is_in_loop(module: Module, node: ast.AST, scope: Scope) -> bool:
    """Tell whether *node* is run again and again by the function around it."""
    at: ast.AST | None = node
    while at is not None and at is not scope.node:
        at = module.parents.get(at)
        if isinstance(at, _LOOPS):
            return True
    return False


_LOOPS = (
    ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.GeneratorExp,
    ast.DictComp,
)  # fmt: skip


def last_name(node: ast.expr) -> str:
    """Give the last part of a dotted name: `commit` of `session.commit`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
