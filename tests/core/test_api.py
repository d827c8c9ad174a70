"""A1 to A4, E1, G2: the public names, and that each is documented."""

import inspect
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import postlude
from postlude import exceptions

PUBLIC_MODULES = [
    "postlude",
    "postlude.advice",
    "postlude.asgi",
    "postlude.cli",
    "postlude.dashboard",
    "postlude.exceptions",
    "postlude.failures",
    "postlude.failures.django",
    "postlude.failures.memory",
    "postlude.failures.sqlalchemy",
    "postlude.failures.sqlite",
    "postlude.instrumentation",
    "postlude.instrumentation.logging",
    "postlude.instrumentation.opentelemetry",
    "postlude.instrumentation.prometheus",
    "postlude.instrumentation.sentry",
    "postlude.integrations.django",
    "postlude.integrations.django.dashboard",
    "postlude.integrations.fastapi",
    "postlude.integrations.flask",
    "postlude.integrations.starlette",
    "postlude.queues",
    "postlude.scan",
    "postlude.testing",
    "postlude.transactions",
    "postlude.wsgi",
]
each_module = pytest.mark.parametrize("name", PUBLIC_MODULES)


def test_all_is_what_is_public():
    """`postlude.__all__` has every public name and no other (A1)."""
    names = {
        name
        for name, value in vars(postlude).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert names == set(postlude.__all__)
    assert len(postlude.__all__) == len(set(postlude.__all__))


def test_the_documented_names():
    """What users import is there under the documented name (A1 to A4)."""
    assert {
        "CallStartedError",
        "DeferScope",
        "DeferredCall",
        "NoScopeError",
        "Outcome",
        "PostludeError",
        "SettingsError",
        "configure",
        "defer",
        "defer_all",
        "forget",
    } <= set(postlude.__all__)


@each_module
def test_every_public_module_names_what_it_offers(name):
    """`__all__` of each public module is there, and all of it can be imported (A1)."""
    module = import_module(name)
    assert module.__all__
    assert [key for key in module.__all__ if not hasattr(module, key)] == []


def test_every_other_module_is_private_or_listed():
    """A module without an underscore is public, so it stands in the list above (A1)."""
    names = {
        f"postlude.{info.name}"
        for info in pkgutil.iter_modules(postlude.__path__)
        if not info.name.startswith("_")
    }
    roots = {name.rpartition(".")[0] or name for name in PUBLIC_MODULES}
    known = {*PUBLIC_MODULES, *roots, "postlude.pytest_plugin"}
    assert names <= known


@each_module
def test_everything_public_is_documented(name):
    """Each public function, class, method and property has a docstring (A1)."""
    module = import_module(name)
    objects = [getattr(module, key) for key in module.__all__]
    missing = [value for value in objects if not inspect.getdoc(value)]
    for value in objects:
        if inspect.isclass(value) and not issubclass(value, tuple):
            missing += [
                f"{value.__name__}.{key}"
                for key, member in vars(value).items()
                if not key.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property))
                and not inspect.getdoc(member)
            ]
    assert missing == []


def test_every_error_and_warning_has_the_same_root():
    """Whoever catches PostludeError catches all errors; warnings likewise (A4)."""
    for name in exceptions.__all__:
        value = getattr(exceptions, name)
        root = exceptions.PostludeError
        if issubclass(value, Warning):
            root = exceptions.PostludeWarning
        assert issubclass(value, root)
        assert name in postlude.__all__
