"""E4: instruments are on by what the application has loaded, unless it says which."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from postlude import SettingsError, configure, settings
from postlude.instrumentation import _discovery, _instruments

KINDS = """
    import json, sys
    import postlude
    {before}
    from postlude.instrumentation import _instruments

    with postlude.DeferScope():
        postlude.defer(print, end="")
    {after}
    print(json.dumps([type(one).__name__ for one in _instruments.instruments]))
"""


def kinds(before="", after="", **environment):
    """Give the kinds of instruments of a program in which a call has run."""
    code = textwrap.dedent(KINDS.format(before=before, after=after))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_without_any_library_there_is_none():
    """No hook installed, nothing loaded and nothing paid (E4)."""
    after = "assert not {'sentry_sdk', 'prometheus_client'} & set(sys.modules)"
    assert kinds(after=after) == []


@pytest.mark.parametrize(
    ("loads", "kind"),
    [
        ("import opentelemetry.sdk.trace", "OpenTelemetry"),
        ("import prometheus_client", "Prometheus"),
        ("import sentry_sdk", "Sentry"),
    ],
)
def test_what_the_application_uses_is_on(loads, kind):
    """One that the application has loaded watches calls by itself (E4)."""
    assert kinds(loads) == [kind]


def test_the_interface_of_opentelemetry_alone_is_no_sign():
    """Libraries load it, and without the SDK it leads nowhere (E4)."""
    assert kinds("import opentelemetry.trace") == []


def test_one_that_was_installed_by_hand_is_not_doubled():
    """Whoever called `install()` has that one (E4)."""
    before = "from postlude.instrumentation import prometheus; prometheus.install()"
    assert kinds(before) == ["Prometheus"]


def test_the_setting_decides():
    """What it names is on, and nothing else (E4)."""
    both = "import sentry_sdk, prometheus_client"
    assert kinds(both, POSTLUDE_INSTRUMENTS="") == []
    assert kinds(both, POSTLUDE_INSTRUMENTS="logging, sentry") == ["Logging", "Sentry"]


def test_a_library_that_is_missing_is_an_error_at_start(monkeypatch):
    """With the way out in its text (E4)."""
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    monkeypatch.delitem(sys.modules, "postlude.instrumentation.sentry", raising=False)
    configure(instruments=("sentry",))
    with pytest.raises(SettingsError, match="Install it, or leave 'sentry' out"):
        settings()


def test_one_that_cannot_be_made_hurts_nobody(monkeypatch, caplog):
    """It is left out, with a line in the log (E3)."""

    def fail(name):
        raise ValueError(name)

    monkeypatch.setattr(_discovery, "discovered", False)
    monkeypatch.setattr(_discovery, "_install", fail)
    _discovery.discover()
    assert _instruments.instruments == ()
    assert "could not be installed, and is left out" in caplog.text
