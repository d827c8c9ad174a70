"""The raw WSGI application under test, wrapped in Postlude's middleware."""

import contextvars
import os
import threading
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from answers import Answer, DeferNow, Fail, Spawn, Step, Wait, answer_to
from planned_calls import plan
from postlude import DeferScope
from postlude.wsgi import PostludeMiddleware
from reporting import wait_at_gate


def probe(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer as the path says and defer as the query says."""
    query = parse_qs(environ["QUERY_STRING"])
    token = query.get("token", [""])[0]
    answer = answer_to(environ["PATH_INFO"], query)
    plan(token, query.get("defer", ()))
    for step in answer.before:
        _perform(step, token, query)
    status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    start_response(status, answer.head())
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    if answer.as_file:
        return _file(answer, environ)
    if answer.with_length:
        return [step for step in answer.body if isinstance(step, bytes)]
    return _stream(answer, token, query)


def _file(answer: Answer, environ: dict[str, Any]) -> Iterable[bytes]:
    body = answer.file().open("rb")  # the server closes it, PEP 3333
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(body) if wrapper else iter(lambda: body.read(8192), b"")


def _stream(answer: Answer, token: str, query: Any) -> Iterator[bytes]:
    for step in answer.body:
        if isinstance(step, bytes):
            yield step
        else:
            _perform(step, token, query)


def _perform(step: Step, token: str, query: dict[str, list[str]]) -> None:
    if isinstance(step, Wait):
        wait_at_gate(token, step.gate)
    elif isinstance(step, Fail):
        raise RuntimeError("the probe fails on purpose")
    elif isinstance(step, DeferNow):
        plan(token, query.get("midway", ()))
    elif isinstance(step, Spawn):
        here = contextvars.copy_context()
        arguments = (_outlive, token, query["late"])
        threading.Thread(target=here.run, args=arguments, daemon=True).start()


def _outlive(token: str, specs: list[str]) -> None:
    wait_at_gate(token, "task")
    plan(token, specs)


class Lingering:
    """A body of an outer middleware that takes a millisecond more to close."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Let the server go on a little after Postlude was told of the end."""
        self._body.close()
        time.sleep(0.001)


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Serve the probe, with `?lingers=yes` as on a server that is slow at the end."""
    body = wrapped(environ, start_response)
    return Lingering(body) if "lingers=" in environ["QUERY_STRING"] else body


wrapped = PostludeMiddleware(probe)

if "PROBE_CALLS_AT_IMPORT" in os.environ:
    with DeferScope():
        plan("", ["import-sync:sync", "import-async:async"])
