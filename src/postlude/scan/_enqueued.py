"""Tasks that are sent by a call that is given the function, or its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from postlude.scan._engines import ARQ, RQ, Engine
from postlude.scan._project import keywords
from postlude.scan._sending import Send, last_name
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function, Scope

_RQ_SENDS = {"enqueue": 0, "enqueue_call": 0, "enqueue_at": 1, "enqueue_in": 1}
"""With the position of the function."""
_RQ_OPTIONS = words(
    "job_timeout timeout result_ttl ttl failure_ttl depends_on job_id at_front meta "
    "retry repeat on_success on_failure on_stopped queue"
)


class Enqueued(NamedTuple):
    """A function, and a place that gives it to its queue."""

    engine: Engine
    function: Function
    send: Send | None
    """None where a worker's settings only list it."""
    named: ast.expr
    """What stands there for the function."""


def enqueued(project: Project) -> Iterator[Enqueued]:
    """Give what RQ's and arq's queues are given: a function, or its name."""
    listed = list(_arq_functions(project))
    by_name = {one.function.node.name: one.function for one in listed}
    yield from listed
    for module in project.modules.values():
        for node, scope in module.calls:
            verb = last_name(node.func)
            if verb == "enqueue_job":
                yield from _arq(by_name, node, scope)
            elif verb in _RQ_SENDS:
                yield from _rq(project, node, scope)


def _arq(
    by_name: Mapping[str, Function], node: ast.Call, scope: Scope
) -> Iterator[Enqueued]:
    found = by_name.get(_constant(node.args[0])) if node.args else None
    if found is not None:
        options = keywords(node)
        said = {k: v for k, v in options.items() if k is None or k.startswith("_")}
        send = Send(node, scope, "enqueue_job", said)
        yield Enqueued(ARQ, found, send, node.args[0])


def _rq(project: Project, node: ast.Call, scope: Scope) -> Iterator[Enqueued]:
    verb = last_name(node.func)
    options = keywords(node)
    arguments = node.args[_RQ_SENDS[verb] :]
    named = options.get("func") or (arguments[0] if arguments else None)
    if named is None or not _is_rq(project, project.resolve(node.func, scope) or ""):
        return
    found = _given(project, named, scope)
    if found is not None:
        said = {k: v for k, v in options.items() if k is None or k in _RQ_OPTIONS}
        yield Enqueued(RQ, found, Send(node, scope, verb, said), named)


def _is_rq(project: Project, name: str) -> bool:
    base = name.rpartition(".")[0]
    kinds = set(project.lineage(base.removesuffix("()")))
    return any(kind.partition(".")[0] in {"rq", "django_rq"} for kind in kinds)


def _constant(node: ast.expr) -> str:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else ""


def _given(project: Project, node: ast.expr, scope: Scope) -> Function | None:
    """Give the function that stands there, itself or by its dotted name."""
    name = project.resolve(node, scope)
    if (text := _constant(node)) and "." in text:
        for function in project.functions.values():
            if function.subject.replace(":", ".") == text:
                return function
    return project.functions.get(name or "")


def _arq_functions(project: Project) -> Iterator[Enqueued]:
    """Give the functions that arq's worker settings list."""
    for owner in project.classes.values():
        if "WorkerSettings" not in owner.node.name:
            continue
        for node in owner.node.body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.List):
                continue
            if "functions" not in {last_name(target) for target in node.targets}:
                continue
            for item in node.value.elts:
                function = _given(project, item, owner.scope)
                if function is not None:
                    yield Enqueued(ARQ, function, None, item)
