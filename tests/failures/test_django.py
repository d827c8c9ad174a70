"""E2: failures in Django's database, in its admin, and `manage.py postlude`."""

import importlib
import io
import os
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.test import Client, override_settings
from stage.waiting import PATIENCE

from postlude import DeferScope, _reporting, defer
from postlude.exceptions import StoreError
from postlude.failures import Batch
from postlude.failures.django import DjangoFailureStore
from postlude.transactions import django as gates

HERE = Path(__file__).parent
# What several folders share lies above them; importlib mode has no path to it.
sys.path.insert(0, str(HERE.parent))

from warm import WarmPython  # noqa: E402 - the path is made above

pytestmark = pytest.mark.usefixtures("pages")


@pytest.fixture
def pages(django_tables):
    """Serve the admin, and a page that defers, as `failures_project` does."""
    import failures_project  # noqa: PLC0415 - settings, of a project of their own

    names = ("MIDDLEWARE", "ROOT_URLCONF", "STATIC_URL", "TEMPLATES")
    with override_settings(**{name: getattr(failures_project, name) for name in names}):
        yield


@pytest.fixture
def store(django_tables):
    """Django's store."""
    return DjangoFailureStore()


@pytest.fixture(scope="module")
def warm():
    """A Python that has imported what Django's own commands import."""
    if os.environ.get("TEST_SERVICES") == "all":
        yield None
        return
    modules = "commands.migrate", "commands.check", "commands.makemigrations"
    warm = WarmPython(
        "django.db.backends.sqlite3.base",
        *(f"django.core.management.{module}" for module in modules),
        *("django.contrib.admin", "rich.table", "typer"),
    )
    yield warm
    warm.close()


@pytest.fixture
def project(tmp_path, script, warm):
    """Runs programs in a Django project of their own."""
    file = tmp_path / "program.py"
    path = f"{HERE / 'probes'}:{script.environment['PYTHONPATH']}:{tmp_path}"
    usual = {
        "DJANGO_SETTINGS_MODULE": "failures_project",
        "FAILURES_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": path,
    }

    def run(source, *words, **environment):
        if warm is None:
            return script.run(source, *words, **usual | environment)
        file.write_text(textwrap.dedent(source))
        together = script.environment | usual | environment
        return warm.run([str(file), *words], tmp_path, together, 2 * PATIENCE)

    return run


# -- the store -----------------------------------------------------------------


def test_the_tables_are_those_of_the_models():
    """The migration has all that the models have (E2)."""
    said = io.StringIO()
    call_command("makemigrations", "postlude", check=True, dry_run=True, stdout=said)
    assert "No changes" in said.getvalue()


def test_a_failure_of_a_request_is_in_the_database(store):
    """With `FAILURES` as `django`, what fails after a response is kept there (E2)."""
    with override_settings(POSTLUDE={"FAILURES": "django"}):
        assert Client().get("/order").status_code == 200
        assert _reporting.flush(20)
    (record,) = store.list()
    assert record.function == "failures_urls:fail"
    assert record.unit["path"] == "/order"
    assert record.exception == "ValueError('<b>no</b> 7')"


def test_a_router_gives_failures_a_database_of_their_own(store, record):
    """The database is the routers' choice (E2)."""

    class Router:
        def db_for_write(self, model, **hints):
            return "other" if model._meta.app_label == "postlude" else None

        db_for_read = db_for_write

    call_command("migrate", "postlude", database="other", verbosity=0)
    with override_settings(DATABASE_ROUTERS=[Router()]):
        store.write(Batch((record(),)))
        assert store.count() == 1
        assert store.forget(one.id for one in store.list()) == 1
        store.write(Batch((record(),)))
    assert store.count() == 0


def test_a_thread_leaves_no_connection_open(store, record):
    """What the writer's thread opens, it closes: nobody else does (E2)."""
    left = []

    def write():
        store.write(Batch((record(),)))
        left.append(connections["default"].connection)
        store.list()
        left.append(connections["default"].connection)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert left == [None, None]


def test_a_connection_of_a_request_stays_open(store, record):
    """Who reads failures inside a transaction of his own keeps it (E2)."""
    with transaction.atomic():
        store.write(Batch((record(),)))
        assert store.count() == 1
        store.close()
        assert connection.connection is not None
        transaction.set_rollback(True)
    assert store.count() == 0


def test_the_store_is_nobodys_gate(store, record):
    """No call of a unit waits for the store's own transaction (B3)."""
    gates.install()
    ran = []
    with DeferScope() as scope:
        store.write(Batch((record(),)))
        defer(ran.append, 1)
        assert not scope._gates
    assert ran == [1]


def test_a_refused_write_is_the_stores_error(store, record, monkeypatch):
    """Whatever the database says comes as `StoreError`, in three beats (E3)."""

    def refuse(execute, sql, params, many, context):
        raise OperationalError("server closed the connection\nHINT")

    said = pytest.raises(StoreError, match=r"'default', cannot be used: .*Usually")
    with connection.execute_wrapper(refuse), said:
        store.count()
    assert store.count() == 0


def test_a_deadlock_is_tried_again(store, record):
    """A transaction that others were in the way of runs again (E3)."""
    met = []

    def deadlock(execute, sql, params, many, context):
        if "postlude_failure" in sql and len(met) < 3:
            met.append(sql)
            raise OperationalError(1213, "Deadlock found")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(deadlock):
        store.write(Batch((record(),)))
    assert len(met) == 3
    assert store.count() == 1


# -- without the app, without the tables ---------------------------------------

SETUP = """
    import os, sys
    import django
    django.setup()
"""


def test_missing_tables_are_an_error_with_its_fix(project):
    """Before `migrate` calls run, one line says what to do, then all is kept (E3)."""
    ran = project(
        f"""{SETUP}
    import logging
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory
    import postlude
    from postlude import _reporting
    from postlude.failures import _writer

    _writer._LONGEST = _writer._PAUSE
    said = []

    class Listener(logging.Handler):
        def emit(self, record):
            if "store" in record.getMessage():
                said.append(record.getMessage())

    logging.getLogger("postlude").addHandler(Listener())
    app = get_wsgi_application()

    def visit():
        environ = RequestFactory().get("/order").environ
        response = app(environ, lambda *args: None)
        b"".join(response)
        response.close()
        postlude.drain()

    visit()
    visit()
    print(len(said), said[0])
    call_command("migrate", verbosity=0)
    while not _reporting.flush(20):
        pass
    print(postlude.failure_store().count())
    """,
        POSTLUDE_FAILURES="django",
    )
    assert ran.stderr == ""
    said, kept = ran.stdout.splitlines()
    assert said.startswith("1 the failure store <DjangoFailureStore> cannot be")
    assert "manage.py migrate postlude" in said
    assert kept == "2"


def test_an_app_that_is_not_installed_is_an_error_at_start(project):
    """`FAILURES: django` without the app names the line to add (E2)."""
    ran = project(
        """
    from django.conf import settings
    import django
    settings.configure(INSTALLED_APPS=[], DATABASES={})
    django.setup()
    import postlude
    try:
        postlude.settings()
    except postlude.SettingsError as exc:
        print(exc)
    """,
        POSTLUDE_FAILURES="django",
    )
    assert ran.stderr == ""
    assert "'postlude.integrations.django' is not among INSTALLED_APPS" in ran.stdout
    assert "Usually it was forgotten. Add it, and run" in ran.stdout


def test_a_program_without_django_is_told_so(project):
    """Outside Django the store says how to get in (E2)."""
    ran = project(
        """
    import postlude
    store = postlude.failure_store()
    try:
        store.count()
    except postlude.StoreError as exc:
        print(exc)
    """,
        POSTLUDE_FAILURES="django",
        DJANGO_SETTINGS_MODULE="",
    )
    assert ran.stderr == ""
    assert "Django is not set up" in ran.stdout
    assert "manage.py postlude" in ran.stdout


def test_the_middleware_alone_loads_no_models(project):
    """Who uses the middleware without the app is not affected by it (E4)."""
    ran = project(
        """
    import sys
    from django.conf import settings
    import django
    settings.configure(
        INSTALLED_APPS=[],
        MIDDLEWARE=["postlude.integrations.django.PostludeMiddleware"],
        ROOT_URLCONF="failures_urls_plain",
    )
    django.setup()
    from django.core.wsgi import get_wsgi_application
    import postlude.integrations.django
    get_wsgi_application()
    mine = [name for name in sys.modules if name.startswith("postlude.")]
    print([name for name in mine if name.endswith((".models", ".apps", ".admin"))])
    print("postlude.failures.django" in sys.modules)
    """
    )
    assert ran.stderr == ""
    assert ran.stdout == "[]\nFalse\n"


# -- the command ---------------------------------------------------------------

MANAGE = """
    import os, sys
    from django.core.management import execute_from_command_line
    execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def test_the_command_has_the_settings_store(project):
    """`manage.py postlude` shows what is in Django's database (E2)."""
    fill = """
    from django.core.management import call_command
    from postlude.failures import Batch, FailureRecord
    from postlude.failures.django import DjangoFailureStore
    call_command("migrate", verbosity=0)
    import time
    DjangoFailureStore().write(Batch((FailureRecord(
        "a" * 32, "mail", "shop:mail", {}, "failed", {}, "shop.py:7 in order",
        "ValueError()", "Traceback", None, time.time(), refusal="it is a lambda",
    ),)))
    """
    assert project(f"{SETUP}{fill}").stderr == ""
    options = {"POSTLUDE_FAILURES": "django"}
    ran = project(MANAGE, "postlude", "failures", "list", "--json", **options)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"' in ran.stdout
    again = project(
        MANAGE, "postlude", "--settings=failures_project", "failures", "list", **options
    )
    assert "mail" in again.stdout
    unknown = project(MANAGE, "postlude", "failures", "show", "zzz", **options)
    assert unknown.returncode != 0
    assert "Traceback (most recent" not in unknown.stderr
    assert project(MANAGE, "postlude", "--help", **options).returncode == 0
    called = project(
        f"""{SETUP}
    from django.core.management import CommandError, call_command
    call_command("postlude", "failures", "list")
    try:
        call_command("postlude", "failures", "show", "zzz")
    except CommandError as exc:
        print("code", exc.returncode)
    """,
        **options,
    )
    assert "mail" in called.stdout
    assert f"code {unknown.returncode}" in called.stdout


def test_help_of_django_itself_knows_the_command(project):
    """`manage.py help` lists it and shows its own help (E2)."""
    ran = project(MANAGE, "help")
    assert "postlude" in ran.stdout
    assert "Failed deferred calls" in project(MANAGE, "help", "postlude").stdout


# -- the admin -----------------------------------------------------------------


@pytest.fixture
def users():
    """Users who may do everything, read, delete, run again, or nothing."""
    User, Permission = get_user_model(), apps.get_model("auth", "Permission")  # noqa: N806 - classes
    made = {"root": User.objects.create_superuser("root")}
    may = {
        "nobody": [],
        "reader": ["view_failure"],
        "cleaner": ["view_failure", "delete_failure"],
        "runner": ["view_failure", "retry_failure"],
    }
    for name, codes in may.items():
        user = made[name] = User.objects.create(username=name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codes))
    yield made
    User.objects.all().delete()


@pytest.fixture
def browse(users):
    """A client that is logged in."""

    def browse(name):
        client = Client()
        client.force_login(users[name])
        return client

    return browse


LIST = "/admin/postlude/failure/"
HOSTILE = "<script>alert(1)</script>"


def act(client, action, *records):
    """Choose an action for some records, and give the page that follows."""
    chosen = {"action": action, "_selected_action": [one.id for one in records]}
    response = client.post(LIST, chosen, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_the_admin_lists_finds_and_shows(store, record, browse):
    """A failure is found by state, function and words, and shown whole (E2)."""
    one = record(exception=HOSTILE, traceback=f"Traceback\n  {HOSTILE}", hint=HOSTILE)
    other = record(state="lost", function="shop:other", exception=None, started=None)
    store.write(Batch((one, other)))
    client = browse("reader")
    page = client.get(LIST).content.decode()
    assert f"{LIST}{one.id}/change/#traceback" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    for query, found in [
        ("state=lost", other),
        ("function=shop:other", other),
        (f"q={one.id}", one),
        ("q=alert", one),
    ]:
        page = client.get(f"{LIST}?{query}").content.decode()
        assert [r.id for r in (one, other) if r.id in page] == [found.id]
    for shown in (one, other):
        page = client.get(f"{LIST}{shown.id}/change/").content.decode()
        assert '<pre id="traceback"' in page
        assert HOSTILE not in page
        assert "shop.py:7 in order" in page
        assert "route: /orders" in page
        assert "_save" not in page


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("root", {"forget", "run_again"}),
        ("reader", set()),
        ("cleaner", {"forget"}),
        ("runner", {"run_again"}),
    ],
)
def test_actions_are_for_those_who_may(store, record, browse, name, may):
    """To read, to delete and to run are three permissions (E2)."""
    store.write(Batch((record(),)))
    page = browse(name).get(LIST).content.decode()
    shown = {code for code in ("forget", "run_again") if f'value="{code}"' in page}
    assert shown == may
    assert "delete_selected" not in page


def test_nobody_sees_or_changes_without_permission(store, record, browse):
    """Without a permission the admin shows nothing, and nothing can be changed (E2)."""
    one = record()
    store.write(Batch((one,)))
    assert browse("nobody").get(LIST).status_code == 403
    assert browse("root").get(f"{LIST}add/").status_code == 403
    root = browse("root")
    assert root.post(f"{LIST}{one.id}/change/", {"name": "x"}).status_code == 403
    for action in ("forget", "run_again"):
        act(browse("reader"), action, one)
    assert list(store.list()) == [one]


def test_forget_takes_records_out(store, record, browse):
    """The chosen ones go, and the others stay (E2)."""
    records = [record() for _ in range(3)]
    store.write(Batch(tuple(records)))
    page = act(browse("cleaner"), "forget", *records[:2])
    assert "2 failed calls forgotten." in page
    assert list(store.list()) == records[2:]


def test_run_again_runs_the_call(store, record, browse, monkeypatch):
    """A call that runs well is forgotten, one that fails says so and stays (E2)."""
    failures_urls = importlib.import_module("failures_urls")  # needs Django set up
    one = record(name="mend", function="failures_urls:fail", payload="[[7],{}]")
    never = record(name="never", refusal="it is a lambda")
    store.write(Batch((one, never)))
    client = browse("runner")
    page = act(client, "run_again", one, never)
    assert "The call mend: failed again (ValueError(&#x27;&lt;b&gt;no" in page
    assert "it is a lambda" in page
    assert [(r.name, r.attempt) for r in store.list()] == [("never", 1), ("mend", 2)]
    monkeypatch.setattr(failures_urls, "mended", True)
    page = act(client, "run_again", one)
    assert "1 call has run well." in page
    assert [r.name for r in store.list()] == ["never"]
