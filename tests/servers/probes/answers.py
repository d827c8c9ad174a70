"""The routes of both raw probe applications, as data, so that they answer alike."""

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

LARGE_CHUNK = b"x" * 65_536
FLOOD_CHUNKS = 400  # 25 MiB: more than every buffer between the app and a client gone


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits at the gate of this name."""

    gate: str


@dataclass(frozen=True, slots=True)
class Fail:
    """A step that raises."""


@dataclass(frozen=True, slots=True)
class DeferNow:
    """A step that defers what the query names as `midway`."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """A step that starts work which outlives the request and then defers `late`."""


Step = bytes | Wait | Fail | DeferNow | Spawn


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route does before the response, and its status, headers and body."""

    status: int = 200
    body: tuple[Step, ...] = ()
    with_length: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    before: tuple[Step, ...] = ()
    as_file: bool = False

    def file(self) -> Path:
        """Return the path of a file with the body, written when first asked for."""
        body = b"".join(step for step in self.body if isinstance(step, bytes))
        path = Path(os.environ["PROBE_EVENTS"]).with_name(f"file-{len(body)}")
        if not path.exists():
            path.write_bytes(body)
        return path

    def head(self) -> list[tuple[str, str]]:
        """Return the headers: who answered, and the length where there is one."""
        who = (
            ("x-pid", str(os.getpid())),
            ("x-thread", str(threading.get_ident())),
        )
        length = sum(len(step) for step in self.body if isinstance(step, bytes))
        if self.status in (204, 304) or not self.with_length:
            return [*who, *self.headers]
        return [*who, ("content-length", str(length)), *self.headers]


EVENT_STREAM = (("content-type", "text/event-stream"),)

ANSWERS: dict[str, Answer] = {
    "ready": Answer(headers=(("x-instance", os.environ["PROBE_INSTANCE"]),)),
    "length": Answer(body=(b"hello",)),
    "chunked": Answer(body=(b"one,", b"two,", b"three"), with_length=False),
    "empty": Answer(),
    "no-content": Answer(204),
    "not-modified": Answer(304),
    "redirect": Answer(302, headers=(("location", "/length"),)),
    "file": Answer(body=(LARGE_CHUNK,) * 16, as_file=True),
    "large": Answer(body=(LARGE_CHUNK,) * 16),
    "large-chunked": Answer(body=(LARGE_CHUNK,) * 16, with_length=False),
    "events": Answer(
        body=(
            b"data: 1\n\n",
            Wait("second-event"),
            DeferNow(),
            b"data: 2\n\n",
            Wait("end-of-stream"),
            b"data: 3\n\n",
        ),
        with_length=False,
        headers=EVENT_STREAM,
    ),
    "missing": Answer(404, body=(b"missing",)),
    "failed": Answer(500, body=(b"failed",)),
    "raises": Answer(before=(Fail(),)),
    # once the client has the begin: Granian throws away what it has not written by then
    "breaks": Answer(body=(b"begun", Wait("midway"), Fail()), with_length=False),
    "waits": Answer(before=(Wait("handler"),), body=(b"hello",)),
    "flood": Answer(
        body=(b"begun", Wait("midway"), *((LARGE_CHUNK,) * FLOOD_CHUNKS)),
        with_length=False,
    ),
    "late": Answer(before=(Spawn(),), body=(b"hello",)),
    "late-failed": Answer(500, before=(Spawn(),), body=(b"hello",)),
}


def answer_to(path: str, query: dict[str, list[str]]) -> Answer:
    """Return the answer of a route, with as many large chunks as `chunks` says."""
    answer = ANSWERS[path.strip("/")]
    if "chunks" in query:
        return replace(answer, body=answer.body[: int(query["chunks"][0])])
    return answer
