"""The pytest plugin: fixtures for the testing kit, and the ini option that uses them.

`postlude_strict = true` turns on, for every test, `NoScopeError` outside units and the
failing of tests whose deferred calls fail. The plugin turns the inspector on, which
warns of calls that hold what ends with their request; `POSTLUDE_INSPECTOR=0` turns it
off, or the filter `ignore::postlude.RequestBoundWarning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postlude.testing import Captured, FailedCalls


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        "postlude_strict",
        "defer() outside a unit is an error, and a failing deferred call fails its "
        "test",
        type="bool",
        default=False,
    )


@pytest.fixture
def postlude_capture() -> Iterator[Captured]:
    """Collect deferred calls without running them: `postlude.testing.capture()`."""
    from postlude.testing import capture  # noqa: PLC0415 - nothing at pytest's start

    with capture() as captured:
        yield captured


@pytest.fixture
def postlude_inline() -> Iterator[None]:
    """Run deferred calls at once, exceptions let through: `inline()`."""
    from postlude.testing import inline  # noqa: PLC0415 - nothing at pytest's start

    with inline():
        yield


@pytest.fixture
def postlude_failures() -> Iterator[FailedCalls]:
    """Fail the test if a deferred call of it fails and is not expected."""
    from postlude.testing import failing_calls  # noqa: PLC0415 - nothing at pytest's start

    with failing_calls() as failed:
        yield failed


@pytest.fixture
def postlude_strict() -> Iterator[None]:
    """Let `defer` outside every unit raise `NoScopeError`."""
    from postlude import _settings  # noqa: PLC0415 - nothing at pytest's start

    before = _settings.settings().strict
    _settings.configure(strict=True)
    try:
        yield
    finally:
        _settings.configure(strict=before)


@pytest.fixture(autouse=True)
def _postlude_strict_everywhere(request: pytest.FixtureRequest) -> None:
    if request.config.getini("postlude_strict"):
        request.getfixturevalue("postlude_strict")
        request.getfixturevalue("postlude_failures")
