"""A project's own module: functions and classes that records may name."""

import dataclasses
import enum
import os as os  # noqa: PLC0414 - reachable through this module, and not of it
import subprocess as subprocess  # noqa: PLC0414 - as above
from functools import lru_cache, wraps
from typing import ClassVar


def mail(*args, **kwargs):
    """Take anything."""


def order(customer, lines=(), *rest, note=None, **options):
    """Have parameters of every kind."""


def decorated(fn):
    """Wrap as decorators should."""

    @wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


def careless(fn):
    """Wrap as decorators should not."""

    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


@decorated
def good():
    """Be found again."""


@careless
def bad():
    """Be lost."""


@lru_cache
def cached():
    """Be an object of Python's."""


undecorated = good.__wrapped__
nameless = lambda: None  # noqa: E731 - it is what is tested


def inner():
    """Give a function that nobody can name."""

    def local():
        pass

    return local


class Account:
    """Has methods."""

    def close(self):
        """Need an object."""

    @classmethod
    def open(cls):
        """Need none."""

    @staticmethod
    def count():
        """Need none."""

    def __call__(self):
        """Be called."""

    class Inner:
        """Is a class in a class."""

        @staticmethod
        def run():
            """Need none."""


class Savings(Account):
    """Inherits."""


class Colour(enum.Enum):
    """Has names."""

    RED = 1
    ROUGE = 1  # noqa: PIE796 - an alias
    BLUE = "blue"


class Level(enum.IntEnum):
    """Is a number as well."""

    LOW = 1


class Rights(enum.Flag):
    """Can be combined."""

    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Line:
    """Is made of plain values."""

    article: str
    count: int = 1
    tags: frozenset[str] = frozenset()
    kinds: ClassVar[int] = 7


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """Holds others."""

    lines: tuple[Line, ...]
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Computed:
    """Has a field that nobody gives."""

    a: int
    b: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass
class Taking:
    """Takes what is no field."""

    a: int
    seed: dataclasses.InitVar[int] = 0


@dataclasses.dataclass(init=False)
class Own:
    """Has an __init__ of its own."""

    a: int

    def __init__(self, b):
        """Take something else."""
        self.a = b


@dataclasses.dataclass
class Login:
    """Has a secret."""

    user: str
    password: str


@dataclasses.dataclass
class Touchy:
    """Does not want to be made."""

    a: int

    def __post_init__(self):
        """Refuse."""
        if self.a < 0:
            raise ZeroDivisionError("touchy")
