"""The settings of one demo run, read from environment variables and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FRAMEWORKS = {
    "fastapi": "FastAPI on uvicorn",
    "flask": "Flask on gunicorn (gthread)",
    "django": "Django on gunicorn (gthread)",
}

HELP = """\
Posts orders to a small shop, with and without defer, and measures who waits for what.

usage: make demo                          (or: PYTHONPATH=examples python -m shop)
       FRAMEWORK=flask ORDERS=5 make demo
       KEEP=1 make demo

Settings are environment variables:

  FRAMEWORK     fastapi, flask or django                               [fastapi]
  ORDERS        orders to post each way, 1 to 1000                          [20]
  KEEP          1 leaves the shop running until Ctrl-C                       [0]
  PORT          port of the shop, 0 picks a free one                         [0]
  REPORT_DIR    where report.html and report.json go                [build/demo]
  WAIT_S        longest wait for the last side effect, in seconds           [60]

Latencies of the story, in milliseconds:

  OWN_MS        the order's own work                                        [80]
  MAIL_MS       SMTP server takes the confirmation mail                    [400]
  EVENT_MS      analytics collector takes the event                        [250]
  INVENTORY_MS  inventory service takes the order                          [350]
  CACHE_MS      cache drops the customer's page                            [120]

Exit status: 0 all went well, 1 something was lost or did not start, 2 bad setting,
130 stopped by Ctrl-C (with KEEP=1, once the shop stays open: 0).
"""


class BadSettingError(ValueError):
    """A setting the demo cannot work with; its text says what, why and the fix."""

    def __init__(self, happened: str, cause: str, fix: str) -> None:
        """Keep the three beats, and be their text."""
        super().__init__(f"error: {happened}\ncause: {cause}\nfix:   {fix}")


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long the order's own work and each side effect take, in milliseconds."""

    own: int = 80
    mail: int = 400
    event: int = 250
    inventory: int = 350
    cache: int = 120

    @property
    def side_effects(self) -> int:
        """The sum of the four side effects."""
        return self.mail + self.event + self.inventory + self.cache


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a run can be told; the defaults are those of the story."""

    framework: str = "fastapi"
    orders: int = 20
    keep: bool = False
    port: int = 0
    report_dir: Path = Path("build/demo")
    wait_s: int = 60
    latencies: Latencies = Latencies()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check every setting.

        Raises:
            BadSettingError: for the first value that cannot be used.
        """
        default = cls()
        return cls(
            framework=_framework(environ.get("FRAMEWORK") or default.framework),
            orders=number(environ, "ORDERS", default.orders, 1, 1000),
            keep=bool(number(environ, "KEEP", int(default.keep), 0, 1)),
            port=number(environ, "PORT", default.port, 0, 65535),
            report_dir=Path(environ.get("REPORT_DIR") or default.report_dir),
            wait_s=number(environ, "WAIT_S", default.wait_s, 1, 3600),
            latencies=Latencies(
                **{
                    name: number(environ, f"{name.upper()}_MS", usual, 0, 10_000)
                    for name, usual in asdict(default.latencies).items()
                }
            ),
        )

    @property
    def title(self) -> str:
        """The framework and its server, as people call them."""
        return FRAMEWORKS[self.framework]

    @property
    def command(self) -> str:
        """The command that repeats this run: only what differs from the defaults."""
        default = Settings()
        told = {
            "FRAMEWORK": (self.framework, default.framework),
            "ORDERS": (self.orders, default.orders),
        }
        for name, value in asdict(self.latencies).items():
            told[f"{name.upper()}_MS"] = (value, getattr(default.latencies, name))
        changed = [f"{key}={now}" for key, (now, then) in told.items() if now != then]
        return " ".join([*changed, "make demo"])


def _framework(name: str) -> str:
    """Return the framework's name in our spelling."""
    if name.lower() in FRAMEWORKS:
        return name.lower()
    raise BadSettingError(
        f"FRAMEWORK={name} is not one of {', '.join(FRAMEWORKS)}.",
        "the demo has its shop in these three frameworks only, or a typing slip.",
        "FRAMEWORK=flask make demo",
    )


def number(
    environ: Mapping[str, str], name: str, default: int, low: int, high: int
) -> int:
    """Return a whole number between two bounds."""
    text = environ.get(name) or str(default)
    # int() also takes "1_0" and "٣"; nobody means that in an environment variable.
    if text.isascii() and text.isdigit() and low <= int(text[:9]) <= high:
        return int(text)
    raise BadSettingError(
        f"{name}={text} is not a whole number from {low} to {high}.",
        "a sign, a unit, a decimal point, or a number out of bounds.",
        f"{name}={default or high} make demo",
    )
