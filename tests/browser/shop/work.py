"""What the shop defers. Files in SHOP_FOLDER say how the world is."""

import os
import time
from pathlib import Path

FOLDER = Path(os.environ["SHOP_FOLDER"])


class MailServerAwayError(ConnectionError):
    """The mail server does not answer."""


def send_receipt(number, address="ada@example.org", password="secret"):  # noqa: S107 - it must not be shown
    """Fail as long as there is a file `mail-down`."""
    if (FOLDER / "mail-down").exists():
        raise MailServerAwayError(f"no answer for order <b>{number}</b>")


def rebuild(number):
    """Run as long as there is a file `hold`, and none that lets this one go."""
    go = FOLDER / f"go-{number}"
    while (FOLDER / "hold").exists() and not go.exists():
        time.sleep(0.02)


async def index(number):
    """Do nothing, on the loop."""
