"""Addresses of brokers: `engine+scheme://...?option=value`."""

from __future__ import annotations

from urllib.parse import parse_qsl

from postlude.exceptions import SettingsError


class Address:
    """A broker's own address, and options of ours that were taken out of it."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self._options = options
        self.url = url
        """What the engine's own library understands."""

    @classmethod
    def read(cls, address: str) -> Address:
        """Understand `engine+scheme://host/path?option=value`."""
        url, _, query = address.partition("+")[2].partition("?")
        return cls(url, dict(parse_qsl(query)))

    def text(self, name: str, default: str) -> str:
        """Take an option out."""
        return self._options.pop(name, default)

    def number(self, name: str, default: float) -> float:
        """Take an option out that is a positive number.

        Raises:
            SettingsError: it is none.
        """
        value = self._options.pop(name, None)
        try:
            number = default if value is None else float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise SettingsError(
                f"queue has {name}={value!r} in its address, which is no positive "
                f"number. Usually a unit was appended. Use seconds: {name}={default:g}."
            )
        return number

    def refuse_the_rest(self) -> None:
        """Refuse options that nobody took.

        Raises:
            SettingsError: there are some.
        """
        if self._options:
            names = ", ".join(sorted(self._options))
            raise SettingsError(
                f"queue has the options {names} in its address, which this engine does "
                "not know. Usually they are misspelt, or of another engine: see "
                "docs/queues. Take them out, or configure the engine's own app."
            )
