"""The application of `killing.app` in Flask: `gunicorn killing.flask_site:site`."""

from flask import Flask, request

from killing.app import ask
from killing.calls import wait
from postlude.integrations.flask import Postlude

site = Flask(__name__)
Postlude(site)


@site.post("/<option>/<function>/<name>")
def defers(option: str, function: str, name: str) -> str:
    """Defer what a request asks for, and wait where it asks for that."""
    ask(option, function, name, {})
    if "wait" in request.args:
        wait("request")
    return "ok"
