"""`python -m benchmarks.drive_wsgi REQUESTS`: the smallest Flask app, without a server.

The counterpart of `benchmarks.drive`, for callgrind.
"""

import io
import os
import sys
from typing import Any

from benchmarks.apps.smallest_flask import app

WARM_UP = 160


def start_response(_status: str, _headers: Any, _exc_info: Any = None) -> Any:
    """Take the head of an answer."""
    return bytes


def serve(requests: int) -> None:
    """Let the app answer requests, as gunicorn does: iterate, then close."""
    for _ in range(requests):
        body = app.wsgi_app(_environ(), start_response)
        for _part in body:
            pass
        if hasattr(body, "close"):
            body.close()


def _environ() -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gunicorn",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "51000",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # gunicorn's own is a class, too, and files are not what is measured.
        "wsgi.file_wrapper": list,
    }


if __name__ == "__main__":
    serve(WARM_UP + int(sys.argv[1]))
    os._exit(0)
