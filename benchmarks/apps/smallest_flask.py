"""The smallest Flask app: one plain-text route, bare or with Postlude unused."""

import itertools
import os

from flask import Flask

app = Flask(__name__)
tick = itertools.count().__next__

if os.environ["BENCH_WAY"]:
    from postlude.integrations.flask import Postlude

    Postlude(app)


@app.get("/")
def home() -> tuple[str, int, dict[str, str]]:
    """Answer, and defer nothing."""
    return "hello", 200, {"Content-Type": "text/plain"}


@app.get("/ran")
def ran() -> str:
    """Tell the count of calls that have run; a tick of its own."""
    return str(tick())
