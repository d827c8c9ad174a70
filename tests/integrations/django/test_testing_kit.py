"""G2: the fixtures of the pytest plugin, with Django's test clients."""

import pytest
from django.http import Http404, HttpResponse

from postlude import NoScopeError, defer
from postlude.testing import failing_calls

clients = pytest.mark.parametrize("get", ["client", "async-client"], indirect=True)
pytestmark = [clients, pytest.mark.usefixtures("shop")]


@pytest.fixture
def shop(site, events):
    """Order books, and refuse everything else."""

    async def mail(to):
        events.append(f"mail to {to}")

    def view(request):
        if request.path == "/broken":
            defer(int, "no number").named("parse")
            return HttpResponse("ok")
        defer(mail, "ada").named("mail")
        defer(events.append, "audit").always()
        events.append("answer")
        if request.path != "/book":
            raise Http404
        return HttpResponse("ok")

    site(view)


def test_capture_collects_without_running(get, events, postlude_capture):
    """Calls are collected, can be asserted on, and run when the test says (G2)."""
    get("/book")
    assert events == ["answer"]
    postlude_capture.assert_deferred("mail", "ada", times=1)
    postlude_capture.run()
    assert events == ["answer", "mail to ada", "audit"]


def test_capture_judges_by_the_answer(get, postlude_capture):
    """What a refused request drops is not among the captured calls (G2, C1)."""
    get("/car")
    postlude_capture.assert_not_deferred("mail")
    assert len(postlude_capture.calls) == 1


@pytest.mark.usefixtures("postlude_inline")
def test_inline_runs_where_it_is_deferred(get, events):
    """`inline` runs calls at once, async ones too (G2)."""
    get("/car")
    assert events == ["mail to ada", "audit", "answer"]


@pytest.mark.usefixtures("postlude_inline")
def test_inline_lets_exceptions_through(get):
    """With `inline` the exception of a call is the view's (G2, C1)."""
    assert get("/broken")[0] == 500


def test_a_failing_call_fails_the_test(get):
    """What a call raises reaches the test, with the place that deferred it (G2)."""
    with pytest.raises(ValueError, match="no number") as failure, failing_calls():
        get("/broken")
    assert any("test_testing_kit.py" in note for note in failure.value.__notes__)


def test_an_expected_failure_is_none(get, postlude_failures):
    """A failure that was expected does not fail the test (G2)."""
    get("/broken")
    assert postlude_failures.expect(ValueError, "parse").state == "failed"


@pytest.mark.usefixtures("postlude_strict")
def test_strict_mode_finds_the_missing_middleware(get, site):
    """In strict mode `defer` in a project without Postlude is an error (A5)."""
    errors = []

    def view(request):
        with pytest.raises(NoScopeError, match="middleware is not installed") as error:
            defer(print, "never")
        errors.append(error)
        return HttpResponse("ok")

    site(view, MIDDLEWARE=[])
    get()
    assert len(errors) == 1
