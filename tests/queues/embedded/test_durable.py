import asyncio
import contextlib
from pathlib import Path

import pytest
import queue_jobs as jobs
from queue_stage import rows, until

import postlude
from postlude import (
    DeferScope,
    QueueError,
    defer,
    defer_all,
    failure_store,
    forget,
)
from postlude.asgi import PostludeMiddleware
from postlude.instrumentation import _instruments
from postlude.queues import Job, open_queue
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


class Client:
    """Takes the messages of one exchange, and looks at the file when each comes."""

    def __init__(self, file: Path, scope=SCOPE, messages=()) -> None:
        self.file = file
        self.scope = {**scope, "client": ("testclient", 50000)}
        self.messages = list(messages)
        self.came: list[tuple[str, list[tuple[str, str]]]] = []
        self.status: int | None = None

    async def receive(self):
        """Give what the client says."""
        if self.messages:
            return self.messages.pop(0)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message) -> None:
        """Take a message, and look at the file."""
        self.status = message.get("status", self.status)
        found = await asyncio.to_thread(rows, self.file)
        self.came.append((message["type"].rpartition(".")[2], found))

    def ask(self, app) -> "Client":
        """Have the exchange."""
        asyncio.run(PostludeMiddleware(app)(self.scope, self.receive, self.send))
        return self


def answering(*work, status: int = 200):
    """Make an app that does something and answers."""

    async def app(scope, receive, send) -> None:
        for each in work:
            each()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def durable(name: str = "one", fn=jobs.note):
    """Defer a durable call."""
    return lambda: defer(fn, name).durable()


@pytest.mark.parametrize("fn", [jobs.note, jobs.anote, jobs.awaited])
def test_written_when_the_head_arrives(file: Path, fn) -> None:
    """The job is on the disk when the client has the head; gone when it ran (F2)."""
    client = Client(file).ask(answering(durable(fn=fn)))
    assert client.came[0] == ("start", [("pending", "one")])
    assert jobs.seen == [("one", 1)]
    postlude.drain()
    assert rows(file) == []


@pytest.mark.parametrize("status", [400, 500])
def test_failed_requests_write_nothing(file: Path, status) -> None:
    """What is not to run is not written, unless its own rule decides (C1, F2)."""
    work = (
        durable(),
        lambda: defer(jobs.note, "always").always().durable(),
        lambda: defer(jobs.note, "no").when(lambda o: o.ok).durable(),
    )
    client = Client(file).ask(answering(*work, status=status))
    assert client.came[0][1] == [("pending", "always"), ("pending", "no")]
    assert jobs.seen == [("always", 1)]
    postlude.drain()
    assert rows(file) == []


def test_a_body_that_fails_takes_it_back(file: Path) -> None:
    """What was written for a response that then failed is taken out again (C1, F2)."""

    async def app(scope, receive, send) -> None:
        defer(jobs.note, "one").durable()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    client = Client(file)
    with pytest.raises(RuntimeError, match="half way"):
        client.ask(app)
    assert client.came[0][1] == [("pending", "one")]
    postlude.drain()
    assert (jobs.seen, rows(file)) == ([], [])


def test_deferred_in_mid_body(file: Path) -> None:
    """What a stream defers is written before its next part leaves (F2)."""

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        defer(jobs.note, "one").durable()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        defer(jobs.note, "two").durable()
        await send({"type": "http.response.body", "body": b"b"})

    client = Client(file).ask(app)
    assert client.came == [
        ("start", []),
        ("body", [("pending", "one")]),
        ("body", [("pending", "one"), ("pending", "two")]),
    ]
    assert jobs.seen == [("one", 1), ("two", 1)]
    postlude.drain()
    assert rows(file) == []


def test_websocket(file: Path) -> None:
    """What a WebSocket defers is written before the next frame leaves (B4, F2)."""

    async def app(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        defer(jobs.note, "one").durable()
        await send({"type": "websocket.send", "text": "done"})
        async with DeferScope():
            defer(jobs.note, "two").durable()
        await send({"type": "websocket.close"})

    client = Client(
        file, {**SCOPE, "type": "websocket"}, [{"type": "websocket.connect"}]
    )
    client.ask(app)
    assert client.came[1] == ("send", [("pending", "one")])
    assert jobs.seen == [("two", 1), ("one", 1)]
    postlude.drain()
    assert rows(file) == []


def test_names_cancel_and_forget(file: Path) -> None:
    """Calls that are replaced or taken back are never written (C3, C4)."""

    def work() -> None:
        defer(jobs.note, "old").named("n").durable()
        defer(jobs.note, "new").named("n").durable()
        defer(jobs.note, "cancelled").durable().cancel()
        defer(jobs.note, "forgotten").named("f").durable()
        forget("f")

    client = Client(file).ask(answering(work))
    assert client.came[0][1] == [("pending", "new")]
    assert jobs.seen == [("new", 1)]


def test_order_and_isolation(worked: Path) -> None:
    """Durable calls keep their place, and a failing one hurts no other (D1, D2)."""

    def work() -> None:
        defer(jobs.note, "a")
        defer(jobs.boom, "b").durable().retry(0)
        defer(jobs.anote, "c").durable()
        defer(jobs.note, "d")

    Client(worked).ask(answering(work))
    assert [name for name, _ in jobs.seen] == ["a", "b", "c", "d"]
    (record,) = failure_store().list()
    assert record.exception == "ValueError('b')"


def test_groups(file: Path) -> None:
    """Durable calls of a group run together, before what follows (D1)."""

    def work() -> None:
        for call in defer_all(lambda: None, lambda: None):
            call.cancel()
        defer(jobs.anote, "a").concurrently().durable()
        defer(jobs.note, "b").concurrently().durable()
        defer(jobs.note, "c").durable()

    Client(file).ask(answering(work))
    names = [name for name, _ in jobs.seen]
    assert (sorted(names[:2]), names[2:]) == (["a", "b"], ["c"])
    postlude.drain()
    assert rows(file) == []


@pytest.mark.parametrize("name", ["good", "bad"])
def test_nested(file: Path, name) -> None:
    """A durable call of a deferred call is written at once, and runs with it (A7)."""
    with DeferScope():
        defer(jobs.nested, name)
    assert [each for each, _ in jobs.seen] == [name, f"inner {name}"]
    postlude.drain()
    assert rows(file) == []


def test_nested_in_a_job(worked: Path) -> None:
    """What a job defers follows the job's own outcome (C1)."""
    postlude.queue(jobs.nested, "good")
    postlude.queue(jobs.nested, "bad", retries=0)
    until(lambda: {"good", "inner good", "bad"} <= {name for name, _ in jobs.seen})
    until(lambda: rows(worked) == [("failed", "bad")])
    assert "inner bad" not in {name for name, _ in jobs.seen}


def test_late(file: Path) -> None:
    """A durable call that comes after the end of its unit is written at once (A6)."""
    scope = DeferScope()
    with scope:
        pass
    context = postlude._scope.current
    token = context.set(scope)
    try:
        call = defer(jobs.wait, "one").durable()
    finally:
        context.reset(token)
    assert rows(file) in ([("pending", "one")], [("running", "one")])
    jobs.gate.set()
    until(lambda: call.state == "done")


def jobs_of(file: Path) -> list[Job]:
    """Give the jobs in the file."""
    other = open_queue(f"sqlite:///{file}")
    try:
        return [job for _, job in other.waiting()]
    finally:
        other.close()


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_options_after_a_late_durable_are_written_too(file: Path, where) -> None:
    """Whoever takes it over knows all that was said, in whatever order (F2, F4)."""

    def late() -> None:
        defer(jobs.note, "one").durable().retry(5).timeout(7).named("webhook")
        if where == "thread":
            look()

    def look() -> None:
        (job,) = jobs_of(file)
        assert (job.retries, job.timeout, job.name) == (5, 7, "webhook")
        seen.append(job.id)

    async def site(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        late()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.to_thread(look)
        await send({"type": "http.response.body", "body": b"b"})

    seen: list[str] = []
    if where == "loop":
        assert Client(file).ask(site).status == 200
    else:
        with DeferScope():
            defer(late)
    assert jobs.ids["one"] == {*seen}
    postlude.drain()
    assert rows(file) == []


def test_an_option_that_could_not_be_written(worked: Path, monkeypatch) -> None:
    """If the engine fails, the job stays as it was, and the option says so (F2, F4)."""

    def late() -> None:
        call = defer(jobs.flaky, "one").durable().retry(1, backoff=0.0)
        put = postlude._call.carrier.queue.put
        monkeypatch.setattr(postlude._call.carrier.queue, "put", fail)
        with pytest.raises(QueueError, match="no room"):
            call.timeout(7)
        monkeypatch.setattr(postlude._call.carrier.queue, "put", put)

    def fail(*_args: object, **_options: object) -> None:
        raise QueueError("no room")

    with DeferScope():
        defer(late)
    until(lambda: jobs.seen == [("one", 1), ("one", 2)])
    postlude.drain()
    assert rows(worked) == []


def test_failed_attempt_goes_on_elsewhere(worked: Path) -> None:
    """A durable call that fails is run again by a worker, with its id (F2)."""
    client = Client(worked).ask(
        answering(lambda: defer(jobs.flaky, "one").durable().retry(2, backoff=0.0))
    )
    assert client.status == 200
    until(lambda: ("one", 2) in jobs.seen)
    assert len(jobs.ids["one"]) == 1
    postlude.drain()
    assert rows(worked) == []


def test_last_failure_is_in_both_lists(worked: Path) -> None:
    """The engine's failed list and the failure store have the last failure (E2)."""
    with DeferScope():
        call = defer(jobs.aboom, "one").durable().retry(1, backoff=0.0)
    until(lambda: rows(worked) == [("failed", "one")])
    (stored,) = failure_store().list()
    (listed,) = postlude._call.carrier.queue.failed()
    assert stored.id == listed.id == call.id
    assert (stored.attempt, listed.attempt) == (2, 2)
    assert listed.exception == "ValueError('one')"


def test_times_out(worked: Path) -> None:
    """A durable call that takes too long is run again under its own lease (D5, F2)."""
    with DeferScope():
        call = defer(jobs.wait, "one").timeout(0.05).durable().retry(1, backoff=0.0)
    until(lambda: ("one", 2) in jobs.seen)
    assert call.state == "handed_over"
    until(lambda: rows(worked) == [("failed", "one")])
    (record,) = failure_store().list()
    assert (record.state, record.attempt) == ("timed_out", 2)
    jobs.gate.set()


@pytest.mark.parametrize(
    ("fn", "state"), [(jobs.anote, "done"), (jobs.aforever, "timed_out")]
)
def test_its_time_begins_when_the_queue_has_answered(
    file: Path, monkeypatch, fn, state
) -> None:
    """A slow engine costs an async call nothing of its time-out (D5, F2)."""
    postlude.settings()
    engine = postlude._call.carrier.queue
    begin = engine.begin

    async def block() -> str:
        loop = asyncio.get_running_loop()

        def slow(*args):  # answers after a timer that was set when it was asked
            loop.call_soon_threadsafe(loop.call_later, 0.1, jobs.gate.set)
            jobs.gate.wait(60)
            return begin(*args)

        monkeypatch.setattr(engine, "begin", slow)
        async with DeferScope():
            call = defer(fn, "one").timeout(0.05).durable().retry(0)
        return call.state

    assert asyncio.run(block()) == state
    assert jobs.seen == [("one", 1)]


@pytest.mark.parametrize("fn", [jobs.note, jobs.anote])
def test_what_another_process_has_does_not_run_here(file: Path, monkeypatch, fn):
    """The call is handed over then, and the next one runs (F2, C5)."""
    postlude.settings()
    engine = postlude._call.carrier.queue
    begin = engine.begin
    monkeypatch.setattr(engine, "begin", lambda *args: begin(*args) and begin(*args))
    with DeferScope():
        call = defer(fn, "one").durable()
        defer(jobs.note, "next")
    assert call.state == "handed_over"
    assert [name for name, _ in jobs.seen] == ["next"]


def test_rollback_takes_it_back(file: Path) -> None:
    """A call whose transaction is rolled back does not run, written or not (C2)."""
    calls = []

    def rolled_back() -> None:
        with postlude.transaction():
            calls.append(defer(jobs.note, "one").durable())
            raise KeyError

    with DeferScope():
        with pytest.raises(KeyError):
            rolled_back()
        with postlude.transaction():
            kept = defer(jobs.note, "two").durable()
    (call,) = calls
    assert (call.reason, kept.state, jobs.seen) == ("rollback", "done", [("two", 1)])
    postlude.drain()
    assert rows(file) == []


def test_commit_after_the_response(file: Path) -> None:
    """A call waits for a commit that comes after the response (B3)."""
    transaction = postlude.transaction()

    def work() -> None:
        transaction.__enter__()
        defer(jobs.note, "one").durable()

    async def both() -> None:
        client = Client(file)
        middleware = PostludeMiddleware(answering(work))
        await middleware(client.scope, client.receive, client.send)
        assert jobs.seen == []
        await asyncio.to_thread(transaction.__exit__, None, None, None)
        await asyncio.to_thread(until, lambda: jobs.seen)

    asyncio.run(both())
    assert jobs.seen == [("one", 1)]
    postlude.drain()
    assert rows(file) == []


def test_instruments_see_it(worked: Path) -> None:
    """Whoever watches sees that a call was handed over (E4)."""
    told: list[str] = []

    class Watch:
        def around(self, call):
            return contextlib.nullcontext()

        def ended(self, record) -> None:
            told.append(record.state)

    watch = Watch()
    _instruments.install(watch)
    try:
        with DeferScope():
            defer(jobs.flaky, "one").durable().retry(1, backoff=0.0)
        until(lambda: told == ["handed_over", "done"])
    finally:
        _instruments.uninstall(watch)


# -- the engine is down -------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A queue whose folder is not there."""
    path = tmp_path / "gone" / "queue.db"
    postlude.configure(
        queue=f"sqlite:///{path}", queue_threads=0, modules=("queue_jobs",)
    )
    return path


def test_asgi_answers_with_an_error(nowhere: Path) -> None:
    """Nothing is answered when a durable call could not be written (F2)."""
    client = Client(nowhere)
    with pytest.raises(QueueError, match="cannot be used now"):
        client.ask(answering(durable()))
    assert (client.came, jobs.seen) == ([], [])
    nowhere.parent.mkdir()
    assert Client(nowhere).ask(answering(durable())).status == 200
    assert jobs.seen == [("one", 1)]


def test_wsgi_answers_with_an_error(nowhere: Path) -> None:
    """Under WSGI no head leaves when a durable call could not be written (F2)."""
    heads: list[str] = []

    def app(environ, start_response):
        defer(jobs.note, "one").durable()
        start_response("200 OK", [])
        return [b"ok"]

    with pytest.raises(QueueError, match="cannot be used now"):
        WSGIMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda s, h: heads.append(s))
    assert (heads, jobs.seen) == ([], [])


def test_wsgi_writes_before_the_head(file: Path) -> None:
    """Under WSGI the job is on the disk when the head leaves (F2)."""
    heads: list[object] = []

    def app(environ, start_response):
        defer(jobs.note, "one").durable()
        start_response("200 OK", [])
        defer(jobs.note, "two").durable()
        heads.append(rows(file))
        return [b"ok"]

    body = WSGIMiddleware(app)(
        {"REQUEST_METHOD": "GET"}, lambda s, h: heads.append(rows(file))
    )
    assert list(body) == [b"ok"]
    postlude.drain()
    assert heads == [
        [("pending", "one")],
        [("pending", "one"), ("pending", "two")],
    ]
    assert jobs.seen == [("one", 1), ("two", 1)]
    assert rows(file) == []
