"""`manage.py postlude ...`: the command line, with Django set up and its database."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    handle_default_options,
)
from django.db import connections

from postlude import failure_store, settings
from postlude.__main__ import main


class Command(BaseCommand):
    """Passes what is written after it to the command `postlude`."""

    help = "Failed deferred calls: list, show, retry, forget; stats and advice."
    requires_system_checks = ()  # a broken project must not hide its failures

    def add_arguments(self, parser: CommandParser) -> None:
        """Take everything, options included."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as `manage.py postlude ...` and exit with its code.

        Django's own parser would refuse options that come first: `postlude --help`.
        """
        known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        known.add_argument("--settings")
        known.add_argument("--pythonpath")
        options, rest = known.parse_known_args(argv[2:])
        handle_default_options(options)
        try:
            code = self._main(rest)
        finally:
            connections.close_all()
        sys.exit(code)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run as `call_command("postlude", ...)`.

        Raises:
            CommandError: it ended with another code than 0, which is `returncode`.
        """
        if code := self._main(options["arguments"]):
            raise CommandError(f"postlude ended with code {code}.", returncode=code)

    @staticmethod
    def _main(arguments: list[str]) -> int:
        # In memory there is nothing of another process: the command says so itself.
        store = None if settings().failures is None else failure_store()
        return main(arguments, store)
