"""How a unit of work ended."""

from __future__ import annotations

from typing import NamedTuple

FIRST_FAILING_STATUS = 400  # C1, as Laravel: redirects and 304 are successes


class Outcome(NamedTuple):
    """How a unit of work ended; what `.when(lambda outcome: ...)` decides on.

    `ok` is the rule of C1: status below 400 and no unhandled exception. `delivered` is
    False when the client was seen to be gone; True means "handed to the server", since
    no server tells more. `committed` is None where no transaction was open. `reason`
    says in words why `ok` or `delivered` is False.
    """

    ok: bool = True
    status: int | None = None
    exception: BaseException | None = None
    delivered: bool = True
    committed: bool | None = None
    reason: str | None = None

    @classmethod
    def of_response(
        cls,
        status: int | None,
        exception: BaseException | None,
        gone: str | None = None,
    ) -> Outcome:
        """Judge an HTTP request; *gone* says how the client was seen to leave."""
        ok = exception is None and status is not None and status < FIRST_FAILING_STATUS
        if exception is not None:
            reason: str | None = f"unhandled {type(exception).__qualname__}"
            if status is None:
                status = 500  # what every server answers for the app
        elif status is None:
            reason = gone or "no response was started"
        else:
            reason = gone if ok else f"status {status}"
        delivered = gone is None
        return cls(ok, status, exception, delivered, None, reason)

    @classmethod
    def of_block(cls, exception: BaseException | None) -> Outcome:
        """Judge a block, command, job or WebSocket by its exception alone.

        `SystemExit` without a code, or with 0, is how a command says that it succeeded.
        """
        if exception is None or (
            isinstance(exception, SystemExit) and exception.code in (None, 0)
        ):
            return cls()
        reason = f"unhandled {type(exception).__qualname__}"
        return cls(ok=False, exception=exception, reason=reason)
