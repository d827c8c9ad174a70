import sys
import unittest
from pathlib import Path

import pymysql
import pytest
from django.db import connections
from django.test import TestCase

from postlude.transactions import django as gates

sys.path.insert(0, str(Path(__file__).parent))
# Its project is that of the integration's tests: Django is set up once per process.
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations/django/probes"))

import in_process

in_process.configure()

from shops import Book, Shop, options_of  # noqa: E402 - a model needs the settings

# Django takes PyMySQL for mysqlclient if it says so, and is as new as Django wants.
pymysql.version_info = (2, 2, 7, "final", 0)
pymysql.install_as_MySQLdb()


@pytest.fixture(scope="session", autouse=True)
def _installed():
    gates.install()


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


@pytest.fixture
def add_shop(monkeypatch):
    """Make a database known to Django, until the end of the test."""
    shops = []

    def add(alias, **options):
        values = connections.configure_settings({"default": {}, alias: options})
        monkeypatch.setitem(connections.settings, alias, values[alias])
        connections[alias].settings_dict.setdefault("TEST", {})
        with connections[alias].schema_editor() as editor:
            editor.create_model(Book)
        shops.append(Shop(alias))
        return shops[-1]

    yield add
    for shop in shops:
        shop.connection.close()
        del connections[shop.alias]


@pytest.fixture
def shop(database, add_shop, request):
    """An empty database on each of the servers; no two tests share an alias."""
    return add_shop(f"shop_{id(request.node)}", **options_of(database))


@pytest.fixture
def other(add_shop, request):
    """A second database, of this thread only."""
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    return add_shop(f"other_{id(request.node)}", **sqlite)


@pytest.fixture
def run_in():
    """Run a function as the one test of a test case of Django's."""

    def run_in(kind, test, *shops):
        class Case(kind):
            databases = frozenset(shop.alias for shop in shops)
            # The shops have no tables of other apps, which a flush would fill.
            available_apps = ("books",)

            def test(self):
                test(self)

        result = unittest.TestResult()
        unittest.TestSuite([Case("test")])(result)
        for _, text in result.errors + result.failures:
            pytest.fail(text)
        assert result.testsRun == 1

    return run_in


@pytest.fixture
def in_case(run_in, shop):
    """Run a function as a test of a `TestCase`, and see that nothing is left over."""

    def in_case(test, *more):
        def checked(case):
            test(case)
            assert shop.connection.execute_wrappers == []
            assert shop.connection.run_on_commit == []

        run_in(TestCase, checked, shop, *more)
        assert shop.titles() == []

    return in_case
