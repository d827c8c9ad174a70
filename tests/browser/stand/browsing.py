"""The system's Chromium, and what it must not have seen."""

import os
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

SHOTS = Path(__file__).parents[3] / "build" / "browser"
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_LISTEN = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def chromium():
    """Find the system's browser; without one, these tests fail."""
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, _NAMES)), ""
    )
    if not found:
        pytest.fail(
            "No Chromium was found, and the dashboard is tested in a real one. Usually "
            "it is not installed. Install it (Debian: `apt-get install chromium`), or "
            "say where it is: CHROMIUM=/path/to/chromium."
        )
    return found


class Watch:
    """Sees to it that a page loads nothing from elsewhere and breaks no rule."""

    def __init__(self, context, origin):
        self._origin = origin
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.add_init_script(_LISTEN)
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("console", self._heard)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _heard(self, message):
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def check(self, page, *, forgiven=()):
        """Fail if anything was loaded from elsewhere, or the browser complained."""
        strangers = [url for url in self.requests if not url.startswith(self._origin)]
        assert strangers == [], strangers
        left = [c for c in self.complaints if not any(f in c for f in forgiven)]
        assert left == [], left
        assert page.evaluate("window.__violations") == []


def clean_of_axe(page):
    """Fail for what axe-core calls serious or critical, and say what it is."""
    found = Axe().run(page).response["violations"]
    serious = [
        f"{v['id']} ({v['impact']}): {v['help']}: "
        + "; ".join(
            f"{node['html']} {node.get('failureSummary')}" for node in v["nodes"]
        )
        for v in found
        if v["impact"] in {"serious", "critical"}
    ]
    assert serious == [], "\n".join(serious)
