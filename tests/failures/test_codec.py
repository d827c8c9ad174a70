"""E2, F3: arguments as text and back, and which functions may be named."""

import dataclasses
import datetime as dt
import enum
import json
import math
import sys
import threading
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import shop_calls
from hypothesis import given
from hypothesis import strategies as st

import postlude
from postlude import DeferScope, _codec, _importable, _quick_codec, defer, failure_store
from postlude.exceptions import ArgumentError

MOST = 64 * 1024


def there_and_back(*args, **kwargs):
    """Carry arguments."""
    return _codec.decode(_codec.encode(shop_calls.mail, args, kwargs, MOST))


def same(one, other):  # noqa: PLR0911 - one type each
    """Tell whether two values are equal in value and type, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, (dt.datetime, dt.time)):
        fixed = type(one.tzinfo) is dt.timezone
        return repr(one) == repr(other.replace(fold=one.fold) if fixed else other)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, n), getattr(other, n)) for n in names)
    return one == other


zones = st.one_of(
    st.none(),
    st.sampled_from([dt.UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")]),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
)
letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    letters,
    st.binary(max_size=20),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(),
    st.times(timezones=st.just(dt.UTC)),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.sampled_from(list(shop_calls.Colour)),
    st.sampled_from(list(shop_calls.Level)),
    st.sampled_from([shop_calls.Rights(n) for n in range(4)]),
    st.builds(shop_calls.Line, letters, st.integers()),
)
keys = st.one_of(letters, st.integers(), st.booleans(), st.none(), st.dates())
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(keys, max_size=4),
        st.sets(keys, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.tuples(keys, keys), inner, max_size=2),
        st.builds(
            shop_calls.Basket,
            lines=st.tuples(st.builds(shop_calls.Line, letters, inner)),
        ),
    ),
    max_leaves=12,
)


@given(st.lists(values, max_size=3), st.dictionaries(letters, values, max_size=3))
def test_what_comes_back_is_what_went_in(args, kwargs):
    """Every value that is taken comes back equal, and of the same type (E2)."""
    args_back, kwargs_back = there_and_back(*args, **kwargs)
    assert same(args_back, args)
    assert same(kwargs_back, kwargs)


@given(st.lists(values, max_size=3), st.dictionaries(letters, values, max_size=3))
def test_what_lasts_can_be_carried_later(args, kwargs):
    """What `lasts` says yes to, is carried, and nothing in it can change (F3)."""
    if _quick_codec.lasts(tuple(args), kwargs):
        assert there_and_back(*args, **kwargs) == (args, kwargs) or any(
            map(math.isnan, filter(is_float, (*args, *kwargs.values())))
        )
        for value in (*args, *kwargs.values()):
            hash(value)


def is_float(value):
    """Tell whether it is a float."""
    return isinstance(value, float)


@given(st.lists(values, max_size=3))
def test_json_is_written_alike_on_both_roads(args):
    """What the quick road of plain JSON writes, the other one does (E2)."""
    encoder = _codec._Encoder(MOST, None)
    slow = [encoder.argument("mail", "to", value) for value in args]
    assert json.loads(_codec.encode(shop_calls.mail, tuple(args), {}, MOST))[0] == slow


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 1_001, id="long"),
        pytest.param("\ud800", id="half a letter"),
        pytest.param(10**3_901, id="many digits"),
        pytest.param(
            dt.datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), id="zone"
        ),
        pytest.param([1], id="list"),
        pytest.param(type("Text", (str,), {})("x"), id="subclass"),
        pytest.param(shop_calls.Colour.RED, id="enum"),
    ],
)
def test_what_may_change_or_fail_does_not_last(value):
    """Such arguments are looked at where they are given (F3)."""
    assert _quick_codec.lasts(
        (1, "a", uuid.uuid4(), dt.datetime.now(dt.UTC)), {"b": 2.5}
    )
    assert not _quick_codec.lasts((value,), {})
    assert not _quick_codec.lasts((), {"a": value})
    assert not _quick_codec.lasts((1,) * 17, {})


@given(st.lists(values, max_size=5), st.integers(0, 3_000))
def test_no_text_is_longer_than_it_may_be(args, most):
    """The bound holds for the text as it is written (E2)."""
    try:
        text = _codec.encode(shop_calls.mail, tuple(args), {}, most)
    except ArgumentError as exc:
        assert "takes more than" in str(exc)  # noqa: PT017 - both ways are right
    else:
        assert len(text) <= most + len("[[],{}]")
        assert text.isascii()


@pytest.mark.parametrize(
    "value",
    [
        {"$": 1},
        {"$": "date", "v": "2026-01-02"},
        [{"$": {"$": []}}],
        {1: "a", "1": "b", 2.5: "c"},
        {(1, frozenset({2})): {3}},
        "\0\x1b<script>\u2028\U0001f600",
        -0.0,
        10**3_900,
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        dt.datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001 - it is what is tested
        dt.time(2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.timezone(dt.timedelta(hours=1)).utcoffset(None),
        Decimal("sNaN"),
        Decimal("1E+999999"),
        shop_calls.Colour.ROUGE,
        shop_calls.Rights.READ | shop_calls.Rights.WRITE,
        shop_calls.Rights(0),
    ],
)
def test_unusual_values_come_back(value):
    """What looks like the codec's own marks is a value like others (E2)."""
    (back,), _ = there_and_back(value)
    assert same(back, value)


class Own:
    """Is no type that anybody knows."""


class Text(str):
    """Is a string, and more."""

    __slots__ = ()


LOOP = []
LOOP.append(LOOP)
DEEP = []
for _ in range(60):
    DEEP = [DEEP]
Point = namedtuple("Point", "x y")  # noqa: PYI024 - the old form is a type as well


class Local(enum.Enum):
    """Is of no module that could be found."""

    ONE = 1


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Own(), f"of type {__name__}:Own"),
        (Text("x"), f"of type {__name__}:Text"),
        (OrderedDict(), "of type collections:OrderedDict"),
        (Point(1, 2), f"of type {__name__}:Point"),
        (Path("x"), f"of type {Path.__module__}:PosixPath"),
        (threading.Lock(), "of type _thread:lock"),
        (print, "of type builtins:builtin_function_or_method"),
        (object, "of type builtins:type"),
        (1j, "of type builtins:complex"),
        (b"x" * MOST, "more than 65,536 characters"),
        ("x" * MOST, "more than 65,536 characters"),
        ("\U0001f600" * 6_000, "more than 65,536 characters"),
        ([None] * 20_000, "more than 65,536 characters"),
        (10**5_000, "more than 3,900 digits"),
        (LOOP, "nested more than 50 deep"),
        (DEEP, "nested more than 50 deep"),
        ("\ud800", "half of a surrogate pair"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        (shop_calls.Computed(1), "whose __init__ does not take just its fields"),
        (shop_calls.Taking(1), "whose __init__ does not take just its fields"),
        (shop_calls.Own(1), "whose __init__ does not take just its fields"),
        (dt.datetime(2026, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})()), "time zone Z"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 70 else "",
)
@pytest.mark.parametrize("place", ["plain", "nested"])
def test_what_cannot_be_carried_is_refused_by_name(value, why, place):
    """A refusal names function, argument and type, the cause and the fix (E2, F3)."""
    carried = value if place == "plain" else {"a": [value]}
    with pytest.raises(ArgumentError) as caught:
        _codec.encode(shop_calls.order, ("ann", carried), {}, MOST)
    text = str(caught.value)
    assert text.startswith("The argument 'lines' of shop_calls:order ")
    assert why in text
    assert "Usually" in text
    assert "Pass its id" in text
    assert len(text) < 400


def test_an_argument_is_named_by_its_parameter():
    """By position, beyond the parameters, by keyword: each has a name (F3)."""
    for args, kwargs, name in [
        ((Own(),), {}, "'customer'"),
        ((1, 2, Own()), {}, "'*2'"),
        ((), {"note": Own()}, "'note'"),
        ((), {"colour": Own()}, "'colour'"),
    ]:
        with pytest.raises(ArgumentError, match=f"argument {name.replace('*', '.')} "):
            _codec.encode(shop_calls.order, args, kwargs, MOST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[1,2]",
        "[[],[]]",
        '["ab",{}]',
        "{}",
        "[[],{}",
        '[[{"$":"nobody","v":1}],{}]',
        '[[{"$":"date"}],{}]',
        '[[{"$":"date","v":7}],{}]',
        '[[{"$":"decimal","v":"x"}],{}]',
        '[[{"$":"timedelta","v":[9e99,0,0]}],{}]',
        '[[{"$":"dict","v":[[[],1]]}],{}]',
        '[[{"$":["x"],"v":1}],{}]',
        '[[{"$":"bytes","v":"*"}],{}]',
        '[[{"$":"datetime","v":["2026-01-01",0,"../../etc/passwd"]}],{}]',
        '[[{"$":"enum","type":"shop_calls:Colour","v":"GREEN"}],{}]',
        '[[{"$":"enum","type":"shop_calls:Line","v":"a"}],{}]',
        '[[{"$":"dataclass","type":"shop_calls:Account","v":{}}],{}]',
        '[[{"$":"dataclass","type":"shop_calls:Line","v":{"x":1}}],{}]',
        '[[{"$":"dataclass","type":"shop_calls:Touchy","v":{"a":-1}}],{}]',
        "[" * 100_000,
        f"[[{'9' * 5_000}],{{}}]",
    ],
    ids=lambda text: text[:50],
)
def test_a_damaged_text_is_one_clear_error(text):
    """Whatever somebody made of a text, reading it raises `ArgumentError` (E2)."""
    with pytest.raises(ArgumentError, match=r"Usually|no dataclass|no Enum"):
        _codec.decode(text)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "sqlalchemy:Table",
        "shop_calls:os.system",
        "shop_calls:subprocess.Popen",
        "shop_calls:ClassVar",
        "shop_calls:Account.close.__globals__",
        "shop_calls:dataclasses.dataclass",
    ],
)
@pytest.mark.parametrize("tag", ["enum", "dataclass"])
def test_a_text_names_no_foreign_class(path, tag):
    """Nothing but classes of the project's own is ever looked up (E2)."""
    text = json.dumps([[{"$": tag, "type": path, "v": {}}], {}])
    with pytest.raises(ArgumentError, match="Usually"):
        _codec.decode(text)


def test_a_codec_of_ones_own(monkeypatch):
    """`register` teaches a type; a tag stands for one type (F3)."""
    monkeypatch.setattr(_codec, "_codecs", dict(_codec._codecs))
    monkeypatch.setattr(_codec, "_by_tag", dict(_codec._by_tag))
    codec = _codec.Codec(Path, "path", str, Path)
    posix = _codec.Codec(type(Path()), "posix", str, Path)
    _codec.register(posix)
    assert _quick_codec.lasts((uuid.UUID(int=1),), {})
    monkeypatch.setitem(_quick_codec.lasting, uuid.UUID, bool)  # and back in the end
    _codec.register(_codec.Codec(uuid.UUID, "uuid", str, uuid.UUID))
    assert not _quick_codec.lasts((uuid.UUID(int=1),), {})
    assert there_and_back(Path("a/b")) == ([Path("a/b")], {})
    _codec.register(posix)
    with pytest.raises(ValueError, match=r"'posix' stands for another type.*full name"):
        _codec.register(codec._replace(tag="posix"))
    with pytest.raises(ValueError, match="'tuple' stands for another type"):
        _codec.register(codec._replace(tag="tuple"))


def test_secrets_are_not_carried():
    """By name of an argument, a key or a field, at any depth (E1)."""

    def secret(value, *, is_name):
        return value in ("password", "pin") if is_name else value == ["pin", 1]

    for args, kwargs in [
        ((), {"password": "x"}),
        (({"a": [{"pin": "x"}]},), {}),
        (({("pin",): 1, "pin": 2},), {}),
        ((shop_calls.Login("ann", "x"),), {}),
        (({"a": [["pin", 1]]},), {}),
    ]:
        with pytest.raises(ArgumentError, match=r"named like a secret. A record is no"):
            _codec.encode(shop_calls.mail, args, kwargs, MOST, secret)


def test_a_uuid_is_one():
    """Types that look alike stay apart (E2)."""
    one = uuid.uuid4()
    assert there_and_back(one, str(one))[0] == [one, str(one)]
    assert math.isnan(there_and_back(math.nan)[0][0])


# -- functions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (shop_calls.mail, "shop_calls:mail"),
        (shop_calls.good, "shop_calls:good"),
        (shop_calls.Account, "shop_calls:Account"),
        (shop_calls.Account.open, "shop_calls:Account.open"),
        (shop_calls.Account.count, "shop_calls:Account.count"),
        (shop_calls.Account.Inner.run, "shop_calls:Account.Inner.run"),
    ],
)
def test_a_function_of_the_project_is_found_again(thing, path):
    """What a module has under its own name is found by it (E2)."""
    assert _importable.refusal(thing) is None
    assert _importable.path(thing) == path
    assert _importable.resolve(path) == thing


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (shop_calls.nameless, "a lambda"),
        (shop_calls.inner(), "defined inside inner"),
        (shop_calls.bad, "defined inside careless"),
        (shop_calls.undecorated, "a decorator replaced it"),
        (shop_calls.cached, "not a function of a module"),
        (shop_calls.Account().close, "a method of an object"),
        (shop_calls.Account(), "not a function of a module"),
        (shop_calls.Savings.open, "another object by now"),
        (partial(shop_calls.mail), "not a function of a module"),
        (print, "not a function of a module"),
        (None, "it is None"),
        (Path.read_text, f"the module {Path.__module__} belongs to Python"),
        (pytest.fixture, "an installed package"),
    ],
)
def test_what_cannot_be_found_again_says_why(thing, why):
    """The reason is known when the call is recorded (E2)."""
    assert why in _importable.refusal(thing)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "posix:system",
        "builtins:exec",
        "importlib:import_module",
        "pytest:main",
        "sqlalchemy.orm:Session",
        "pip:main",
        "_pytest.pathlib:rm_rf",
        "shop_calls:os.system",
        "shop_calls:subprocess.run",
        "shop_calls:wraps",
        "shop_calls:mail.__globals__.get",
        "shop_calls:mail.__class__",
        "shop_calls:Savings.open",
        "shop_calls:undecorated",
        "shop_calls:nobody",
        "shop_calls:",
        "shop_calls",
        "shop_broken:mail",
        "no_such_module:mail",
        "__main__:mail",
        ":mail",
        "",
        ".:mail",
        "..shop_calls:mail",
        "shop calls:mail",
        "shop_calls.:mail",
    ],
)
def test_a_path_that_may_not_be_named(path):
    """`os:system`, packages, what is reached through a module: none is given (E2)."""
    with pytest.raises(ArgumentError, match=r"Usually .*\."):
        _importable.resolve(path)


def test_the_setting_names_the_modules_that_may_be_named():
    """With `modules`, these and what is in them, and nothing else (E2)."""
    postlude.configure(modules=("stage", "pytest"))
    assert _importable.refusal(pytest.fixture) is not None  # it is of _pytest
    assert "not among the setting modules" in _importable.refusal(shop_calls.mail)
    with pytest.raises(ArgumentError, match=r"POSTLUDE_MODULES=shop_calls"):
        _importable.resolve("shop_calls:mail")
    with pytest.raises(ArgumentError, match="not among the setting modules"):
        _importable.resolve("stages:mail")
    assert (
        _importable.resolve("stage.waiting:Gate") is sys.modules["stage.waiting"].Gate
    )
    postlude.configure(modules=("_pytest",))
    assert _importable.refusal(pytest.fixture) is None
    postlude.configure(modules=("stage",))
    assert "not among the setting modules" in _importable.refusal(pytest.fixture)


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_packages_of_other_installations_are_packages(folder, tmp_path, monkeypatch):
    """Those of the user and of the system's Python are not the project's own (E2)."""
    place = tmp_path / "lib" / folder
    place.mkdir(parents=True)
    (place / f"elsewhere_{folder[:4]}.py").write_text("def run(): pass")
    monkeypatch.syspath_prepend(place)
    with pytest.raises(ArgumentError, match="an installed package"):
        _importable.resolve(f"elsewhere_{folder[:4]}:run")


# -- in a record ---------------------------------------------------------------


def fail(*args, **kwargs):
    """Raise what these tests look for."""
    raise ValueError


def record_of(fn, *args, **kwargs):
    """Let a call fail in a block, and give its record."""
    with DeferScope():
        defer(fn, *args, **kwargs)
    (record,) = failure_store().list()
    return record


def test_a_record_that_can_be_run_again_has_its_arguments(monkeypatch):
    """Function and arguments are in the record, through partials (E2)."""
    monkeypatch.setattr(shop_calls, "fail", fail, raising=False)
    monkeypatch.setattr(fail, "__module__", "shop_calls")
    record = record_of(partial(fail, 1, a="x"), dt.date(2026, 1, 2), b=None)
    assert record.refusal is None
    assert record.function == "shop_calls:fail"
    assert _codec.decode(record.payload) == (
        [1, dt.date(2026, 1, 2)],
        {"a": "x", "b": None},
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"own": Own()}, "The argument 'own' of shop_calls:fail is of type"),
        ({"token": "x"}, "'token', which is named like a secret"),
    ],
)
def test_a_record_that_cannot_says_so_at_once(monkeypatch, arguments, why):
    """The reason stands in the record, and no half of the arguments (E2)."""
    monkeypatch.setattr(shop_calls, "fail", fail, raising=False)
    monkeypatch.setattr(fail, "__module__", "shop_calls")
    record = record_of(fail, **arguments)
    assert record.payload is None
    assert why in record.refusal


class Hostile:
    """Raises whatever is done to it."""

    @property
    def __class__(self):
        """Raise."""
        raise SystemExit

    def __repr__(self):
        """Raise."""
        raise SystemExit

    __hash__ = __eq__ = __len__ = __iter__ = __repr__


def test_a_hostile_argument_costs_no_record(monkeypatch):
    """Whatever an argument does when it is looked at, the call has its record (E3)."""
    monkeypatch.setattr(shop_calls, "fail", fail, raising=False)
    monkeypatch.setattr(fail, "__module__", "shop_calls")
    record = record_of(fail, Hostile())
    assert record.payload is None
    assert record.refusal is not None
    assert "Hostile" in record.arguments["*0"]
