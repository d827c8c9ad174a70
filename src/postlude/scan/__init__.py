"""Read a project's source, without running it, for work that `defer` could take over.

Two kinds of findings: tasks of a job queue that use nothing a queue is for, and slow
calls that a request handler makes just before it returns, whose result it never uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from postlude.scan import _calls, _tasks
from postlude.scan._files import Note, sources
from postlude.scan._findings import Finding, Survey, Task
from postlude.scan._project import Project
from postlude.scan._requests import Requests

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["Finding", "Survey", "Task", "scan", "survey"]

_ORDER = ("task", "call", "note")


def scan(path: str | os.PathLike[str]) -> list[Finding]:
    """Read the Python files under *path* and give what `defer` could take over.

    Nothing is imported or run. What cannot be read gives a finding of kind `note`.
    Tests, migrations and installed packages are left out.

    Raises:
        FileNotFoundError: there is nothing at *path*.
    """
    return list(survey(path).findings)


def survey(path: str | os.PathLike[str], *, leave_out: Sequence[str] = ()) -> Survey:
    """Do what `scan` does, and give the tasks that are no candidates too.

    Args:
        path: a folder, or one file.
        leave_out: more names of folders and files to pass by, as `build` or `*_old.py`.

    Raises:
        FileNotFoundError: there is nothing at *path*.
    """
    root = Path(path).absolute()
    if not root.exists():
        raise FileNotFoundError(
            f"There is nothing at {path}. Usually the command was started in another "
            "folder. Name the folder that holds the project's source."
        )
    read, notes = sources(root, leave_out)
    project = Project(read, root if root.is_dir() else root.parent)
    requests = Requests(project)
    judged = _tasks.judged(project, requests)
    found = [
        *[_tasks.finding(one) for one in judged if not one.reasons],
        *_calls.findings(
            project, requests, {one.job.function.dotted for one in judged}
        ),
        *map(_note, notes),
    ]
    found.sort(key=lambda each: (_ORDER.index(each.kind), each.file, each.line))
    return Survey(tuple(found), tuple(map(_tasks.listed, judged)), len(read))


def _note(note: Note) -> Finding:
    sentence = f"{note.file} {note.text}."
    return Finding("note", "", note.file, note.file, note.line, sentence, ())
