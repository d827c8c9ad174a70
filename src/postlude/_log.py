"""The one logger, and a way to use it that hurts nobody (E3)."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postlude._call import DeferredCall

logger = logging.getLogger("postlude")


def say(
    level: int,
    text: str,
    *args: object,
    call: DeferredCall | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Log, whatever handlers and filters of others do: a call never pays for them."""
    try:
        extra = None if call is None else {"postlude_call": call}
        logger.log(level, text, *args, exc_info=exc_info, extra=extra)
    except BaseException as error:  # noqa: BLE001 - E3
        try:
            sys.stderr.write(f"postlude: logging failed ({type(error).__name__})\n")
        except BaseException:  # noqa: BLE001, S110 - there is nobody left to tell
            pass
