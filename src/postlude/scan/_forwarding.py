"""The project's own functions that are given a task and only send it.

Many projects have one: `def after_commit(task, **options): on_commit(lambda:
task.apply_async(**options))`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

from postlude.scan._project import keywords
from postlude.scan._sending import is_dropped

if TYPE_CHECKING:
    from postlude.scan._engines import Engine
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function, Module, Scope


def forwarded(
    project: Project, engine: Engine, module: Module, chain: ast.expr, scope: Scope
) -> tuple[ast.Call, Mapping[str | None, ast.expr]] | None:
    """Give the call that *chain*, a task, is given to, and what that says of the send.

    None if it is no such function, or does anything else with the task.
    """
    parent = module.parents.get(chain)
    if isinstance(parent, ast.keyword):
        parent = module.parents.get(parent)
    if not isinstance(parent, ast.Call) or parent.func is chain:
        return None
    function = project.called(parent, scope)
    if function is None or function.owner is not None:
        return None
    name = _parameter(function, parent, chain)
    sends = None if name is None else _sends(engine, function, name)
    if sends is None:
        return None
    said: dict[str | None, ast.expr] = {}
    for send in sends:
        for option, value in keywords(send).items():
            if option is not None:
                said[option] = value
            elif not _is_own_rest(function, value):
                said[None] = value
            else:
                said.update(_rest(function, parent))
    return parent, said


def _parameter(function: Function, call: ast.Call, chain: ast.expr) -> str | None:
    """Give the name under which the function gets the task."""
    names = [a.arg for a in (*function.node.args.posonlyargs, *function.node.args.args)]
    for name, argument in zip(names, call.args, strict=False):
        if argument is chain:
            return name
    return next((k.arg for k in call.keywords if k.value is chain), None)


def _sends(engine: Engine, function: Function, name: str) -> list[ast.Call] | None:
    """Give the sends of the parameter *name*; None if it is used in another way."""
    module = function.module
    found: list[ast.Call] = []
    for chain, scope in module.chains:
        if scope.function is not function or _root(chain) != name:
            continue
        parent = module.parents.get(chain)
        if not isinstance(chain, ast.Attribute) or not isinstance(parent, ast.Call):
            return None
        if parent.func is not chain or not isinstance(chain.value, ast.Name):
            return None
        if chain.attr in engine.direct:
            continue
        if chain.attr not in engine.sends or not is_dropped(module, parent):
            return None
        found.append(parent)
    return found or None


def _root(chain: ast.expr) -> str | None:
    while isinstance(chain, ast.Attribute):
        chain = chain.value
    return chain.id if isinstance(chain, ast.Name) else None


def _is_own_rest(function: Function, value: ast.expr) -> bool:
    rest = function.node.args.kwarg
    return rest is not None and isinstance(value, ast.Name) and value.id == rest.arg


def _rest(function: Function, call: ast.Call) -> Mapping[str | None, ast.expr]:
    """Give what of a call ends up in the function's `**options`."""
    arguments = function.node.args
    named = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
    return {k: v for k, v in keywords(call).items() if k not in named}
