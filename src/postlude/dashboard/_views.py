"""From requests to pages. Reads the store and blocks for it; knows no protocol."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from postlude import _reporting
from postlude._log import say
from postlude.dashboard import _csrf, _http, _templates
from postlude.dashboard._failures import LOOKED_AT, STATES, Filter, Page
from postlude.dashboard._fresh import Looks
from postlude.dashboard._http import Request, Response
from postlude.dashboard._overview import ALIVE, PERIODS, Overview
from postlude.dashboard._retries import Retries, Runs, Verdict
from postlude.exceptions import PostludeError
from postlude.failures._opening import open_store
from postlude.failures._retry import refusal

if TYPE_CHECKING:
    from postlude.failures import FailureRecord, FailureStore

_ID = re.compile(r"[0-9A-Za-z._~-]{1,64}", re.ASCII)
_PREFIX = 24
"""Characters of an id that the copy has too which stands for a call that runs again."""
_AT_ONCE = 200
"""Records that one form may name."""
_RARELY = 10.0
"""Seconds between two looks for what changes slowly."""
_DAY = 86400.0

_NOTICES = {
    "done": ("good", "The call ran, and its record is gone."),
    "failed": ("bad", "The call ran again and failed again."),
    "running": ("info", "The calls run. What becomes of them will show here."),
    "forgotten": ("good", "The record is forgotten."),
    "gone": ("info", "There was no such record any more."),
}


class Retry(NamedTuple):
    """A response that needs calls to be run again first, in the way of the protocol."""

    runs: Runs
    finish: Callable[[list[Verdict] | None], Response]
    """Gives the response; None says that they still run."""


class Dashboard:
    """The pages over one store. Any thread."""

    def __init__(self, store: FailureStore | str | None) -> None:
        """Show *store*, or if it is None, the store of this process.

        Raises:
            SettingsError: the store, or the settings of this process, are impossible.
        """
        self._given = None if store is None else open_store(store, create=False)
        self._looks = Looks()
        self._retries = Retries()
        if store is None:
            _own_store()

    def answer(self, request: Request) -> Response | Retry:
        """Answer; whatever happens, with a response."""
        try:
            answer = self._route(request)
        except PostludeError as exc:
            return self._page(
                request, "problem.html", 503, title="No records", text=str(exc)
            )
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not hurt the application
            say(40, "the dashboard failed at %s", request.path, exc_info=exc)
            return _http.BROKEN
        if request.method == "HEAD" and isinstance(answer, Response):
            return answer  # the shims leave the body out
        return answer

    def _route(self, request: Request) -> Response | Retry:
        if request.method not in {"GET", "HEAD", "POST"}:
            return _not_allowed("GET, HEAD, POST")
        if request.path == "":
            # Relative addresses need the slash; this one stands on its last part.
            return _http.redirect(f"{request.mount.rpartition('/')[2]}/", 307)
        path = request.path[1:]
        if path in {"retry", "forget"}:
            return self._act(path, request)
        page = self._find_page(path, request)
        if page is None:
            text = "There is no such page."
            return self._page(
                request, "problem.html", 404, title="Not found", text=text
            )
        return page() if request.method != "POST" else _not_allowed("GET, HEAD")

    def _find_page(self, path: str, request: Request) -> Callable[[], Response] | None:
        if path == "":
            return lambda: self._overview(request)
        if path == "failures":
            return lambda: self._failures(request)
        folder, _, one = path.partition("/")
        if folder == "failures" and _ID.fullmatch(one):
            return lambda: self._failure(request, one)
        if (asset := _templates.asset(path)) is not None:
            return lambda: asset
        return None

    # -- pages --------------------------------------------------------------

    def _overview(self, request: Request) -> Response:
        store, now = self._store(), time.time()
        period = PERIODS.get(request.query.get("period", ""), PERIODS["1h"])
        tallies = self._looks.take(
            ("tallies", period), lambda: list(store.tallies(now - period.seconds))
        )
        processes = self._looks.take(
            "processes", lambda: list(store.processes(now - ALIVE))
        )
        advice = self._looks.take(
            ("advice", period),
            lambda: _advice(store, now - period.seconds),
            _RARELY,
        )
        view = Overview.of(tallies, processes, period, now)
        page = self._page(
            request, "overview.html", view=view, advice=advice, periods=PERIODS.values()
        )
        return _http.compressed(request, page)

    def _failures(self, request: Request) -> Response:
        store, asked = self._store(), Filter.of(request.query)
        limit = LOOKED_AT + 1
        found = self._looks.take(
            ("list", asked.state, asked.function),
            lambda: list(
                store.list(
                    limit=limit, name=asked.function or None, state=asked.state or None
                )
            ),
        )
        everywhere: Sequence[FailureRecord] = found
        if asked.state or asked.function:
            everywhere = self._looks.take(
                "everywhere", lambda: list(store.list(limit=limit)), _RARELY
            )
        # Two looks may differ by what came or went in between; one page must not.
        known = found is everywhere and len(found) < limit
        total = len(found) if known else self._count()
        number = request.query.get("page", "1")
        page = Page.of(found, everywhere, total, asked, number)
        ran = None if page.total else self._ran()
        return self._page(request, "failures.html", page=page, states=STATES, ran=ran)

    def _failure(self, request: Request, one: str) -> Response:
        record = self._find(one)
        if record is None:
            return self._page(request, "gone.html", 404, depth=1)
        since = self._retries.since(one)
        return self._page(
            request,
            "failure.html",
            depth=1,
            record=record,
            state=STATES.get(record.state, record.state),
            since=since,
            refusal=None if since else refusal(record),
        )

    def _ran(self) -> tuple[int, float | None]:
        """Tell how many calls ran in the last day, and since when that is known."""
        now, store = time.time(), self._store()

        def read() -> tuple[int, float | None]:
            ended = [t for t in store.tallies(now - _DAY) if t.kind == "ended"]
            ran = [t for t in ended if not t.label.startswith("dropped")]
            first = min((t.minute * 60.0 for t in ended), default=None)
            return sum(t.count for t in ran), first

        return self._looks.take("ran", read, 2.0)

    # -- actions ------------------------------------------------------------

    def _act(self, action: str, request: Request) -> Response | Retry:
        if request.method != "POST":
            return _not_allowed("POST")
        ids = list(dict.fromkeys(request.form.get("id", [])))[:_AT_ONCE]
        status, text = 403, _FORGED.format(_csrf.refusal(request))
        if _csrf.refusal(request) is None:
            if ids and all(_ID.fullmatch(one) for one in ids):
                return self._do(action, request, ids)
            status, text = 400, _NONSENSE
        return self._page(request, "problem.html", status, title="Refused", text=text)

    def _do(self, action: str, request: Request, ids: list[str]) -> Response | Retry:
        store = self._store()
        self._looks.forget()
        if action == "forget":
            gone = store.forget(ids)
            return _http.redirect(f"failures?notice={'forgotten' if gone else 'gone'}")
        idle = [one for one in ids if self._retries.since(one) is None]
        found = [record for one in idle if (record := self._find(one)) is not None]
        if idle and not found:
            return _http.redirect("failures?notice=gone")
        records = self._retries.begin(found)
        if not records:
            return _still_running(ids)

        def finish(verdicts: list[Verdict] | None) -> Response:
            self._looks.forget()
            return self._retried(request, ids, verdicts)

        return Retry(Runs(records, store, self._retries), finish)

    def _retried(
        self, request: Request, ids: list[str], verdicts: list[Verdict] | None
    ) -> Response:
        if verdicts is None:
            return _still_running(ids)
        verdict = verdicts[0]
        if len(ids) == 1 and verdict.state == "done":
            return _http.redirect("failures?notice=done")
        if len(ids) == 1 and verdict.state != "refused":
            return _http.redirect(f"failures/{verdict.record.id}?notice=failed")
        return self._page(
            request,
            "retried.html",
            409 if len(ids) == 1 else 200,
            verdicts=verdicts,
            running=len(ids) - len(verdicts),
            states=STATES,
        )

    # -- what pages share ---------------------------------------------------

    def _page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> Response:
        token = _csrf.token_of(request)
        headers: tuple[tuple[str, str], ...] = ()
        if token is None:
            token = _csrf.new_token()
            headers = (_csrf.cookie(request, token),)
        text = _templates.render(
            template,
            **{
                "up": "../" * values.pop("depth", request.path.count("/") - 1),
                "token": token,
                "now": time.time(),
                "kept": None if template == "problem.html" else self._known_count(),
                "notice": _NOTICES.get(request.query.get("notice", "")),
                **values,
            },
        )
        return _http.html(text, status, *headers)

    def _store(self) -> FailureStore:
        return self._given if self._given is not None else _own_store()

    def _count(self) -> int:
        return self._looks.take("count", self._store().count)

    def _known_count(self) -> int | None:
        """Give the number of records for the head of a page, if the store can tell."""
        try:
            return self._count()
        except Exception:  # noqa: BLE001 - the page itself says what is wrong
            return None

    def _find(self, one: str) -> FailureRecord | None:
        """Give the record of that id, or its copy while its call runs again."""
        found = list(self._store().find(one[:_PREFIX]))
        exact = [record for record in found if record.id == one]
        copies = [record for record in found if record.id[_PREFIX : _PREFIX + 1] == "~"]
        whole = len(one) > _PREFIX
        return next(iter(exact or (copies if whole else [])), None)


_FORGED = (
    "Nothing was done: the form was not believed to come from this dashboard, because "
    "{}. Usually the page was open for long, or cookies are off. Go back, reload the "
    "page, and try again."
)
_NONSENSE = (
    "Nothing was done: the form names no record, or one that there cannot be. Usually "
    "none was chosen. Go back, and choose at least one."
)
_watching = threading.Lock()


def _own_store() -> FailureStore:
    """Give the store of this process, and have calls counted for it if nobody does.

    Raises:
        SettingsError: the environment has an unknown or impossible setting.
    """
    store = _reporting.failure_store()
    if not _reporting.writes():  # it only keeps failures, in memory
        with _watching:
            if not _reporting.writes():
                _reporting.watch(store)
    return store


def _advice(store: FailureStore, since: float) -> Sequence[object]:
    from postlude.advice import advise  # noqa: PLC0415 - only the overview needs it

    try:
        return [found for found in advise(store, since) if found.kind != "saved"]
    except PostludeError:
        raise
    except Exception as exc:  # noqa: BLE001 - the numbers are worth seeing without advice
        say(40, "the advice for the dashboard could not be given", exc_info=exc)
        return []


def _still_running(ids: list[str]) -> Response:
    # The page of one record says by itself that its call runs.
    where = f"failures/{ids[0]}" if len(ids) == 1 else "failures?notice=running"
    return _http.redirect(where)


def _not_allowed(methods: str) -> Response:
    text = f"This address is for {methods} only.\n"
    return _http.plain(text, 405, ("allow", methods))
