"""From the command line to an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping

from rich.console import Console

from shop.opening import ShopError
from shop.run import run
from shop.settings import HELP, BadSettingError, Settings
from shop.signals import StoppedError, stop_on_signals
from shop.terminal import make_console


def main(
    arguments: list[str],
    run: Callable[[Settings, Console], int] = run,
    usage: str = HELP,
    usual: Mapping[str, str] | None = None,
) -> int:
    """Run the demo and return its exit status.

    `usual` has this demo's own defaults for variables of the environment.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Unicode shows "?" rather than a traceback.
            stream.reconfigure(errors="replace")
    if arguments in (["--help"], ["-h"]):
        print(usage, end="")
        return 0
    try:
        stop_on_signals()
        return run(_settings(arguments, usual or {}), make_console())
    except BadSettingError as error:
        print(error, file=sys.stderr)
        return 2
    except ShopError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except StoppedError as stopped:
        print("\nStopped; the shop is closed.", file=sys.stderr)
        return stopped.status


def _settings(arguments: list[str], usual: Mapping[str, str]) -> Settings:
    """Return the settings, all checked before anything is started."""
    if arguments:
        raise BadSettingError(
            f"{' '.join(arguments)}: the demo takes no arguments.",
            "its settings are environment variables, named in --help.",
            "ORDERS=5 make demo",
        )
    told = {name: value for name, value in os.environ.items() if value}
    settings = Settings.from_environment({**usual, **told})
    try:
        settings.report_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettingError(
            f"REPORT_DIR={settings.report_dir}: {error.strerror}.",
            "it is a file, or lies where you may not write.",
            "REPORT_DIR=/tmp/demo make demo",
        ) from error
    return settings
