"""The end of an order's transaction, in the shops that use SQLAlchemy."""

from __future__ import annotations

import logging

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

logger = logging.getLogger("shop")


def commit(session: Session) -> None:
    """Commit, or roll back what the database refuses.

    It is too late for another answer than the 200: all that is left is the log.
    """
    try:
        session.commit()
    except IntegrityError as refused:
        session.rollback()
        logger.warning("an order was not stored: %s", refused.orig)
