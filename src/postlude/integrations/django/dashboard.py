"""The dashboard among Django's addresses, behind Django's own sign-in.

```python
# urls.py
from django.urls import path
from postlude.integrations.django.dashboard import dashboard

urlpatterns = [
    path("postlude/", dashboard(authorize=lambda request: request.user.is_superuser)),
]
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt

from postlude.dashboard import _authorize, _http
from postlude.dashboard._http import Request, Response
from postlude.dashboard._views import Dashboard, Retry
from postlude.dashboard._wsgi import rerun

if TYPE_CHECKING:
    from collections.abc import Callable

    from postlude.failures import FailureStore

__all__ = ["dashboard"]


def dashboard(
    store: FailureStore | str | None = None,
    *,
    authorize: Callable[[HttpRequest], bool] = _authorize.MISSING,
) -> tuple[list[URLPattern], str, str]:
    """Give what `path()` takes as its view: all pages, in the namespace `postlude`.

    Args:
        store: what to show; default: the store of this process.
        authorize: is asked at every request, after the middleware, and lets in by
            giving True. What it raises is logged and means no.

    Raises:
        TypeError: *authorize* is missing, async or no function.
        SettingsError: the store, or the settings of this process, are impossible.
    """
    checked = _authorize.checked(authorize, "dashboard", "request")
    _authorize.check_sync(checked, "dashboard")
    pages = Dashboard(store)

    # The forms have a token of their own; and a call that is run again must not meet
    # the transaction of the page's request.
    @csrf_exempt
    @transaction.non_atomic_requests
    def view(request: HttpRequest, page: str) -> HttpResponse:
        answer = _http.REFUSED
        if _authorize.may(checked, request):
            answer = _answer(pages, request, page)
        headers = dict(answer.all_headers())
        return HttpResponse(answer.body, status=answer.status, headers=headers)

    return [re_path(r"^(?P<page>.*)$", view, name="page")], "postlude", "postlude"


def _answer(pages: Dashboard, request: HttpRequest, page: str) -> Response:
    headers = {name.lower(): value for name, value in request.headers.items()}
    form: dict[str, list[str]] = {}
    if request.method == "POST":
        if _http.too_long(headers):
            return _http.TOO_LONG
        form = {name: list(map(str, values)) for name, values in request.POST.lists()}
    answer = pages.answer(
        Request(
            method=request.method or "GET",
            path=f"/{page}",
            mount=request.path.removesuffix(f"/{page}"),
            query={name: str(request.GET[name]) for name in request.GET},
            headers=headers,
            form=form,
            secure=request.is_secure(),
        )
    )
    if isinstance(answer, Retry):
        return answer.finish(rerun(answer.runs))
    return answer
