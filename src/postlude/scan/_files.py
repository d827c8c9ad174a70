"""From a path to parsed files. What cannot be read becomes a note."""

from __future__ import annotations

import ast
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

__all__ = ["Note", "Source", "sources"]

_FOLDERS = (
    ".*", "__pycache__", "site-packages", "dist-packages", "node_modules",
    "venv", "virtualenv", "env", "build", "dist", "*.egg-info",
    "tests", "test", "testing", "migrations", "alembic",
)  # fmt: skip
"""Not the project's own code, not code at all, or code that no user waits for."""
_NAMES = ("test_*.py", "*_test.py", "tests.py", "test.py", "conftest.py")
_LARGEST = 2_000_000
"""Bytes. A larger file was made by a program."""
_DEEPEST = 64
"""Folders below each other."""
_NESTED = 150
"""Expressions and blocks within each other."""


class Source(NamedTuple):
    """One parsed file."""

    file: str
    """Relative to what was scanned, with `/`."""
    path: Path
    tree: ast.Module


class Note(NamedTuple):
    """A file that was not read, and why."""

    file: str
    line: int
    text: str


def sources(
    root: Path, leave_out: Sequence[str] = ()
) -> tuple[list[Source], list[Note]]:
    """Parse the Python files under *root*, in the order of their names."""
    found: list[Source] = []
    notes: list[Note] = []
    top = root if root.is_dir() else root.parent
    paths = _walk(root, tuple(leave_out), notes, top) if root.is_dir() else [root]
    for path in paths:
        result = _parsed(path, _shown(path, top))
        if isinstance(result, Note):
            notes.append(result)
        else:
            found.append(result)
    return found, notes


def _shown(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix()


def _walk(
    folder: Path, leave_out: tuple[str, ...], notes: list[Note], top: Path
) -> Iterator[Path]:
    """Give the regular files; links are not followed, so there are no loops."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as exc:
        notes.append(Note(_shown(folder, top), 0, f"cannot be listed: {_why(exc)}"))
        return
    if any(entry.name == "pyvenv.cfg" for entry in inside):
        return
    deep = len(folder.parts) - len(top.parts) >= _DEEPEST
    for entry in inside:
        path = Path(entry.path)
        if entry.is_symlink() or _matches(entry.name, leave_out):
            continue
        if entry.is_dir(follow_symlinks=False):
            if deep:
                text = f"is more than {_DEEPEST} folders deep and was not read"
                notes.append(Note(_shown(path, top), 0, text))
            elif not _matches(entry.name, _FOLDERS):
                yield from _walk(path, leave_out, notes, top)
        elif entry.name.endswith(".py") and not _matches(entry.name, _NAMES):
            yield path


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _why(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__


def _parsed(path: Path, shown: str) -> Source | Note:
    content = _content(path)
    if isinstance(content, str):
        return Note(shown, 0, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of its escapes, which are not our business
            tree = ast.parse(content)
    except SyntaxError as exc:
        text = f"is no Python that this version can parse: {exc.msg}"
        return Note(shown, exc.lineno or 0, text)
    except (ValueError, RecursionError, MemoryError, OverflowError) as exc:
        return Note(shown, 0, f"cannot be parsed: {type(exc).__name__}")
    if _is_deep(tree):
        text = f"is nested more than {_NESTED} levels deep and was not read"
        return Note(shown, 0, text)
    return Source(shown, path, tree)


def _content(path: Path) -> bytes | str:
    """Give what is in a file; or in words, why it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is no regular file and was not read"
        if status.st_size > _LARGEST:
            size, most = f"{status.st_size:,}", f"{_LARGEST:,}"
            return f"has {size} bytes and was not read; the limit is {most}"
        return path.read_bytes()
    except OSError as exc:
        return f"cannot be read: {_why(exc)}"


def _is_deep(tree: ast.Module) -> bool:
    """Tell whether looking at all of a tree could exceed the interpreter's stack."""
    level: list[ast.AST] = [tree]
    for _ in range(_NESTED):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True
