"""One settings object for the whole library, and where its values come from."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

from postlude.exceptions import SettingsError

_PREFIX = "POSTLUDE_"
_NO_SETTINGS = {"POSTLUDE_APP"}
"""Variables of that prefix that are the command line's own."""


class Settings(NamedTuple):
    """Every setting with its default and the reason for it."""

    threads: int = 16
    """Most threads for sync calls, per process. Sync calls wait for mail servers and
    HTTP far more than they compute: 16 keep a burst moving and cost nothing until
    they are needed, since threads start lazily."""

    concurrency: int = 100
    """Most async calls running at once, per event loop. The pool size at which common
    HTTP clients (httpx: 100 connections) stop helping."""

    max_pending: int = 10_000
    """Most calls waiting or running, per process, before `overflow` applies. At no
    more than 1 KiB each that is 10 MB."""

    overflow: Literal["wait", "hand_over", "drop"] = "wait"
    """What happens at `max_pending`. `wait` holds the request's own task after its
    response until its calls have run, so load is pushed back and nothing is lost;
    `hand_over` puts what can be carried on the queue, and waits for the rest; `drop`
    refuses the calls of that unit, each with a record."""

    grace: float = 8.0
    """Seconds that a shutdown waits for calls. Container runtimes kill 10 s after
    SIGTERM; this leaves two to write down what was not finished."""

    soft_limit: float = 5.0
    """Seconds after which a running call is reported as one that should be a queue
    job: the five-second rule."""

    commit_wait: float = 60.0
    """Seconds that a call waits for a transaction still open after the end of its
    unit, before it is recorded as lost. A transaction that outlives its request by a
    minute was forgotten: servers and proxies give up on a whole request by then."""

    inspector: bool | None = None
    """Whether `defer` warns of what a call captures that ends with its request: an
    open session, an upload. None is for development only: Python's development mode,
    a framework's debug mode, tests with Postlude's pytest plugin. Looking takes some
    microseconds at each `defer`, and in production nobody reads the warning."""

    strict: bool = False
    """Whether `defer` outside every unit raises `NoScopeError`. Off, because a script
    that imports a service function must work; on in tests that want to know."""

    failures: object = None
    """Where failure records are kept: a path or an address (`sqlite:///postlude.db`,
    `postgresql+psycopg://...`), `django`, or a `FailureStore` of your own. None keeps
    them in memory: a library must not write files that nobody asked for."""

    failures_kept: int | None = None
    """How many failure records are kept; older ones make room. None is 1,000 in memory
    (a day of a healthy service, some MB of a broken one), and 100,000 in a database."""

    failures_days: float = 30.0
    """Days after which failure records and numbers are deleted: as long as most
    services keep their logs."""

    record_arguments: bool = True
    """Whether records show and keep the arguments of a call. Without them no call can
    be run again from its record."""

    redact: tuple[str, ...] = ()
    """More words, besides `password`, `token` and their like: an argument or key whose
    name has one in it is never recorded. What is personal differs from app to app."""

    modules: tuple[str, ...] = ()
    """Packages whose functions a record may name when it is run again. Empty means the
    project's own code: nothing of Python's or of an installed package, so that whoever
    can write into the store cannot run `os.system`."""

    queue: object = None
    """The job engine behind `.retry()`, `.durable()` and `queue()`: an address
    (`sqlite:///postlude-queue.db`, `procrastinate+postgresql://...`) or a `Queue`. None
    means that there is none: which promises a service makes is not a library's to
    guess."""

    queue_lease: float = 30.0
    """Seconds after which another process takes the jobs of one that died. Leases are
    extended every third of it, so long calls keep theirs; a process that stands still
    for this long is taken for dead."""

    queue_threads: int = 2
    """Threads of a web process that work on an embedded queue; 0 leaves it to
    `postlude work`. Two, since only calls that failed once come this way."""

    instruments: tuple[str, ...] | None = None
    """Which instruments watch calls: of `opentelemetry`, `prometheus`, `sentry`,
    `logging`. None is those of the first three whose library the application has
    loaded by the first call; that costs nothing where there is none."""

    server_timing: bool = False
    """Whether responses say in a `Server-Timing` header how long they took and how many
    calls were deferred. Off, because it tells strangers about the inside."""


class SettingsOptions(TypedDict, total=False):
    """The keyword arguments of `configure`: the fields of `Settings`, all optional."""

    threads: int
    concurrency: int
    max_pending: int
    overflow: Literal["wait", "hand_over", "drop"]
    grace: float
    soft_limit: float
    commit_wait: float
    inspector: bool | None
    strict: bool
    failures: object
    failures_kept: int | None
    failures_days: float
    record_arguments: bool
    redact: tuple[str, ...]
    modules: tuple[str, ...]
    queue: object
    queue_lease: float
    queue_threads: int
    instruments: tuple[str, ...] | None
    server_timing: bool


def _positive_int(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number != float(value) or number < 1:
        raise ValueError
    return number


def _positive_seconds(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    return 0.0 if value in {0, "0", "0.0"} else _positive_seconds(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"1": True, "true": True, "0": False, "false": False}[str(value).lower()]


def _flag_or_none(value: Any) -> bool | None:
    return None if value is None else _flag(value)


def _int_or_none(value: Any) -> int | None:
    return None if value is None else _positive_int(value)


def _words(value: Any) -> tuple[str, ...]:
    """Understand a list of words; in the environment, with commas between them."""
    parts: Any = value.split(",") if isinstance(value, str) else value
    if not all(isinstance(part, str) for part in parts):
        raise TypeError
    words = tuple(part.strip() for part in parts)
    if not all(words) and words != ("",):
        raise ValueError
    return tuple(word for word in words if word)


def _instruments(value: Any) -> tuple[str, ...] | None:
    names = None if value is None else _words(value)
    if names is not None and not set(names) <= INSTRUMENTS:
        raise ValueError
    return names


def _store(value: Any) -> object:
    if value is None or hasattr(value, "write"):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _engine(value: Any) -> object:
    if value is None or hasattr(value, "put"):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _count(value: Any) -> int:
    return 0 if value in {0, "0"} else _positive_int(value)


INSTRUMENTS = {"opentelemetry", "prometheus", "sentry", "logging"}


def _policy(value: Any) -> str:
    if value not in {"wait", "hand_over", "drop"}:
        raise ValueError
    return str(value)


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "threads": (_positive_int, "a whole number of at least 1"),
    "concurrency": (_positive_int, "a whole number of at least 1"),
    "max_pending": (_positive_int, "a whole number of at least 1"),
    "overflow": (_policy, "'wait', 'hand_over' or 'drop'"),
    "grace": (_seconds, "a number of seconds, 0 or more"),
    "soft_limit": (_positive_seconds, "a positive number of seconds"),
    "commit_wait": (_positive_seconds, "a positive number of seconds"),
    "inspector": (
        _flag_or_none,
        "True, False or None (in the environment 1, 0, true or false)",
    ),
    "strict": (_flag, "True or False (in the environment 1, 0, true or false)"),
    "failures": (
        _store,
        "a path or an address like 'sqlite:///postlude.db', 'memory', or a store",
    ),
    "failures_kept": (_int_or_none, "a whole number of at least 1, or None"),
    "failures_days": (_positive_seconds, "a positive number of days"),
    "record_arguments": (
        _flag,
        "True or False (in the environment 1, 0, true or false)",
    ),
    "redact": (_words, "words (in the environment with commas between them)"),
    "modules": (_words, "names of modules (in the environment with commas)"),
    "queue": (
        _engine,
        "an address like 'sqlite:///postlude-queue.db', a `Queue`, or None",
    ),
    "queue_lease": (_positive_seconds, "a positive number of seconds"),
    "queue_threads": (_count, "a whole number, 0 or more"),
    "instruments": (
        _instruments,
        "names out of opentelemetry, prometheus, sentry, logging; or None",
    ),
    "server_timing": (_flag, "True or False (in the environment 1, 0, true or false)"),
}

_lock = threading.Lock()
_configured: dict[str, Any] = {}  # by configure()
_framework: dict[str, Any] = {}  # by Django's settings
_loaded: Settings | None = None
_last_good = Settings()
_development: str | None = None  # who said that this is no production
when_loaded: list[Callable[[Settings], object]] = []
"""Who wants to know of new settings, and may refuse them with a `SettingsError`."""
server_timing = True
"""False: no response says its timing, and the settings need not be asked at each."""
inspects: bool | None = None
"""Whether `defer` looks at what calls capture; None until the first one asks."""


def checked(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check names and values; *source* says in the error where they came from.

    Raises:
        SettingsError: a name is unknown or a value impossible.
    """
    good: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _CHECKS:
            known = ", ".join(sorted(_CHECKS))
            raise SettingsError(
                f"{source} sets {name!r}, which is no setting of Postlude. Usually it "
                f"is misspelt or of another version. Use one of: {known}."
            )
        check, wanted = _CHECKS[name]
        try:
            good[name] = check(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise SettingsError(
                f"{source} sets {name} to {value!r}, which is impossible. Usually a "
                f"unit or a type was mixed up. Use {wanted}."
            ) from None
    return good


def configure(**settings: Unpack[SettingsOptions]) -> None:
    """Set settings for this process; the last value of each name wins.

    Values given here win over the environment (`POSTLUDE_THREADS=8`), which wins over
    Django's settings (`POSTLUDE = {"THREADS": 8}`), which win over the defaults. The
    settings are the fields of `postlude.Settings`, each with its reason: `threads`,
    `concurrency`, `max_pending`, `overflow`, `grace`, `soft_limit`, `commit_wait`,
    `inspector`, `strict`, `failures`, `failures_kept`, `failures_days`,
    `record_arguments`, `redact`, `modules`, `queue`, `queue_lease`, `queue_threads`,
    `instruments`, `server_timing`.

    They are read at the next call or request. Another failure store takes over then;
    the old one gets what is its own, and is closed.

    Raises:
        SettingsError: a name is unknown or a value impossible; nothing is changed.
    """
    global _loaded, inspects, server_timing
    good = checked(settings, "configure()")
    with _lock:
        _configured.update(good)
        _loaded = inspects = None
        server_timing = True


def configure_framework(values: Mapping[str, Any], source: str) -> None:
    """Take over what a framework's own settings say; lowest but for the defaults."""
    global _loaded, inspects, server_timing
    good = checked({str(k).lower(): v for k, v in values.items()}, source)
    with _lock:
        _framework.update(good)
        _loaded = inspects = None
        server_timing = True


def in_development(source: str) -> None:
    """Take it from *source*, a framework's debug mode, that this is no production.

    No setting is changed by it: it is what `inspector=None` asks for.
    """
    global _development, inspects
    with _lock:
        if _development is None:
            _development = source
            inspects = None


def settings() -> Settings:
    """Give the settings in force.

    Raises:
        SettingsError: the environment has an unknown or impossible setting.
    """
    loaded = _loaded
    return loaded if loaded is not None else _load()


def in_force() -> Settings:
    """Give the settings in force, or the last good ones; for what runs in background.

    It never raises: what lets a call in, a middleware or `defer`, asks `settings`, and
    whoever wrote the bad setting meets the error there.
    """
    if (loaded := _loaded) is not None:
        return loaded
    try:
        return _load()
    except SettingsError:
        return _last_good


def inspecting() -> bool:
    """Decide whether `defer` looks at what calls capture; once, until a new setting.

    Raises:
        SettingsError: the environment has an unknown or impossible setting.
    """
    global inspects
    if (decided := inspects) is not None:
        return decided
    now = settings()
    wanted = now.inspector
    if wanted is None:
        tests = "postlude.pytest_plugin" in sys.modules
        wanted = _development is not None or tests or sys.flags.dev_mode
    with _lock:
        if now is _loaded:  # else the next one decides, by the setting that just came
            inspects = wanted
    return wanted


def _load() -> Settings:
    global _last_good, _loaded, server_timing
    environment = {
        name[len(_PREFIX) :].lower(): value
        for name, value in os.environ.items()
        if name.startswith(_PREFIX) and name not in _NO_SETTINGS
    }
    from_environment = {
        name: value
        for key, raw in environment.items()
        for name, value in checked({key: raw}, f"{_PREFIX}{key.upper()}").items()
    }
    with _lock:
        _loaded = Settings(**{**_framework, **from_environment, **_configured})
        loaded = _last_good = _loaded
        server_timing = loaded.server_timing
    try:
        for hear in when_loaded:
            hear(loaded)
    except SettingsError:
        _loaded = None
        raise
    return loaded


def reset() -> None:
    """Forget all that was configured; the environment is read again. For tests."""
    global _development, _loaded, inspects, server_timing
    with _lock:
        _configured.clear()
        _framework.clear()
        _development = None
        _loaded = inspects = None
        server_timing = True
