"""What a scan gives."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One place in the source, and what was seen and not seen there."""

    kind: str
    """`task`: a task for `defer`; `call`: a call for `defer`; `note`: about a file."""
    engine: str
    """The task's engine or the slow call's library, as `celery` or `smtplib`."""
    subject: str
    """`module:qualname` of the task, or of the handler; a note's file."""
    file: str
    """Relative to what was scanned, with `/`."""
    line: int
    """Counted from 1; 0 in a note about a whole file."""
    sentence: str
    """What was found, in words. May hold any character that a source file can."""
    evidence: tuple[str, ...]
    """What was looked for and not found, and every place that was counted on."""


class Task(NamedTuple):
    """One task that the project defines, a candidate or not."""

    engine: str
    subject: str
    file: str
    line: int
    reasons: tuple[str, ...]
    """Why it stays on its queue, each with its place; empty for a candidate."""


class Survey(NamedTuple):
    """All that one look at a project gave."""

    findings: tuple[Finding, ...]
    tasks: tuple[Task, ...]
    files: int
    """How many files were read."""
