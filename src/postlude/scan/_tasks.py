"""Which tasks use nothing that a queue is for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from postlude.scan._body import reasons
from postlude.scan._engines import Job, jobs
from postlude.scan._enqueued import enqueued
from postlude.scan._findings import Finding, Task
from postlude.scan._uses import Uses, uses

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._requests import Requests
    from postlude.scan._sending import Send


class Judged(NamedTuple):
    """A task, and what was found about it."""

    job: Job
    reasons: tuple[str, ...]
    """Why it stays; empty for a candidate."""
    sends: tuple[Send, ...]
    requests: tuple[tuple[Send, str], ...]
    """The sends that are made in a request, and how a request comes there."""


def judged(project: Project, requests: Requests) -> list[Judged]:
    """Judge all tasks of the project."""
    every = jobs(project)
    given = list(enqueued(project))
    for one in given:
        name = one.function.subject.replace(":", ".")
        every.setdefault(one.function.dotted, Job(one.engine, one.function, {}, name))
    found = uses(project, every, given)
    senders = _senders(every, found)
    result: list[Judged] = []
    for dotted, job in every.items():
        use = found[dotted]
        in_requests = tuple(
            (send, path)
            for send in use.sends
            if (path := requests.path(send.scope.function)) is not None
        )
        why = [
            *job.reasons,
            *use.reasons,
            *reasons(project, job),
            *senders.get(dotted, ()),
            *_unsent(use.sends, in_requests),
        ]
        unique = tuple(dict.fromkeys(why))
        result.append(Judged(job, unique, tuple(use.sends), in_requests))
    return result


def _senders(
    every: Mapping[str, Job], found: Mapping[str, Uses]
) -> dict[str, list[str]]:
    """Give, for each task that sends another one, that it does."""
    result: defaultdict[str, list[str]] = defaultdict(list)
    for dotted, use in found.items():
        for send in use.sends:
            sender = send.scope.function
            if sender is not None and sender.dotted in every:
                text = f"chain: it sends {every[dotted].function.subject}"
                result[sender.dotted].append(f"{text} ({_place(send)})")
    return result


def _unsent(
    sends: list[Send], in_requests: tuple[tuple[Send, str], ...]
) -> Iterator[str]:
    if not sends:
        yield "no place was found that sends it"
    elif not in_requests:
        places = ", ".join(map(_place, sends[:3]))
        yield f"no place that sends it was seen to be in a request ({places})"


def _place(send: Send) -> str:
    return f"{send.scope.module.source.file}:{send.node.lineno}"


def listed(one: Judged) -> Task:
    """Give a task as a survey lists it."""
    job = one.job
    file = job.function.module.source.file
    line = job.function.node.lineno
    return Task(job.engine.name, job.function.subject, file, line, one.reasons)


_NOT_FOUND = (
    "no retry: neither the task nor a place that sends it asks for one, nor its code",
    "no schedule: no crontab, eta, countdown or delay, and no string names it",
    "no result: looked at {sends} sending it, and none keeps what that gives",
    "no chain: nobody makes a signature of it or hands it on",
    "no acks_late, queue, priority, rate or time limit of its own",
    "not seen to take long: no loop over work, lock, sleep, subprocess and their like",
)


def finding(one: Judged) -> Finding:
    """Give the finding of a candidate."""
    job = one.job
    send, _ = one.requests[0]
    name = job.function.node.name
    elsewhere = [s for s in one.sends if all(s is not mine for mine, _ in one.requests)]
    evidence = [
        *(text.format(sends=_count(len(one.sends), "place")) for text in _NOT_FOUND),
        *(f"sent in a request at {_place(s)}: {how}" for s, how in one.requests),
        *(f"also sent at {_place(s)}, not seen to be in a request" for s in elsewhere),
    ]
    sentence = (
        f"{job.function.subject} is a {job.engine.label} that uses no retry, schedule, "
        f"result or chain, and is sent in a request ({_place(send)}). "
        f"`defer({name}, ...)` would do, if it runs in less than 5 s and may be lost "
        "with its process."
    )
    where = job.function
    return Finding(
        "task",
        job.engine.name,
        where.subject,
        where.module.source.file,
        where.node.lineno,
        sentence,
        tuple(evidence),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
