"""The lines of the shop's own source that the report shows, so that it never lies."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

INSTALLS = re.compile(r"\bpostlude\b|^install\(|^Postlude\(|MIDDLEWARE=")
"""The lines of an application that know of the library, `defer(...)` itself aside."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of code in pieces, each with whether it is the word to look at."""

    pieces: list[tuple[str, bool]]
    changed: bool
    """Whether the other version of the function has another line here."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The same endpoint twice, and what it took to install the library."""

    file: str
    before: list[Line]
    after: list[Line]
    install: list[Line]


def listing(framework: str) -> Listing:
    """Read the two endpoints from the application's source file."""
    path = Path(__file__).with_name(f"{framework}_app.py")
    source = path.read_text("utf-8")
    before = _function(source, "order_and_wait")
    after = _function(source, "order_and_defer")
    install = [line.strip() for line in source.splitlines() if INSTALLS.search(line)]
    return Listing(
        file=f"examples/shop/{path.name}",
        before=_lines(before, other=after),
        after=_lines(after, other=before),
        install=_lines(install, other=install),
    )


def _function(source: str, name: str) -> list[str]:
    """Return a function without its decorators and its docstring."""
    functions = {
        node.name: node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    function, lines = functions[name], source.splitlines()
    docstring, first, *_ = function.body
    head = lines[function.lineno - 1 : docstring.lineno - 1]
    return head + lines[first.lineno - 1 : function.end_lineno]


def _lines(code: list[str], *, other: list[str]) -> list[Line]:
    """Mark what differs from the other version, and the word defer."""
    return [
        Line(
            [(word, word == "defer") for word in re.split(r"\b(defer)\b", line)],
            # The head differs only because one file cannot have two of one name.
            changed=line not in other and "def " not in line,
        )
        for line in code
    ]
