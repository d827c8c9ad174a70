"""What Postlude raises and warns with, and the texts in three beats."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CallStartedError",
    "NoQueueError",
    "NoScopeError",
    "NoScopeWarning",
    "PostludeError",
    "PostludeWarning",
    "QueueError",
    "QueueOptionError",
    "RecordGoneError",
    "RequestBoundWarning",
    "ScopeEndedError",
    "SettingsError",
    "StatementError",
    "StoreError",
    "TooLateError",
    "UncommittedError",
]


class PostludeError(Exception):
    """Root of everything that Postlude raises."""


class NoScopeError(PostludeError, LookupError):
    """Raised in strict mode when nothing collects deferred calls here (A5)."""


class CallStartedError(PostludeError, RuntimeError):
    """Raised when an option is set on a call that has already started (A2)."""


class ScopeEndedError(PostludeError, RuntimeError):
    """Raised when a `DeferScope` is entered a second time."""


class SettingsError(PostludeError, ValueError):
    """Raised at start for a setting that is unknown or impossible."""


class NoQueueError(PostludeError, LookupError):
    """Raised when an option needs a queue and none is configured (F1)."""


class QueueError(PostludeError, RuntimeError):
    """Raised when a job engine cannot take a call, or cannot be reached (F2)."""


class QueueOptionError(PostludeError, ValueError):
    """Raised for an option of a call that its engine cannot honour (F4)."""


class ArgumentError(PostludeError, TypeError):
    """Raised for a function or an argument that another process could not get (E2)."""


class StoreError(PostludeError, OSError):
    """Raised by a failure store that cannot be used now; never reaches a call (E3)."""


class RecordGoneError(PostludeError, LookupError):
    """Raised for a failure record that is not in its store any more (E2)."""


class TooLateError(PostludeError, RuntimeError):
    """Raised when a deferred call changes a response that has left (B7)."""


class StatementError(PostludeError, RuntimeError):
    """Raised where a statement is to join a transaction that takes none (F2)."""


class UncommittedError(PostludeError, RuntimeError):
    """What a call failed with that did not commit what it wrote (C2)."""


class PostludeWarning(UserWarning):
    """Root of everything that Postlude warns with."""


class NoScopeWarning(PostludeWarning):
    """Warns once per call site that `defer` ran its function at once (A5)."""


class RequestBoundWarning(PostludeWarning):
    """Warns in development of a call that holds what ends with its request (D4)."""


NO_SCOPE = (
    "defer() was called, but nothing collects deferred calls here, so {name} "
    "{consequence}. Usually the Postlude middleware is not installed, or this code "
    "runs outside a request or in a thread that was started by hand. Install the "
    "middleware, or wrap the code in `with DeferScope():`."
)
REQUEST_BOUND = "The deferred call {call} holds {what} ({place}). {why} {fix}"
CALL_STARTED = (
    ".{option}() was called on {call!r}, which has already left the state 'pending'. "
    "Usually the handle was kept and used after the response. Set options in the same "
    "expression as defer(): `defer(fn).{option}(...)`."
)
SCOPE_ENDED = (
    "This DeferScope has been entered before. A scope collects the calls of one unit "
    "of work and cannot be used again. Create a new one: `with DeferScope():`."
)
GENERATOR_BLOCK = (
    "@DeferScope() was put on {name}, which is a generator function: calling it runs "
    "none of its body, so there would be nothing to collect. Use `with DeferScope():` "
    "inside its body instead."
)
NOT_CALLABLE = (
    "defer() got {what}, which cannot be called. Usually the function was called by "
    "mistake before it was handed over. Pass the function and its arguments: "
    "`defer(fn, arg)`, not `defer(fn(arg))`."
)
COROUTINE = (
    "defer() got the coroutine object {name}, not a coroutine function. Usually the "
    "async function was called by mistake before it was handed over. Pass the function "
    "and its arguments: `defer({short}, ...)`, not `defer({short}(...))`."
)
GENERATOR = (
    "defer() got the generator function {name}: calling it runs none of its body. "
    "Usually a `yield` was left in it. Pass a function that does the work, or "
    "`lambda: list({short}(...))`."
)
BAD_NAME = (
    ".named() got {name!r} ({type}), and a name is a non-empty string. Usually an id "
    "was passed as it is. Use `.named(f'...-{{id}}')`."
)
BAD_TIMEOUT = (
    ".timeout() got {seconds!r}, and a timeout is a positive number of seconds. "
    "Usually milliseconds were meant, or a missing setting became zero. Use "
    "`.timeout(2.5)` for two and a half seconds."
)
BAD_PREDICATE = (
    ".when() got {what}, which cannot be called. The condition is decided after the "
    "response, not now. Pass a function of the outcome: `.when(lambda outcome: ...)`."
)
NO_QUEUE = (
    "{option}() was asked for {name}, and no queue is configured: in memory nobody "
    "could keep that promise when the process dies. Usually the setting is missing. "
    "A file is enough, with no server: `postlude.configure(queue="
    "'sqlite:///postlude-queue.db')` or POSTLUDE_QUEUE, after "
    "`pip install 'postlude[queue]'`."
)
NOT_IMPORTABLE = (
    "{name} cannot be handed to a queue: {reason}. Usually it is a closure or a "
    "method. Another process finds a function by its module and name: pass one that "
    "stands in a module of yours, and what it needs as arguments."
)
UNSUPPORTED = (
    "{option} was asked for {name}, and the queue {queue} cannot {what}. Usually the "
    "engine was chosen for other work. Leave the option out, or configure an engine "
    "that can: docs/queues.md has a table."
)
SEALED = (
    ".{option}() was set on {name} after it was written, and what is written to a "
    "broker, under a key or in a transaction of Django's cannot be changed. Usually "
    "the option stands behind .durable(), or behind a queue() outside of every unit. "
    "Set it last: `defer(fn).{option}(...).durable()`, or `with DeferScope(): "
    "queue(fn).{option}(...)`."
)
STILL_OPEN = (
    ".durable() was asked for {name}, whose transaction on {database} is still open "
    "while the response leaves; workers of {queue} begin what they get, so it was not "
    "written. Usually the session belongs to a dependency that commits after the "
    "response. Commit before it, or use an engine with leases: docs/queues.md has a "
    "table."
)
STILL_ASKED = (
    ".durable() was asked for {name}, whose .when() is asked after the response only; "
    "workers of {queue} begin what they get, so it was not written. Usually the engine "
    "was chosen for other work. Decide in the function itself, or use an engine with "
    "leases: docs/queues.md has a table."
)
BAD_RETRIES = (
    ".retry() got {retries!r}, and it takes how many further runs there may be: a "
    "whole number, 0 or more. Usually a number of seconds was meant. Use "
    "`.retry(3, backoff=2.0)`."
)
BAD_BACKOFF = (
    ".retry() got backoff={backoff!r}, and it takes seconds: a number, 0 or more, "
    "which is doubled each time, or a list with the seconds before each run. Use "
    "`.retry(3, backoff=2.0)` or `.retry(3, backoff=[1, 10, 60])`."
)
BAD_DELAY = (
    "queue() got delay={delay!r}, and it takes seconds: a number, 0 or more. Usually a "
    "timedelta or a point in time was meant. Use `delay=90.0` for a minute and a half."
)
BAD_KEY = (
    "queue() got key={key!r}, and a key is a non-empty string. Usually an id was "
    "passed as it is. Use `key=f'order-{{id}}'`."
)
OPTION_NAMES = (
    "queue() takes {names} for itself, and {fn} has a parameter of that name. Pass its "
    "own with `functools.partial({short}, {first}=...)`."
)
TOO_LATE = (
    "A deferred call changed {what}, but the response has already left. Nothing would "
    "ever store or send the change. Make the change in the request, before the answer, "
    "and defer only what the client does not see."
)
UNCOMMITTED = (
    "A deferred call wrote to {database} and did not commit, so what it wrote is lost. "
    "Usually it used the session of its request, whose own transaction is over, or a "
    "commit was forgotten. Open a session in the call, and commit it: "
    "`with Session.begin() as session:`. If it is meant, say `rollback()`."
)
STATEMENTS_UNSUPPORTED = (
    "A statement was to run in the transaction on {database}, whose library gives "
    "Postlude no way in. Only SQLAlchemy, Django and psycopg do. "
    "Use one of these for the transaction, or an option that writes nothing in it."
)
STATEMENTS_TOO_LATE = (
    "A statement was to run in the transaction on {database}, which takes none any "
    "more: it has ended, or is prepared for the second phase of its commit. Usually an "
    "option was set on a call long after defer(). Set it in the same expression: "
    "`defer(fn).durable()`."
)
STATEMENTS_ELSEWHERE = (
    "A statement was to run in the block of Django's on {database} that a call was "
    "deferred in, and this is another one. Usually an option was set on the call after "
    "an inner block had begun or ended. Set it in the same expression as defer(): "
    "`defer(fn).durable()`."
)
DRAIN_ON_LOOP = (
    "drain() was called on an event loop that has calls to run, and would wait for "
    "itself. Usually it stands in an async shutdown hook. There is no need for it: the "
    "middleware drains at the lifespan's end. Elsewhere use "
    "`await asyncio.to_thread(drain)`."
)
SYNC_BLOCK = (
    "`with DeferScope():` ended at {place}, in code that runs on an event loop, so "
    "{consequence}. Usually it is the sync form in an async function. Use "
    "`async with DeferScope():`."
)
