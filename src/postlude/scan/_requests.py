"""What runs in a request: handlers, and what they are seen to call."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postlude.scan._handlers import handlers
from postlude.scan._sending import last_name

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function, Scope


def _signals(project: Project) -> Iterator[tuple[str, str]]:
    """Give who sends a signal of the project's own, with each who receives it."""
    receivers = _receivers(project)
    sends: list[tuple[str, str]] = []
    for module in project.modules.values():
        for call, scope in module.calls:
            verb = last_name(call.func)
            if verb == "connect" and call.args:
                name = project.resolve(call.args[0], scope) or ""
                if name in project.functions:
                    signal = _signal(project, call, scope)
                    receivers.setdefault(signal, []).append(name)
            elif verb in _SENDING and scope.function is not None:
                sends.append((scope.function.dotted, _signal(project, call, scope)))
    for sender, signal in sends:
        for receiver in receivers.get(signal, ()) if signal.startswith("~") else ():
            yield sender, receiver


def _receivers(project: Project) -> dict[str, list[str]]:
    """Give the functions that `@receiver` connects, by signal."""
    found: dict[str, list[str]] = {}
    for function in project.functions.values():
        for node in function.node.decorator_list:
            if isinstance(node, ast.Call) and last_name(node.func) == "receiver":
                given = [*node.args[:1], *(k.value for k in node.keywords[:1])]
                for signal in _all(project, given, function.outer):
                    found.setdefault(signal, []).append(function.dotted)
    return found


def _signal(project: Project, call: ast.Call, scope: Scope) -> str:
    if not isinstance(call.func, ast.Attribute):
        return ""
    return project.variable(call.func.value, scope) or ""


_SENDING = frozenset({"send", "send_robust", "asend", "asend_robust"})


def _all(project: Project, nodes: list[ast.expr], scope: Scope) -> Iterator[str]:
    for node in nodes:
        parts = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
        for part in parts:
            yield project.variable(part, scope) or ""


def _telling_methods(project: Project) -> dict[str, list[str]]:
    """Give the methods whose name alone says which they are, by that name.

    Nobody can tell what `service` is in `service.initiate_password_reset()`. But where
    a long name is that of one method only, or of one and its abstract base, that is
    meant.
    """
    found: dict[str, list[str]] = {}
    for function in project.functions.values():
        name = function.node.name
        if function.owner and "_" in name.strip("_") and len(name) >= _TELLING:
            found.setdefault(name, []).append(function.dotted)
    return {name: every for name, every in found.items() if len(every) <= _SAME}


_TELLING = 14
"""Letters of a name that is nobody else's by chance."""
_SAME = 2
"""Methods of one name: a class and its abstract base."""


class Requests:
    """What runs in a request, and through what."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.handlers = handlers(project)
        self._by_name: set[str] = set()
        calls = self._calls()
        for sender, receiver in _signals(project):
            calls.setdefault(sender, []).append(receiver)
        for function in project.functions.values():
            outer = function.outer.function
            if outer is not None:  # defined inside it, and so for it
                calls.setdefault(outer.dotted, []).append(function.dotted)
        self._from: dict[str, str | None] = dict.fromkeys(self.handlers)
        line = deque(self.handlers)
        while line:
            caller = line.popleft()
            for called in calls.get(caller, ()):
                if called not in self._from:
                    self._from[called] = caller
                    line.append(called)

    def _calls(self) -> dict[str, list[str]]:
        """Give what each function calls, as far as that can be told."""
        calls: dict[str, list[str]] = {}
        methods = _telling_methods(self._project)
        for module in self._project.modules.values():
            for node, scope in module.calls:
                if scope.function is None:
                    continue
                made = calls.setdefault(scope.function.dotted, [])
                called = self._project.called(node, scope)
                if called is not None:
                    made.append(called.dotted)
                elif isinstance(node.func, ast.Attribute):
                    name = self._project.resolve(node.func.value, scope)
                    if name is None or name.startswith("~"):
                        meant = methods.get(node.func.attr, ())
                        made.extend(meant)
                        self._by_name.update(meant)
        return calls

    def path(self, function: Function | None) -> str | None:
        """Say how a request comes to *function*; None if none was seen to."""
        if function is None or function.dotted not in self._from:
            return None
        steps = [function.dotted]
        while (before := self._from[steps[-1]]) is not None:
            steps.append(before)
        names = [
            self._project.functions[step].subject
            + (" (by its name)" if step in self._by_name else "")
            for step in reversed(steps)
        ]
        return f"{' -> '.join(names)}; {self.handlers[steps[-1]]}"
