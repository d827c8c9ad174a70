"""The findings about slow calls at the end of handlers."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from postlude.scan._findings import Finding
from postlude.scan._slow import Tail, tails
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._requests import Requests
    from postlude.scan._scopes import Function


def findings(
    project: Project, requests: Requests, tasks: AbstractSet[str]
) -> Iterator[Finding]:
    """Give a finding per slow call just before a handler's return."""
    for dotted, why in requests.handlers.items():
        function = project.functions[dotted]
        if dotted in tasks or not _answers(function):
            continue
        seen: set[int] = set()
        for tail in tails(project, function):
            if id(tail.node) not in seen:
                seen.add(id(tail.node))
                yield _finding(function, tail, why)


_ENTRIES = words(
    "get post put patch delete head options dispatch form_valid form_invalid create "
    "update destroy list retrieve perform_create perform_update perform_destroy "
    "partial_update"
)


def _answers(function: Function) -> bool:
    """Tell whether what follows its return is the answer, not more of the handler."""
    return (
        function.owner is None
        or bool(function.node.decorator_list)
        or (function.node.name in _ENTRIES)
    )


def _finding(function: Function, tail: Tail, why: str) -> Finding:
    file, line = function.module.source.file, tail.node.lineno
    through = "" if tail.through is None else f" (through {tail.through})"
    evidence = [
        f"{function.subject} is a handler: {why}",
        f"the call is {tail.call}{through}, which waits for another machine",
        "its result is not used, and only the return follows it",
    ]
    sentence = (
        f"{function.subject} calls {tail.call} just before it returns{through}, and "
        "never uses the result: the user waits for it. Deferred, it runs after the "
        "response; an error in it is recorded then, and no longer answered with a 500."
    )
    library = tail.call.partition(".")[0]
    return Finding(
        "call", library, function.subject, file, line, sentence, tuple(evidence)
    )
