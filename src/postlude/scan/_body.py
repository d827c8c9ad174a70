"""What a task's own code shows: that it needs its queue, or that it takes long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postlude.scan._engines import meaning, short
from postlude.scan._sending import last_name
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._engines import Job
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function

_QUEUE_ONLY = words("retry update_state replace add_to_chord request update_progress")
"""Attributes of a bound task that nothing has but a queue."""
_LONG = (
    "subprocess.", "os.system", "os.popen", "shutil.", "zipfile.", "tarfile.",
    "pandas.", "numpy.", "PIL.", "openpyxl.", "xlsxwriter.", "reportlab.",
    "weasyprint.", "git.", "sklearn.", "torch.", "selenium.", "playwright.", "csv.",
    "pypdf.", "PyPDF2.", "matplotlib.", "multiprocessing.", "paramiko.", "fitz.",
    "django.core.management.call_command", "concurrent.futures.", "asyncio.run",
    "asyncio.sleep", "time.sleep", "ffmpeg.", "whisper.", "openai.", "anthropic.",
)  # fmt: skip
"""What is known for taking its time."""
_TELLING = re.compile(r"retry|Retry|backoff|_once|Once|[lL]ock\b|throttle|debounce")
_DEEPEST = 4
"""Functions that call each other, to look for what is known for taking long."""
_LOOPS = 1
"""The same for loops and locks: every library has a loop somewhere."""
_QUICK = words(
    "append add extend get items keys values join split strip format lower upper pop "
    "setdefault update startswith endswith replace debug info warning error exception "
    "isinstance len str int float bool list dict set tuple sorted range zip enumerate "
    "hasattr getattr setattr repr min max sum any all print encode decode isoformat "
    "removeprefix removesuffix strftime partition rpartition index count insert copy "
    "reversed map filter iter next round abs"
)
"""Calls that take no time worth counting."""


def reasons(project: Project, job: Job) -> Iterator[str]:
    """Give why a task should stay on its queue, from its code."""
    function = job.function
    yield from _inherited(project, job)
    yield from _queue_only(project, function)
    yield from _wrapped(project, job)
    seen = {function.dotted}
    near = [function]
    for depth in range(_DEEPEST):
        further: list[Function] = []
        for one in near:
            yield from _long(project, one, function, depth)
            for called in _called(project, one):
                if called.dotted not in seen:
                    seen.add(called.dotted)
                    further.append(called)
        near = further


def _queue_only(project: Project, function: Function) -> Iterator[str]:
    first = function.node.args.args[0].arg if function.node.args.args else None
    for node in _own(function):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of_self = node.value.id == first and first in {"self", "task", "context"}
            if of_self and node.attr in _QUEUE_ONLY:
                yield _at(function, node, f"uses {node.value.id}.{node.attr}")
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = project.resolve(raised, function.scope) or ast.unparse(raised)
            last = name.rpartition(".")[2]
            if last in {"Retry", "Reject", "Ignore", "RetryTask", "CancelExecution"}:
                yield _at(function, node, f"raises {last}")
        if isinstance(node, ast.Name | ast.Attribute):
            name = project.resolve(node, function.scope) or ""
            if name.startswith(("celery.current_task", "celery._state.current_task")):
                yield _at(function, node, "uses current_task")


def _wrapped(project: Project, job: Job) -> Iterator[str]:
    """Note what other decorators do, as far as their names or their code say."""
    function = job.function
    for node in function.node.decorator_list:
        bare = node.func if isinstance(node, ast.Call) else node
        name = project.resolve(bare, function.outer) or ast.unparse(bare)
        own = project.functions.get(name)
        text = name if own is None else name + ast.unparse(own.node)
        found = _TELLING.search(text)
        if found is not None and not _is_the_task(job, node):
            word = found.group().strip("._( ")
            yield _at(function, node, f"is wrapped by @{ast.unparse(bare)}: {word}")


def _is_the_task(job: Job, node: ast.expr) -> bool:
    """Tell whether this is the decorator that makes the task."""
    options = list(job.options.values())
    return (
        isinstance(node, ast.Call)
        and bool(options)
        and (options[0] in [keyword.value for keyword in node.keywords])
    )


def _long(
    project: Project, function: Function, task: Function, depth: int
) -> Iterator[str]:
    where = "" if function is task else f", in {function.subject}"
    for node in _own(function):
        if isinstance(node, ast.For | ast.AsyncFor | ast.While) and depth <= _LOOPS:
            call = _work(node)
            if call is not None:
                text = f"works through a loop that calls {call}{where}"
                yield _at(function, node, text)
        elif isinstance(node, ast.Call):
            name = project.resolve(node.func, function.scope) or ""
            if name.startswith(_LONG):
                yield _at(function, node, f"calls {name}, which may take long{where}")
        elif isinstance(node, ast.With | ast.AsyncWith) and depth <= _LOOPS:
            for item in node.items:
                text = ast.unparse(item.context_expr)
                if "lock" in text.lower().replace("block", "").replace("clock", ""):
                    yield _at(function, node, f"holds the lock {text[:60]}{where}")


def _work(loop: ast.For | ast.AsyncFor | ast.While) -> str | None:
    """Give the first call of a loop's body that may take time."""
    if isinstance(loop, ast.For) and _isshort(loop.iter):
        return None
    line: list[ast.AST] = [*loop.body]
    while line:
        node = line.pop(0)
        if isinstance(node, ast.Raise):
            continue  # the last thing that the loop does
        if isinstance(node, ast.Call) and (name := last_name(node.func)) not in _QUICK:
            return name or "something"
        line.extend(ast.iter_child_nodes(node))
    return None


def _isshort(node: ast.expr) -> bool:
    """Tell whether this is a list of some items, written there."""
    return isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Constant)


def _called(project: Project, function: Function) -> Iterator[Function]:
    for node in _own(function):
        if isinstance(node, ast.Call):
            found = project.called(node, function.scope)
            if found is not None:
                yield found


def _own(function: Function) -> Iterator[ast.AST]:
    """Give the nodes of a function's body, those of functions inside it too."""
    for statement in function.node.body:
        yield from ast.walk(statement)


def _at(function: Function, node: ast.stmt | ast.expr, text: str) -> str:
    return f"{text} ({function.module.source.file}:{node.lineno})"


_TASKS = {"celery.Task", "celery.app.task.Task", "celery.app.Task"}
_HOOKS = words("on_failure on_retry on_success after_return")


def _inherited(project: Project, job: Job) -> Iterator[str]:
    """Give why a task stays because of the class in `base=`."""
    base = job.options.get("base")
    if base is None:
        return
    name = project.resolve(base, job.function.outer)
    if name is None:
        yield f"its base class cannot be looked at: {short(base)}"
        return
    for dotted in project.lineage(name):
        owner = project.classes.get(dotted)
        if owner is None:
            known = dotted in _TASKS or dotted.endswith(".Task") or dotted == "object"
            if not known and not dotted.startswith("~"):
                yield f"its base class cannot be looked at: {dotted}"
            continue
        place = f"{owner.module.source.file}:{owner.node.lineno}"
        for node in owner.node.body:
            for option, value in _class_options(node):
                text = meaning(option, value)
                if text is not None and "does not know" not in text:
                    yield f"{text}, of its base class ({place})"
            if isinstance(node, ast.FunctionDef) and node.name in _HOOKS:
                yield f"its base class has {node.name} ({place})"


def _class_options(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
    elif (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
    ):
        yield node.target.id, node.value
