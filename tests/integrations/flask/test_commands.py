"""B6: units of Flask's own commands, which have no response to wait for."""

import sys

import click
import pytest
from flask import current_app

from postlude import DeferScope, defer


def fail():
    """Raise, as a command does."""
    raise LookupError("no such file")


@pytest.fixture
def run(app, events):
    """Add a command, and run it."""

    def run(command):
        app.cli.command("import")(command)
        return app.test_cli_runner().invoke(args=["import"])

    return run


def note(events, what):
    """Note what happened, in which application."""
    events.append(f"{what} in {current_app.name}")


async def note_async(events, what):
    """Note it, as an async call."""
    note(events, what)


def test_a_block_in_a_command(run, events):
    """`with DeferScope():` in a command has run its calls when it is left (B6, D4)."""

    def command():
        with DeferScope():
            defer(note, events, "sync")
            defer(note_async, events, "async")
            events.append("work")
        events.append("after")

    assert run(command).exit_code == 0
    assert events == ["work", "sync in shop", "async in shop", "after"]


def test_a_command_that_is_a_unit(run, events):
    """`@DeferScope()` makes a whole command a unit (B6)."""

    @DeferScope()
    def command():
        defer(note, events, "call")
        click.echo("done")

    result = run(command)
    assert result.output == "done\n"
    assert events == ["call in shop"]


@pytest.mark.parametrize(
    ("leave", "code", "expected"),
    [
        (lambda: sys.exit(0), 0, ["plain", "always"]),
        (lambda: sys.exit(3), 3, ["always"]),
        (fail, 1, ["always"]),
    ],
    ids=["exit-0", "exit-3", "exception"],
)
def test_a_command_is_judged_by_its_end(leave, code, expected, run, events):
    """Plain calls run only when the command's exit code is 0 (C1)."""

    @DeferScope()
    def command():
        defer(events.append, "plain")
        defer(events.append, "always").always()
        leave()

    assert run(command).exit_code == code
    assert events == expected
