"""One settings object for the whole library, and where its values come from."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

from postlude.exceptions import SettingsError

_PREFIX = "POSTLUDE_"


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

    overflow: Literal["wait", "drop"] = "wait"
    """What happens at `max_pending`. `wait` holds the request's own task after its
    response until its calls have run, so load is pushed back and nothing is lost;
    `drop` refuses the calls of that unit, each with a record."""

    grace: float = 8.0
    """Seconds that a shutdown waits for calls. Container runtimes kill 10 s after
    SIGTERM; this leaves two to write down what was not finished."""

    soft_limit: float = 5.0
    """Seconds after which a running call is reported as one that should be a queue
    job: the five-second rule."""

    strict: bool = False
    """Whether `defer` outside every unit raises `NoScopeError`. Off, because a script
    that imports a service function must work; on in tests that want to know."""

    failures_kept: int = 1_000
    """How many failure records the memory store keeps: a day of a healthy service,
    1 MB at the very most of a broken one."""


class SettingsOptions(TypedDict, total=False):
    """The keyword arguments of `configure`: the fields of `Settings`, all optional."""

    threads: int
    concurrency: int
    max_pending: int
    overflow: Literal["wait", "drop"]
    grace: float
    soft_limit: float
    strict: bool
    failures_kept: int


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


def _policy(value: Any) -> str:
    if value not in {"wait", "drop"}:
        raise ValueError
    return str(value)


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "threads": (_positive_int, "a whole number of at least 1"),
    "concurrency": (_positive_int, "a whole number of at least 1"),
    "max_pending": (_positive_int, "a whole number of at least 1"),
    "overflow": (_policy, "'wait' or 'drop'"),
    "grace": (_seconds, "a number of seconds, 0 or more"),
    "soft_limit": (_positive_seconds, "a positive number of seconds"),
    "strict": (_flag, "True or False (in the environment 1, 0, true or false)"),
    "failures_kept": (_positive_int, "a whole number of at least 1"),
}

_lock = threading.Lock()
_configured: dict[str, Any] = {}  # by configure()
_framework: dict[str, Any] = {}  # by Django's settings
_loaded: Settings | None = None


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
    settings are the fields of `postlude.settings()`: `threads`, `concurrency`,
    `max_pending`, `overflow`, `grace`, `soft_limit`, `strict`, `failures_kept`.

    Raises:
        SettingsError: a name is unknown or a value impossible; nothing is changed.
    """
    global _loaded
    good = checked(settings, "configure()")
    with _lock:
        _configured.update(good)
        _loaded = None


def configure_framework(values: Mapping[str, Any], source: str) -> None:
    """Take over what a framework's own settings say; lowest but for the defaults."""
    global _loaded
    good = checked({str(k).lower(): v for k, v in values.items()}, source)
    with _lock:
        _framework.update(good)
        _loaded = None


def settings() -> Settings:
    """Give the settings in force.

    Raises:
        SettingsError: the environment has an unknown or impossible setting.
    """
    loaded = _loaded
    return loaded if loaded is not None else _load()


def _load() -> Settings:
    global _loaded
    environment = {
        name[len(_PREFIX) :].lower(): value
        for name, value in os.environ.items()
        if name.startswith(_PREFIX)
    }
    from_environment = {
        name: value
        for key, raw in environment.items()
        for name, value in checked({key: raw}, f"{_PREFIX}{key.upper()}").items()
    }
    with _lock:
        _loaded = Settings(**{**_framework, **from_environment, **_configured})
        return _loaded


def reset() -> None:
    """Forget all that was configured; the environment is read again. For tests."""
    global _loaded
    with _lock:
        _configured.clear()
        _framework.clear()
        _loaded = None
