"""Instruments that are on by themselves, by what the application has loaded (E4)."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

from postlude._log import say
from postlude._settings import in_force
from postlude.exceptions import SettingsError
from postlude.instrumentation import _instruments

# What an application has loaded that uses each. Of OpenTelemetry it is the SDK: the
# API alone, which libraries load, leads nowhere.
_SIGNS = {
    "opentelemetry": "opentelemetry.sdk",
    "prometheus": "prometheus_client",
    "sentry": "sentry_sdk",
}
_PLACE = "postlude.instrumentation"
discovered = False


def discover() -> None:
    """Install what the application uses, once, when the first call is about to run.

    Whatever goes wrong there is logged, and hurts nobody (E3).
    """
    global discovered
    if discovered:
        return
    discovered = True
    if in_force().instruments is not None:
        return  # that was said, and done when the settings were read
    for name, sign in _SIGNS.items():
        if sign in sys.modules:
            try:
                _install(name)
            except BaseException as exc:  # noqa: BLE001 - E3
                text = "the instrument %s could not be installed, and is left out"
                say(logging.WARNING, text, name, exc_info=exc)


def _install(name: str) -> None:
    place = f"{_PLACE}.{name}"
    known = {type(instrument).__module__ for instrument in _instruments.instruments}
    if place not in known:
        import_module(place).install()


def install(names: tuple[str, ...]) -> None:
    """Install what the settings name.

    Raises:
        SettingsError: a library is missing.
    """
    for name in names:
        try:
            _install(name)
        except ImportError as exc:
            raise SettingsError(
                f"instruments names {name!r}, and its library cannot be loaded "
                f"({exc}). Usually it is not installed here. Install it, or leave "
                f"{name!r} out."
            ) from exc
