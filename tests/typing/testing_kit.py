"""G2: the testing kit is typed."""

from typing import assert_type

import pytest

from postlude import DeferredCall
from postlude.testing import Captured, FailedCalls, capture, failing_calls, inline


def mail(to: str) -> None: ...


def tests_with_the_kit() -> None:
    with capture() as captured:
        assert_type(captured, Captured)
    assert_type(captured.calls, list[DeferredCall])
    assert_type(captured.find(mail, "ann"), list[DeferredCall])
    captured.find("by name")
    captured.assert_deferred(mail, "ann", times=1)
    captured.assert_not_deferred("by name")
    captured.assert_nothing_deferred()
    captured.run()

    with inline() as nothing:
        assert_type(nothing, None)

    with failing_calls() as failed:
        assert_type(failed, FailedCalls)
    assert_type(failed.calls, list[DeferredCall])
    assert_type(failed.expect(ValueError, name="mail"), DeferredCall)
    failed.check()


def test_with_fixtures(
    postlude_capture: Captured, postlude_failures: FailedCalls, postlude_strict: None
) -> None:
    with pytest.raises(AssertionError):
        postlude_capture.assert_deferred(mail)
    postlude_failures.check()


# -- what is wrong ------------------------------------------------------------


def wrong(captured: Captured, failed: FailedCalls) -> None:
    captured.find(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    captured.assert_deferred(mail, times="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    failed.expect(ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    failed.expect(name=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
