"""Arguments as text and back, so that a call can be carried to another process.

JSON, with a tag for what JSON has no word for: `{"$": "date", "v": "2026-01-02"}`. What
comes back equals what went in, or it is refused when it goes in. Never pickle: a text
can name a class of the allowed modules (see `_importable`), and nothing else.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import inspect
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, cast
from zoneinfo import ZoneInfo

from postlude import _importable, _names
from postlude._quick_codec import DEPTH, TAG, is_json, is_text, lasting
from postlude.exceptions import ArgumentError

__all__ = ["Codec", "decode", "encode", "register"]

_PAIRS: frozenset[type[Any]] = frozenset((list, tuple))
_TAGGED: frozenset[type[Any]] = frozenset((tuple, set, frozenset))
_BITS = 13_000
"""Of an integer: Python turns no more than 4,300 digits into text and back."""


class Codec(NamedTuple):
    """How values of one type are carried."""

    type: type[Any]
    tag: str
    """Stands for the type in the text; never change it while texts are waiting."""
    encode: Callable[[Any], object]
    """To what JSON knows, or what another codec does."""
    decode: Callable[[Any], object]


def _seconds(delta: dt.timedelta) -> list[int]:
    return [delta.days, delta.seconds, delta.microseconds]


def _moment(value: dt.datetime | dt.time) -> object:
    """Give ISO 8601, which knows neither time zones by name nor `fold`."""
    zone = value.tzinfo
    if type(zone) is dt.timezone or (zone is None and not value.fold):
        return value.isoformat()  # `fold` means nothing where no hour happens twice
    if zone is None or (type(zone) is ZoneInfo and zone.key):
        key = None if zone is None else zone.key
        return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, key]
    raise _CannotError(
        f"has the time zone {type(zone).__name__}, which cannot be stored"
    )


def _timedelta(parts: list[int]) -> dt.timedelta:
    days, seconds, microseconds = parts
    return dt.timedelta(days, seconds, microseconds)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


def _datetime(content: Any) -> dt.datetime:
    if isinstance(content, str):
        return dt.datetime.fromisoformat(content)
    text, fold, key = content
    zone = None if key is None else ZoneInfo(key)
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _time(content: Any) -> dt.time:
    if isinstance(content, str):
        return dt.time.fromisoformat(content)
    text, fold, key = content
    zone = None if key is None else ZoneInfo(key)
    return dt.time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


_codecs: dict[type[Any], Codec] = {}
_by_tag: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Carry values of exactly `codec.type` by *codec* from now on.

    Raises:
        ValueError: another type has that tag.
    """
    known = _by_tag.get(codec.tag)
    if codec.tag in _RESERVED or (known is not None and known.type is not codec.type):
        raise ValueError(
            f"The tag {codec.tag!r} stands for another type already. Usually two "
            "codecs were given the same short name. Use the type's full name."
        )
    lasting.pop(codec.type, None)  # who knows what it does
    _codecs[codec.type] = codec
    _by_tag[codec.tag] = codec


_RESERVED = {"dict", "tuple", "set", "frozenset", "float", "enum", "dataclass"}

for _codec in (  # not by register(): their values last
    Codec(dt.datetime, "datetime", _moment, _datetime),
    Codec(dt.date, "date", dt.date.isoformat, dt.date.fromisoformat),
    Codec(dt.time, "time", _moment, _time),
    Codec(dt.timedelta, "timedelta", _seconds, _timedelta),
    Codec(uuid.UUID, "uuid", str, uuid.UUID),
    Codec(Decimal, "decimal", str, Decimal),
    Codec(bytes, "bytes", _base64, _bytes),
):
    _codecs[_codec.type] = _by_tag[_codec.tag] = _codec


class IsSecret(Protocol):
    """Tells what must not be written down."""

    def __call__(self, value: object, *, is_name: bool) -> bool: ...


def encode(
    fn: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    most: int,
    is_secret: IsSecret | None = None,
) -> str:
    """Give the arguments of a call of *fn* as text of at most *most* characters.

    What *is_secret* is true for is not carried. It is asked of the names of arguments,
    keys and fields (`is_name`), and of texts and pairs.

    Raises:
        ArgumentError: one of them cannot be carried; its name and type are in the text.
    """
    if is_secret is None and is_json((*args, *kwargs.values()), most):
        text = _write([args, kwargs])
        if len(text) <= most:
            return text
    encoder = _Encoder(most, is_secret)
    names = _names.parameters(fn)
    shown = _names.qualified(fn)
    positional: list[object] = []
    named: dict[str, object] = {}
    for i, value in enumerate(args):
        name = names[i] if i < len(names) else f"*{i}"
        positional.append(encoder.argument(shown, name, value))
    for name, value in kwargs.items():
        named[name] = encoder.argument(shown, name, value)
    return _write([positional, named])


_write = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def decode(text: str) -> tuple[list[object], dict[str, object]]:
    """Give the arguments back.

    Raises:
        ArgumentError: the text is damaged, or names what may not be named.
    """
    try:
        args: Any
        kwargs: Any
        args, kwargs = json.loads(text)
        if not (isinstance(args, list) and isinstance(kwargs, dict)):
            raise TypeError("no list and mapping")
        named = cast("dict[str, Any]", kwargs)
        return _back(args), {name: _back(value) for name, value in named.items()}
    except ArgumentError:
        raise
    except Exception as exc:  # a dataclass may raise anything when it is made
        raise ArgumentError(
            f"The stored arguments cannot be read ({type(exc).__name__}: {exc}). "
            "Usually the record was changed by hand or written by a newer version. Run "
            "the call by hand, or forget the record."
        ) from exc


class _Encoder:
    """Turns values into what JSON knows, as long as there is room."""

    def __init__(self, most: int, is_secret: IsSecret | None) -> None:
        self._most = self._room = most
        self._is_secret = is_secret

    def argument(self, fn: str, name: str, value: object) -> object:
        try:
            self._check_name(name)
            return self._value(value, 0)
        except _CannotError as exc:
            raise ArgumentError(
                f"The argument {name!r} of {fn} {exc}. {exc.fix}"
            ) from None

    def _value(self, value: Any, depth: int) -> object:
        kind = _type(value)
        if value is None or kind is bool:
            self._take(6)
            return value
        if kind is int:
            if value.bit_length() > _BITS:
                raise _CannotError("is an integer of more than 3,900 digits")
            self._take(value.bit_length() // 3 + 2)
            return value
        if kind is str:
            self._take(len(value) + 3)
            if value.isascii() and value.isprintable():
                self._take(value.count('"') + value.count("\\"))
            else:
                _check_text(value)
                self._take(len(json.dumps(value)) - len(value) - 2)
            self._check_secret(value)
            return value
        if kind is float:
            self._take(32)
            if not math.isfinite(value):
                return {TAG: "float", "v": str(value)}
            return value
        if depth >= DEPTH:
            raise _CannotError(f"is nested more than {DEPTH} deep")
        return self._compound(value, kind, depth + 1)

    def _compound(self, value: Any, kind: type[Any], depth: int) -> object:
        self._take(32)
        if kind in _PAIRS and len(value) == 2:  # noqa: PLR2004 - a pair
            self._check_secret(value)
        if kind is list:
            return [self._value(item, depth) for item in value]
        if kind is dict:
            return self._dict(value, depth)
        if kind in _TAGGED:
            items = [self._value(item, depth) for item in value]
            return {TAG: kind.__name__, "v": items}
        if (codec := _codecs.get(kind)) is not None:
            if kind is bytes:
                self._take(len(value) * 4 // 3)
            return {TAG: codec.tag, "v": self._value(codec.encode(value), depth)}
        if isinstance(value, enum.Enum):
            return self._enum(value, kind)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(value, kind, depth)
        raise _CannotError(
            f"is of type {_names.qualified(kind)}, which cannot be stored"
        )

    def _enum(self, value: enum.Enum, kind: type[enum.Enum]) -> object:
        content: object = value.name
        if value.name not in kind.__members__:  # several flags at once
            content = [self._value(value.value, 0)]
        return {TAG: "enum", "type": self._class(kind), "v": content}

    def _check_name(self, name: object) -> None:
        if self._is_secret is not None and self._is_secret(name, is_name=True):
            raise _SecretError(
                f"is or holds {_shown(name)}, which is named like a secret"
            )

    def _check_secret(self, value: object) -> None:
        if self._is_secret is not None and self._is_secret(value, is_name=False):
            raise _SecretError("has something in it that is named like a secret")

    def _dict(self, value: dict[Any, Any], depth: int) -> object:
        for key in value:
            self._take(4)
            self._check_name(key)
        if TAG not in value and all(type(key) is str for key in value):
            return {
                cast("str", self._value(key, depth)): self._value(item, depth)
                for key, item in value.items()
            }
        pairs = [
            [self._value(key, depth), self._value(item, depth)]
            for key, item in value.items()
        ]
        return {TAG: "dict", "v": pairs}

    def _dataclass(self, value: Any, kind: type[Any], depth: int) -> object:
        fields = dataclasses.fields(kind)
        if not _is_made_of_its_fields(kind):
            raise _CannotError(
                f"is a {kind.__qualname__}, whose __init__ does not take just its "
                "fields"
            )
        for field in fields:
            self._check_name(field.name)
        content = {f.name: self._value(getattr(value, f.name), depth) for f in fields}
        return {TAG: "dataclass", "type": self._class(kind), "v": content}

    def _class(self, kind: type[Any]) -> str:
        if (reason := _importable.refusal(kind)) is not None:
            raise _CannotError(f"is of a class that cannot be found again: {reason}")
        path = _importable.path(kind)
        self._take(len(path) + 16)
        return path

    def _take(self, room: int) -> None:
        self._room -= room
        if self._room < 0:
            raise _CannotError(f"takes more than {self._most:,} characters")


class _CannotError(Exception):
    """A value cannot be carried; the text says why."""

    fix = (
        "Usually an object was passed where its key would do. Pass its id, or plain "
        "values."
    )


class _SecretError(_CannotError):
    """A value must not be written down."""

    fix = "A record is no place for one. Look it up inside the call instead."


def _type(value: object) -> type[Any]:
    return type(value)


def _is_made_of_its_fields(kind: type[Any]) -> bool:
    names = {field.name for field in dataclasses.fields(kind)}
    return set(inspect.signature(kind).parameters) == names


def _shown(name: object) -> str:
    return repr(name)[:100]


def _check_text(value: str) -> None:
    if not is_text(value):
        raise _CannotError("has half of a surrogate pair in its text")


def _back(value: Any) -> Any:  # noqa: PLR0911 - one type each
    if isinstance(value, list):
        return [_back(item) for item in cast("list[Any]", value)]  # type: ignore[redundant-cast]  # pyright does not know it
    if not isinstance(value, dict):
        return value
    found = cast("dict[str, Any]", value)
    tag = found.get(TAG)
    if tag is None:
        return {key: _back(item) for key, item in found.items()}
    content = found["v"]
    match tag:
        case "dict":
            return {_back(key): _back(item) for key, item in content}
        case "tuple":
            return tuple(_back(item) for item in content)
        case "set":
            return {_back(item) for item in content}
        case "frozenset":
            return frozenset(_back(item) for item in content)
        case "float":
            return float(content)
        case "enum" | "dataclass":
            return _instance(tag, found["type"], content)
        case _:
            return _by_tag[tag].decode(_back(content))


def _instance(tag: str, path: str, content: Any) -> object:
    kind = _importable.resolve(path)
    if tag == "enum":
        if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
            raise ValueError(f"{path} is no Enum")
        return kind(content[0]) if isinstance(content, list) else kind[content]
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{path} is no dataclass")
    return kind(**{key: _back(item) for key, item in content.items()})
