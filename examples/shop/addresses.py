"""Where the shop finds its folder and the services it talks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Addresses:
    """What the runner tells the server process, through environment variables."""

    folder: Path
    """The temporary directory with the journal and, as a rule, the database."""
    database: str
    """The database's address for SQLAlchemy."""
    smtp_port: int
    """Port of the mail server on loopback."""
    services: str
    """Base URL of analytics, inventory and cache."""
    own_work: float
    """Seconds that the order's own work takes."""

    @property
    def journal(self) -> Path:
        """The file in which every step notes when it began and ended."""
        return self.folder / "journal.jsonl"

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `addresses` reads the same again."""
        return {
            "SHOP_FOLDER": str(self.folder),
            "SHOP_DATABASE": self.database,
            "SHOP_SMTP_PORT": str(self.smtp_port),
            "SHOP_SERVICES": self.services,
            "SHOP_OWN_WORK": str(self.own_work),
        }


@cache
def addresses() -> Addresses:
    """Return the addresses this process was started with.

    Raises:
        KeyError: when the process was not started by the runner.
    """
    return Addresses(
        folder=Path(os.environ["SHOP_FOLDER"]),
        database=os.environ["SHOP_DATABASE"],
        smtp_port=int(os.environ["SHOP_SMTP_PORT"]),
        services=os.environ["SHOP_SERVICES"],
        own_work=float(os.environ["SHOP_OWN_WORK"]),
    )
