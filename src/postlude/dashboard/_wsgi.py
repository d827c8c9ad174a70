"""The dashboard for WSGI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from postlude.dashboard import _authorize, _http
from postlude.dashboard._http import Request, Response
from postlude.dashboard._retries import PATIENCE
from postlude.dashboard._views import Dashboard, Retry

if TYPE_CHECKING:
    from postlude._types import Environ, StartResponse, WSGIApp
    from postlude.dashboard._retries import Runs, Verdict
    from postlude.failures import FailureStore


def wsgi(
    store: FailureStore | str | None = None,
    *,
    authorize: Callable[[Environ], bool] = _authorize.MISSING,
) -> WSGIApp:
    """Give the dashboard as a WSGI application, to mount under any path.

    Args:
        store: what to show; default: the store of this process.
        authorize: is asked at every request, with its environ, and lets in by giving
            True. What it raises is logged and means no.

    Raises:
        TypeError: *authorize* is missing, async or no function.
        SettingsError: the store, or the settings of this process, are impossible.
    """
    checked = _authorize.checked(authorize, "wsgi", "environ")
    _authorize.check_sync(checked, "wsgi")
    return _WSGIDashboard(Dashboard(store), checked)


class _WSGIDashboard:
    def __init__(self, pages: Dashboard, authorize: Callable[[Environ], Any]) -> None:
        self._pages = pages
        self._authorize = authorize

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        response = self._answer(environ)
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        start_response(status, response.all_headers())
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

    def _answer(self, environ: Environ) -> Response:
        if not _authorize.may(self._authorize, environ):
            return _http.REFUSED
        headers = _headers(environ)
        form: dict[str, list[str]] = {}
        if environ["REQUEST_METHOD"] == "POST":
            if _http.too_long(headers):
                return _http.TOO_LONG
            # Never more than is announced: PEP 3333 leaves open what happens then.
            length = int(headers.get("content-length") or 0)
            form = _http.parse_form(environ["wsgi.input"].read(length))
        answer = self._pages.answer(_request(environ, headers, form))
        if isinstance(answer, Retry):
            return answer.finish(rerun(answer.runs))
        return answer


def rerun(runs: Runs) -> list[Verdict] | None:
    """Run calls again in a thread; None if that takes longer than a page should."""
    verdicts: list[list[Verdict]] = []
    over = threading.Event()
    context = copy_context()

    def run() -> None:
        try:
            verdicts.append(context.run(runs.run))
        finally:
            over.set()

    threading.Thread(target=run, name="postlude-dashboard", daemon=True).start()
    over.wait(PATIENCE)
    return verdicts[0] if verdicts else None


def _headers(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].lower().replace("_", "-"): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-length"] = str(environ.get("CONTENT_LENGTH") or "")
    return headers


def _request(
    environ: Environ, headers: dict[str, str], form: dict[str, list[str]]
) -> Request:
    mount = _decoded(environ.get("SCRIPT_NAME", "")).rstrip("/")
    path = _decoded(environ.get("PATH_INFO", ""))
    return Request(
        method=environ["REQUEST_METHOD"],
        path=path if path or mount else "/",
        mount=mount,
        query=_http.parse_query(environ.get("QUERY_STRING", "")),
        headers=headers,
        form=form,
        secure=environ.get("wsgi.url_scheme") == "https",
    )


def _decoded(part: str) -> str:
    """Undo what PEP 3333 does to text that is not Latin."""
    return part.encode("latin-1").decode(errors="replace")
