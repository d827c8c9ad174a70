"""The command that serves the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from postlude.cli._output import CommandError, Output
from postlude.cli._places import App, Place, Where, opened
from postlude.exceptions import PostludeError


def dashboard(
    ctx: typer.Context,
    place: Place = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="0 takes any free one.")
    ] = 8_025,
    where: Where = None,
    app: App = None,
) -> None:
    """Serve a live page of what runs, what failed, and how long it took."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, place or where, app)
    try:
        from postlude.dashboard import serve  # noqa: PLC0415 - it needs an extra
    except ImportError as exc:  # its text names the extra
        raise CommandError(str(exc)) from exc
    try:
        serve(store, host, port)
    except OSError as exc:
        if isinstance(exc, PostludeError):
            raise
        raise CommandError(
            f"The dashboard cannot listen at {host} port {port}: {exc}. Usually "
            "another program has that port. Take another one: `--port 0` finds it."
        ) from exc
