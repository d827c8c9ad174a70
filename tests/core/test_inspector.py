"""D4: a call that holds what ends with its request warns, in development.

What is true without any library; `tests/integrations` has a file for each.
"""

import sys
import threading
import warnings
from contextvars import Context
from functools import partial, wraps

import pytest
from stage import UNITS

from postlude import (
    DeferScope,
    PostludeWarning,
    RequestBoundWarning,
    _captures,
    _inspector,
    _request_bound,
    _settings,
    configure,
    defer,
    defer_all,
    failure_store,
)
from postlude import _defer as defer_module
from postlude.testing import capture, inline

REQUESTS = ["asgi", "wsgi"]


class Handle:
    """Stands for what ends with its request."""

    def use(self, *args):
        """Do something with it."""


class Hostile:
    """Breaks whoever asks it anything."""

    def _refuse(self, *args):
        raise AssertionError("the inspector asked an object something")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = _refuse
    __getattr__ = __getattribute__ = __class_getitem__ = __contains__ = _refuse
    __class__ = property(_refuse)

    def __call__(self):
        """Be callable, so that it can be deferred itself."""


@pytest.fixture(autouse=True)
def _handles(monkeypatch):
    """Let `Handle` be one more line of the table, and forget who was warned."""
    finding = _request_bound.Finding("a handle", "It ends.", "Pass {name}.id.")
    monkeypatch.setitem(_request_bound._TABLE, f"{__name__}:Handle", finding)
    monkeypatch.setattr(_inspector, "_warned", set())
    _request_bound._types.cache_clear()
    yield
    _request_bound._types.cache_clear()


def request(body, kind="wsgi"):
    """Run *body* in a request."""
    Context().run(UNITS[kind], body)


def warned(body, kind="wsgi"):
    """Give the texts of what *body*, run in a request, is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        request(body, kind)
    assert {warning.category for warning in caught} <= {RequestBoundWarning}
    return [str(warning.message) for warning in caught]


def places(fn, *args, **kwargs):
    """Give where the handle is, in the words of the warnings."""
    _inspector._warned.clear()  # the call site is always this one
    texts = warned(lambda: defer(fn, *args, **kwargs))
    return [text.partition("(")[2].partition(")")[0] for text in texts]


def use(handle=None, *more, **named):
    """Take a handle; no test here needs more of it."""


# -- the warning ---------------------------------------------------------------


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_warning_stands_at_the_call_site_in_three_beats(kind):
    """It names the line of `defer`, what is held and where, why, and the fix (D4)."""
    handle = Handle()
    with pytest.warns(RequestBoundWarning) as caught:
        request(lambda: defer(use, handle), kind)
    (warning,) = caught
    line = sys._getframe().f_lineno - 2
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert str(warning.message) == (
        f"The deferred call {__name__}:use holds a handle (its argument `handle`). "
        "It ends. Pass handle.id."
    )
    assert issubclass(RequestBoundWarning, PostludeWarning)


def test_each_call_site_warns_once():
    """A place that defers often warns once, another place once more (D4)."""

    def body():
        for _ in range(3):
            defer(use, Handle())
        defer(use, Handle())

    assert len(warned(body)) == 2
    assert warned(body) == []


def test_each_thing_that_is_held_has_its_own_warning():
    """Two handles in one call are two warnings, twice the same handle is one (D4)."""
    one, other = Handle(), Handle()
    assert places(use, one, other, again=one) == ["its argument `handle`", "argument 2"]


def test_a_group_is_looked_at_too():
    """`defer_all` warns at its own line (D1, D4)."""
    handle = Handle()
    with pytest.warns(RequestBoundWarning) as caught:
        request(lambda: defer_all(list, partial(use, handle)))
    assert [warning.lineno for warning in caught] == [sys._getframe().f_lineno - 1]


def test_a_decorated_function_is_looked_at_too():
    """`@defer` above a local function sees what its body uses (A3, D4)."""

    def body():
        handle = Handle()

        @defer
        def later():
            handle.use()

    assert "(`handle`, which its body uses)" in warned(body)[0]


def test_made_an_error_it_registers_nothing_and_stays_one():
    """With warnings as errors each such `defer` raises, and no call runs (D4)."""
    seen = []

    def body():
        for _ in range(2):
            with pytest.raises(RequestBoundWarning, match=r"Pass handle\.id\."):
                defer(seen.append, Handle())

    request(body)
    assert seen == []


def test_a_filter_can_name_the_module():
    """The filters of Python find the module of the call site (D4)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        request(lambda: defer(use, Handle()))
    assert caught == []


def test_the_call_runs_all_the_same():
    """A warning changes nothing about the call (D4)."""
    seen, handle = [], Handle()
    with pytest.warns(RequestBoundWarning):
        request(lambda: defer(seen.append, handle))
    assert seen == [handle]


# -- where it looks ------------------------------------------------------------


def test_arguments():
    """Positional and named arguments, by the names of the parameters (D4)."""
    assert places(use, Handle()) == ["its argument `handle`"]
    assert places(use, 1, 2, Handle()) == ["argument 3"]
    assert places(use, key=Handle()) == ["its argument `key`"]
    assert places(partial(use, Handle()), 2) == ["its argument `handle`"]
    assert places(partial(use, 1), key=Handle()) == ["its argument `key`"]


def test_a_bound_method_and_its_arguments():
    """The object of a method, and its arguments without `self` (D4)."""

    class Service:
        def act(self, handle):
            """Do something with it."""

    assert places(Handle().use) == ["the object whose method it is"]
    assert places(partial(Handle().use, 1)) == ["the object whose method it is"]
    assert places(Service().act, Handle()) == ["its argument `handle`"]


def test_an_object_that_is_called():
    """A callable object itself, and the arguments of its `__call__` (D4)."""

    class CallableHandle(Handle):
        def __call__(self, handle=None):
            """Be called."""

    class Callable:
        def __call__(self, handle):
            """Be called."""

    assert places(CallableHandle()) == ["the object that is called"]
    assert places(Callable(), Handle()) == ["its argument `handle`"]


def test_a_closure():
    """What the body of a function uses of the functions around it (D4)."""
    handle, unused = Handle(), Handle()
    assert places(lambda: handle) == ["`handle`, which its body uses"]
    assert unused is not handle

    def later():
        return not_yet, own

    own = Handle()
    assert places(later) == ["`own`, which its body uses"]
    not_yet = Handle()
    assert places(later)[:1] == ["`not_yet`, which its body uses"]


def test_defaults_that_apply():
    """A default counts as captured, unless the call brings its own value (D4)."""
    handle = Handle()

    def default(x=1, handle=handle, *, key=handle):
        """Take all from the call site."""

    assert places(lambda handle=handle: 1) == ["the default of `handle`"]
    assert places(default, 1, 2) == ["the default of `key`"]
    assert places(default, handle=2) == ["the default of `key`"]
    assert places(default, 1, 2, key=3) == []


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda handle: [0, handle], "`handle[1]` in its argument `handle`"),
        (lambda handle: (handle, 0), "`handle[0]` in its argument `handle`"),
        (lambda handle: {handle}, "an item of its argument `handle`"),
        (lambda handle: frozenset({handle}), "an item of its argument `handle`"),
        (lambda handle: {"a": handle}, "`handle['a']` in its argument `handle`"),
        (lambda handle: {1: handle}, "`handle[1]` in its argument `handle`"),
        (lambda handle: {(): handle}, "`handle[...]` in its argument `handle`"),
    ],
    ids=["list", "tuple", "set", "frozenset", "dict", "dict-of-int", "dict-of-other"],
)
def test_one_level_into_containers(make, place):
    """Lists, tuples, sets and dicts are looked into, once (D4)."""
    assert places(use, make(Handle())) == [place]
    assert places(use, [make(Handle())]) == []


def test_a_list_warns_of_its_first():
    """Many in one list are one warning (D4)."""
    assert places(use, [Handle(), Handle()]) == ["`handle[0]` in its argument `handle`"]


def test_only_so_many_items():
    """Of a long list only the beginning is looked at (D4)."""
    assert places(use, [*range(20), Handle()]) == []
    assert places(use, [*range(19), Handle()]) != []
    assert places(use, *range(10_000), Handle()) == []


def test_one_level_into_functions():
    """A function among the values brings what it captures itself (D4)."""
    handle = Handle()

    @wraps(use)
    def wrapped(fn):
        return fn()

    assert places(wrapped, lambda: handle) == ["`handle`, which its body uses"]
    assert places(wrapped, partial(use, handle)) == ["its argument `handle`"]
    assert places(wrapped, handle.use) == ["the object whose method it is"]

    def recursive():
        return recursive, handle

    assert places(recursive) == ["`handle`, which its body uses"]


def test_the_fix_has_a_name_where_the_parameter_has_none():
    """Without a parameter's name the fix takes that of the class (D4)."""
    (text,) = warned(lambda: defer(lambda *all_of_them: None, Handle()))
    assert text.endswith("Pass handle.id.")


def test_subclasses_count():
    """A subclass of a type in the table is one of its kind (D4)."""

    class Mine(Handle):
        pass

    assert places(use, Mine()) == ["its argument `handle`"]


# -- what it leaves alone --------------------------------------------------------


def test_looking_asks_no_object_anything():
    """No `repr`, `==`, `__class__` or attribute of any value is touched (D4)."""
    hostile = Hostile()
    values = [[hostile], (hostile,), {"a": hostile}]
    fn = lambda *args, default=hostile: hostile  # noqa: E731 - a closure and a default
    everything = [
        *_captures.everything(fn, (hostile, *values, fn), {"key": hostile}),
        *_captures.everything(partial(hostile, hostile)),
        *_captures.everything(hostile),
    ]
    # `found` would swallow what the hostile one raises.
    assert [_request_bound.judge(held) for held in everything] == [None] * 16


def test_containers_are_not_iterated_their_own_way():
    """A container that loads its items when iterated is read as it is (D4)."""

    class LazyList(list):
        __iter__ = __len__ = __getitem__ = Hostile._refuse

    class LazyDict(dict):
        __iter__ = __len__ = __getitem__ = keys = items = Hostile._refuse

    class LazySet(set):
        __iter__ = __len__ = copy = Hostile._refuse

    class LazyTuple(tuple):
        __slots__ = ()
        __iter__ = __len__ = __getitem__ = Hostile._refuse

    handle = Handle()
    for lazy in (LazyList([handle]), LazySet([handle]), LazyTuple([handle])):
        assert len(places(use, lazy)) == 1
    assert len(places(use, LazyDict(a=handle))) == 1


@pytest.mark.parametrize(
    "harmless",
    [1, "text", b"bytes", None, Handle, [1, 2], {"id": 1}, print, threading.Lock()],
    ids=lambda harmless: type(harmless).__name__,
)
def test_harmless_values(harmless):
    """Ids, texts, classes, functions: nothing to warn of (D4)."""
    assert places(use, harmless) == []


def test_a_block_is_left_alone(unit, request):
    """In a block the calls run inside the code that owns the objects (B6, D4)."""
    kind = request.node.callspec.params["unit"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unit(lambda: defer(use, Handle()))
    assert len(caught) == (1 if kind in REQUESTS else 0)


@pytest.mark.filterwarnings("ignore::postlude.NoScopeWarning")
def test_a_call_that_runs_at_once_is_left_alone():
    """Without a unit the call has run before anything could end (A5, D4)."""
    defer(use, Handle())


@pytest.mark.parametrize("kit", [capture, inline])
def test_the_testing_kit_stands_for_a_request(kit):
    """Code under `capture()` or `inline()` is warned as in its request (D4, G2)."""
    with pytest.warns(RequestBoundWarning, match=r"Pass handle\.id"), kit():
        defer(use, Handle())


def test_a_broken_inspector_hurts_nobody(monkeypatch, logged):
    """Whatever goes wrong while looking, the call is deferred and runs (D4, E3)."""

    def broken(value, held):
        raise LookupError

    monkeypatch.setitem(_request_bound._TABLE, f"{__name__}:Handle", broken)
    seen = []
    request(lambda: defer(seen.append, Handle()))
    assert len(seen) == 1
    assert "the inspector could not look (LookupError)" in logged.texts()


# -- when it looks ---------------------------------------------------------------


def test_under_the_pytest_plugin_it_is_on():
    """Tests with Postlude's plugin are development (D4, G2)."""
    assert _settings.inspecting()


def test_a_setting_turns_it_off_and_on():
    """`inspector` decides, whatever the process looks like, at any time (D4, D6)."""
    body = lambda: defer(use, Handle())  # noqa: E731 - one call site
    configure(inspector=False)
    assert warned(body) == []
    configure(inspector=True)
    assert len(warned(body)) == 1
    configure(inspector=None)
    assert _settings.inspecting()


def test_off_it_costs_nothing(monkeypatch):
    """Turned off, `defer` in a unit takes its short road (D4, D6)."""
    configure(inspector=False)
    request(lambda: defer(use))  # the first one decides

    def never(*args):
        raise AssertionError("the long road")

    monkeypatch.setattr(defer_module, "_register", never)
    monkeypatch.setattr(_inspector, "found", never)
    request(lambda: defer(use, Handle()))
    assert failure_store().list() == []


DECIDES = """
    import sys
    {before}
    from postlude import DeferScope, _settings, defer
    with DeferScope():
        defer(list)
    print(_settings.inspects)
"""


@pytest.mark.parametrize(
    ("before", "environment", "inspects"),
    [
        ("", {}, "False"),
        ("", {"PYTHONDEVMODE": "1"}, "True"),
        ("", {"PYTHONDEVMODE": "1", "POSTLUDE_INSPECTOR": "0"}, "False"),
        ("", {"POSTLUDE_INSPECTOR": "1"}, "True"),
        ("import postlude.pytest_plugin", {}, "True"),
        ("from postlude._settings import in_development as d; d('it')", {}, "True"),
    ],
    ids=["production", "dev-mode", "refused", "asked", "plugin", "debug-mode"],
)
def test_how_a_process_decides(script, before, environment, inspects):
    """Off in production, on in development, the setting above both (D4, D6)."""
    done = script.run(DECIDES.format(before=before), **environment)
    assert (done.stdout, done.stderr) == (f"{inspects}\n", "")


def test_a_setting_that_comes_while_deciding_wins(monkeypatch):
    """A decision by settings that are no longer in force is not kept (D6)."""
    settings = _settings.settings

    def interrupted():
        now = settings()
        monkeypatch.setattr(_settings, "settings", settings)
        configure(inspector=False)
        return now

    configure(inspector=True)
    monkeypatch.setattr(_settings, "settings", interrupted)
    assert _settings.inspecting()
    assert not _settings.inspecting()


def test_a_debug_mode_that_comes_later_counts(monkeypatch):
    """An application in debug mode may be made after the first `defer` (D4)."""
    monkeypatch.delitem(sys.modules, "postlude.pytest_plugin", raising=False)
    assert not _settings.inspecting()
    _settings.in_development("its debug mode")
    assert _settings.inspecting()


def test_a_lazy_module_is_not_loaded(monkeypatch):
    """A library that is imported at its first use is not used by looking (D4)."""

    class LazyModule(type(sys)):
        __getattribute__ = Hostile._refuse

    monkeypatch.setitem(sys.modules, "sqlalchemy.orm", LazyModule("sqlalchemy.orm"))
    _request_bound._types.cache_clear()
    assert places(use, Handle()) == ["its argument `handle`"]


def test_types_that_are_imported_later_are_known():
    """A library that is imported after the first `defer` is seen (D4)."""
    assert places(use, Handle()) == ["its argument `handle`"]
    module = type(sys)("imported_later")
    module.Later = type("Later", (), {})
    path = "imported_later:Later"
    _request_bound._TABLE[path] = _request_bound._TABLE[f"{__name__}:Handle"]
    try:
        assert places(use, module.Later()) == []
        sys.modules["imported_later"] = module
        assert places(use, module.Later()) == ["its argument `handle`"]
    finally:
        del _request_bound._TABLE[path]
        sys.modules.pop("imported_later", None)


def test_a_block_inside_a_request_is_a_block():
    """A smaller unit inside a request is left alone like any block (B4, D4)."""

    def body():
        with DeferScope():
            defer(use, Handle())

    assert warned(body) == []
