"""All places that name a task, and what they do with it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from postlude.scan._engines import CELERY, Job, meaning
from postlude.scan._forwarding import forwarded
from postlude.scan._project import keywords
from postlude.scan._sending import LATER, Send, is_dropped, is_in_loop
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._enqueued import Enqueued
    from postlude.scan._project import Project
    from postlude.scan._scopes import Module, Scope

_OTHER_USES = {
    "chain": words(
        "s si signature subtask map starmap chunks then pipe message "
        "message_with_options kicker using"
    ),
    "result": words("AsyncResult get_result aget_result result_for"),
    "schedule": words(
        "schedule schedule_by_time schedule_by_cron schedule_by_interval"
    ),
    "retry": words("retry"),
}
"""What attributes of a task make use of."""
_TELLING = frozenset(verb for verbs in _OTHER_USES.values() for verb in verbs)
_VERBS = words(
    "delay apply_async delay_on_commit apply_async_on_commit s si signature subtask "
    "AsyncResult send send_with_options kiq enqueue aenqueue schedule"
)


class Uses(NamedTuple):
    """What the project does with one task."""

    sends: list[Send]
    reasons: list[str]


def uses(
    project: Project,
    jobs: Mapping[str, Job],
    given: Sequence[Enqueued],
) -> dict[str, Uses]:
    """Look at every name in the project, and note what is done with each task."""
    found: defaultdict[str, Uses] = defaultdict(_none)
    for one in given:
        if one.send is not None:
            _sent(found[one.function.dotted], one.send)
    named = {id(one.named) for one in given}
    known_by = _by_word(jobs)
    for module in project.modules.values():
        for chain, scope in module.chains:
            if id(chain) not in named:
                _look(project, jobs, found, (module, chain, scope), known_by)
        _strings(module, jobs, found, named)
    return found


def _none() -> Uses:
    return Uses([], [])


def _by_word(jobs: Mapping[str, Job]) -> dict[str, list[str]]:
    words: defaultdict[str, list[str]] = defaultdict(list)
    for dotted, job in jobs.items():
        words[job.function.node.name].append(dotted)
    return words


_Place = tuple["Module", ast.Name | ast.Attribute, "Scope"]


def _look(
    project: Project,
    jobs: Mapping[str, Job],
    found: dict[str, Uses],
    place: _Place,
    known_by: Mapping[str, list[str]],
) -> None:
    module, chain, scope = place
    name = project.resolve(chain, scope)
    if name is None:
        _unresolved(found, place, known_by)
        return
    if not name.startswith("~"):
        return
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        dotted = ".".join(parts[:end]).removesuffix("()")
        job = jobs.get(dotted)
        if job is not None:
            if not parts[end - 1].endswith("()"):
                _used(project, job, found[dotted], place, parts[end:])
            elif end < len(parts) and "" in job.engine.sends:
                text = f"result: .{parts[end]} of what the call gives"
                found[dotted].reasons.append(_at(module, chain, text))
            return


def _unresolved(
    found: dict[str, Uses], place: _Place, known_by: Mapping[str, list[str]]
) -> None:
    """Note `something.send_mail.delay`: nobody can tell that it is another one."""
    module, chain, _ = place
    if not isinstance(chain, ast.Attribute) or chain.attr not in _VERBS:
        return
    inner = chain.value
    word = inner.attr if isinstance(inner, ast.Attribute) else None
    for dotted in known_by.get(word or "", ()):
        text = f"may be what {ast.unparse(chain)[:60]} means"
        found[dotted].reasons.append(_at(module, chain, text))


def _used(
    project: Project, job: Job, uses: Uses, place: _Place, rest: list[str]
) -> None:
    module, chain, scope = place
    verb = rest[0].removesuffix("()") if rest else ""
    parent = module.parents.get(chain)
    call = parent if isinstance(parent, ast.Call) and parent.func is chain else None
    if len(rest) > 1 and verb not in _TELLING:
        if rest[0].endswith("()") and verb in job.engine.sends:
            uses.reasons.append(_at(module, chain, f"result: .{rest[1]} is used"))
    elif verb in job.engine.sends and call is not None:
        _sent(uses, Send(call, scope, verb, _said(job, verb, call)))
        _kept(module, uses, call)
    elif verb in job.engine.direct and call is not None:
        pass  # runs here, without a queue
    elif (send := _passed_on(project, job, place, verb)) is not None:
        _sent(uses, send)
    else:
        uses.reasons.append(_at(module, chain, _told(verb)))


def _told(verb: str) -> str:
    """Say what it means that an attribute of a task is used."""
    for use, verbs in _OTHER_USES.items():
        if verb in verbs:
            return f"{use}: .{verb}"
    return f".{verb} of it is handed on" if verb else "it is handed on"


def _passed_on(project: Project, job: Job, place: _Place, verb: str) -> Send | None:
    """Give the send that a task, or its `delay`, is passed on for."""
    module, chain, scope = place
    if verb in job.engine.sends and verb:
        call = _given_to_later(project, module, chain, scope)
        return None if call is None else Send(call, scope, verb, {})
    if verb:
        return None
    passed = forwarded(project, job.engine, module, chain, scope)
    return None if passed is None else Send(passed[0], scope, "apply_async", passed[1])


def _said(job: Job, verb: str, call: ast.Call) -> Mapping[str | None, ast.expr]:
    """Give what a send says besides the task's own arguments."""
    if "apply_async" in verb or verb == "send_with_options":
        said = dict(keywords(call))
        extra = call.args[2 if job.engine is CELERY else 0 :]
        said.update({f"argument {i}": value for i, value in enumerate(extra)})
        return said
    return {}


def _given_to_later(
    project: Project, module: Module, chain: ast.AST, scope: Scope
) -> ast.Call | None:
    """Give the call of `on_commit(task.delay)`, also with a `partial` around it."""
    parent = module.parents.get(chain)
    if not isinstance(parent, ast.Call) or chain not in parent.args:
        return None
    name = project.resolve(parent.func, scope) or ast.unparse(parent.func)
    last = name.rpartition(".")[2]
    if last in LATER:
        return parent
    if last == "partial" and parent.args[0] is chain:
        outer = module.parents.get(parent)
        if isinstance(outer, ast.Call) and parent in outer.args:
            name = project.resolve(outer.func, scope) or ast.unparse(outer.func)
            return outer if name.rpartition(".")[2] in LATER else None
    return None


def _sent(uses: Uses, send: Send) -> None:
    module = send.scope.module
    uses.sends.append(send)
    for option, value in send.options.items():
        text = meaning(option, value)
        if text is not None:
            uses.reasons.append(_at(module, send.node, text))
    if send.verb in {"enqueue_at", "enqueue_in"}:
        uses.reasons.append(_at(module, send.node, f"schedule: .{send.verb}"))
    if send.verb in {"enqueue", "enqueue_job", "enqueue_call"}:
        _kept(module, uses, send.node)
    if is_in_loop(module, send.node, send.scope):
        text = "is sent in a loop, so there may be any number of them"
        uses.reasons.append(_at(module, send.node, text))


def _kept(module: Module, uses: Uses, call: ast.Call) -> None:
    """Note if somebody keeps what a send gives."""
    if not is_dropped(module, call):
        text = f"result: what {ast.unparse(call.func)[:60]} gives is kept"
        uses.reasons.append(_at(module, call, text))


def _strings(
    module: Module,
    jobs: Mapping[str, Job],
    found: dict[str, Uses],
    named: set[int],
) -> None:
    """Note where a task is named in a string: in a schedule, in routes, in a send."""
    names = {job.name: dotted for dotted, job in jobs.items()}
    for node, _ in module.strings:
        text = str(node.value)
        if id(node) in named or (not text) or "\n" in text:
            continue
        dotted = names.get(text)
        if dotted is not None and node not in jobs[dotted].options.values():
            reason = f"is named in the string {text!r}"
            found[dotted].reasons.append(_at(module, node, reason))
        elif "*" in text and "." in text and _is_key(module, node):
            for name, of in names.items():
                if text[0].isalpha() and fnmatchcase(name, text):
                    reason = f"delivery: the pattern {text!r} names it"
                    found[of].reasons.append(_at(module, node, reason))


def _is_key(module: Module, node: ast.Constant) -> bool:
    """Tell whether a string has something to say of what it names, as in routes."""
    parent = module.parents.get(node)
    if isinstance(parent, ast.Dict):
        return node in parent.keys
    return isinstance(parent, ast.Tuple) and parent.elts[0] is node


def _at(module: Module, node: ast.expr, text: str) -> str:
    return f"{text} ({module.source.file}:{node.lineno})"
