"""The scan finds the tasks that use nothing of their queue, and no others."""

import pytest

from postlude.scan import scan, survey

VIEWS = """
from fastapi import FastAPI
from django.db import transaction
from functools import partial
from datetime import timedelta
{imports}

app = FastAPI()

@app.post("/signup")
async def signup():
    {send}
    return "ok"
"""


class Engine:
    """A project that sends one task from a handler, and how it may say more."""

    def __init__(self, head, decorator, send, imports="from shop.tasks import welcome"):
        self.head = head
        self.decorator = decorator
        self.send = send
        self.imports = imports

    def files(self, options="", body="pass", send=None, above="", more=""):
        """Give the project's files, with changes."""
        decorator = self.decorator.format(options=options)
        tasks = (
            f"{self.head}\n{above}\n{decorator}\ndef welcome(user_id):\n    {body}\n"
        )
        views = VIEWS.format(imports=self.imports, send=send or self.send)
        return {
            "shop/__init__.py": "",
            "shop/tasks.py": tasks + more,
            "shop/views.py": views,
        }


ENGINES = {
    "celery": Engine(
        "from celery import shared_task", "@shared_task({options})", "welcome.delay(1)"
    ),
    "celery app": Engine(
        "from celery import Celery\napp = Celery('shop')",
        "@app.task({options})",
        "welcome.apply_async(args=(1,))",
    ),
    "dramatiq": Engine(
        "import dramatiq",
        "@dramatiq.actor(max_retries=0, {options})",
        "welcome.send(1)",
    ),
    "rq": Engine(
        "",
        "",
        "queue.enqueue(welcome, 1)",
        "from rq import Queue\nfrom shop.tasks import welcome\nqueue = Queue()",
    ),
    "rq job": Engine(
        "from django_rq import job", "@job('default', {options})", "welcome.delay(1)"
    ),
    "huey": Engine(
        "from huey import SqliteHuey\nhuey = SqliteHuey()",
        "@huey.task({options})",
        "welcome(1)",
    ),
    "huey django": Engine(
        "from huey.contrib.djhuey import db_task", "@db_task({options})", "welcome(1)"
    ),
    "arq": Engine(
        "",
        "",
        "await pool.enqueue_job('welcome', 1)",
        "from shop.worker import pool",
    ),
    "taskiq": Engine(
        "from taskiq_redis import ListQueueBroker\nbroker = ListQueueBroker('redis://')",
        "@broker.task({options})",
        "await welcome.kiq(1)",
    ),
    "django": Engine(
        "from django.tasks import task", "@task({options})", "welcome.enqueue(1)"
    ),
}
WORKER = """
from shop.tasks import welcome
class WorkerSettings:
    functions = [welcome]
"""


def project(name, **changes):
    """Give the files of an engine's project."""
    files = ENGINES[name].files(**changes)
    if name == "arq":
        files["shop/worker.py"] = WORKER
    return files


@pytest.mark.parametrize("name", ENGINES)
def test_a_task_that_uses_nothing_is_found(tree, name):
    """A task without retry, schedule, result or chain, sent in a request (advice)."""
    (finding,) = scan(tree(project(name)))
    assert finding.kind == "task"
    assert finding.engine == name.partition(" ")[0]
    assert finding.subject == "shop.tasks:welcome"
    assert finding.file == "shop/tasks.py"
    source = project(name)["shop/tasks.py"].splitlines()
    assert source[finding.line - 1].startswith("def welcome")
    assert "shop/views.py:" in finding.sentence
    assert any("sent in a request at shop/views.py" in e for e in finding.evidence)
    assert any("shop.views:signup; @app.post('/signup')" in e for e in finding.evidence)


CELERY_NEAR_MISSES = {
    "autoretry_for": ({"options": "autoretry_for=(OSError,)"}, "retry: autoretry_for"),
    "max_retries": ({"options": "max_retries=3"}, "retry: max_retries=3"),
    "self.retry": (
        {"options": "bind=True", "body": "user_id.x\n    welcome.retry()"},
        "retry: .retry",
    ),
    "raises Retry": (
        {"above": "from celery.exceptions import Retry", "body": "raise Retry"},
        "raises Retry",
    ),
    "countdown": (
        {"send": "welcome.apply_async((1,), countdown=5)"},
        "schedule: countdown=5",
    ),
    "eta": ({"send": "welcome.apply_async((1,), eta=soon)"}, "schedule: eta=soon"),
    "beat": (
        {"more": "BEAT = {'a': {'task': 'shop.tasks.welcome', 'schedule': 60}}"},
        "is named in the string 'shop.tasks.welcome'",
    ),
    "routes": (
        {"more": "ROUTES = {'shop.tasks.*': {'queue': 'mail'}}"},
        "delivery: the pattern 'shop.tasks.*' names it",
    ),
    "crontab": (
        {"more": "app.add_periodic_task(60, welcome.s(1))"},
        "chain: .s",
    ),
    "result get": ({"send": "welcome.delay(1).get()"}, "result: .get is used"),
    "result kept": (
        {"send": "result = welcome.delay(1)"},
        "result: what welcome.delay",
    ),
    "result returned": ({"send": "return welcome.delay(1)"}, "gives is kept"),
    "AsyncResult": ({"send": "welcome.AsyncResult(1)"}, "result: .AsyncResult"),
    "chain": (
        {"send": "chain(welcome.s(1), welcome.si(2)).delay()"},
        "chain: .s",
    ),
    "link": (
        {"send": "welcome.apply_async((1,), link=after)"},
        "chain: link=after",
    ),
    "rate limit": ({"options": "rate_limit='10/m'"}, "delivery: rate_limit"),
    "acks late": ({"options": "acks_late=True"}, "delivery: acks_late=True"),
    "queue": ({"options": "queue='mail'"}, "delivery: queue='mail'"),
    "time limit": ({"options": "soft_time_limit=300"}, "delivery: soft_time_limit"),
    "unknown option": ({"options": "singleton=True"}, "the option singleton"),
    "options elsewhere": ({"options": "**OPTIONS"}, "put together elsewhere"),
    "keeps results": ({"options": "ignore_result=False"}, "result: ignore_result"),
    "base class": (
        {
            "options": "base=Retrying",
            "above": "from celery import Task\nclass Retrying(Task):\n"
            "    autoretry_for = (OSError,)\n",
        },
        "of its base class (shop/tasks.py:",
    ),
    "strange base class": (
        {"options": "base=Once", "above": "from celery_once import Once"},
        "its base class cannot be looked at: celery_once.Once",
    ),
    "decorator": (
        {
            "above": "from tenacity import retry\n",
            "options": ")\n@retry(",
        },
        "is wrapped by @retry",
    ),
    "handed on": ({"send": "register(welcome)"}, "it is handed on"),
    "in a loop": (
        {"send": "for i in range(9):\n        welcome.delay(i)"},
        "is sent in a loop",
    ),
    "in a comprehension": (
        {"send": "[welcome.delay(i) for i in range(9)]"},
        "is sent in a loop",
    ),
    "loops": (
        {"body": "for user in load(user_id):\n        mail(user)"},
        "works through a loop that calls mail",
    ),
    "sleeps": (
        {"above": "import time", "body": "time.sleep(9)"},
        "calls time.sleep, which may take long",
    ),
    "starts a process": (
        {"above": "import subprocess", "body": "subprocess.run(['x'])"},
        "calls subprocess.run",
    ),
    "takes long further down": (
        {
            "above": "import zipfile\ndef a():\n    b()\n"
            "def b():\n    zipfile.ZipFile('x')",
            "body": "a()",
        },
        "calls zipfile.ZipFile, which may take long, in shop.tasks:b",
    ),
    "holds a lock": (
        {"body": "with cache.lock('x'):\n        pass"},
        "holds the lock cache.lock",
    ),
    "sends another": (
        {
            "body": "other.delay()",
            "more": "\n@shared_task\ndef other():\n    pass",
        },
        "chain: it sends shop.tasks:other",
    ),
    "uses the current task": (
        {"above": "from celery import current_task", "body": "current_task.backend"},
        "uses current_task",
    ),
    "unclear": ({"send": "strange().welcome.delay(1)"}, "may be what"),
    "never sent": ({"send": "pass"}, "no place was found that sends it"),
}


@pytest.mark.parametrize("near_miss", CELERY_NEAR_MISSES)
def test_a_celery_task_that_uses_its_queue_is_not(tree, near_miss):
    """Each thing that only a queue has keeps a task on it, and is named (advice)."""
    changes, reason = CELERY_NEAR_MISSES[near_miss]
    found = survey(tree(project("celery", **changes)))
    assert [f for f in found.findings if f.subject == "shop.tasks:welcome"] == []
    (task,) = [task for task in found.tasks if task.subject == "shop.tasks:welcome"]
    assert any(reason in why for why in task.reasons), task.reasons


@pytest.mark.parametrize(
    "body",
    ["raise self.retry()", "self.update_state(state='X')", "log(self.request.id)"],
)
def test_a_bound_task_that_uses_itself_is_not(tree, body):
    """What only a queue can give a task keeps it there (advice)."""
    files = project("celery", options="bind=True", body=body)
    files["shop/tasks.py"] = files["shop/tasks.py"].replace("(user_id)", "(self)")
    (task,) = survey(tree(files)).tasks
    assert any(why.startswith("uses self.") for why in task.reasons)


NEAR_MISSES = [
    ("dramatiq", {"options": "min_backoff=1000"}, "retry: min_backoff=1000"),
    ("dramatiq", {"options": "time_limit=1000"}, "delivery: time_limit=1000"),
    (
        "dramatiq",
        {"send": "welcome.send_with_options(args=(1,), delay=1000)"},
        "schedule: delay=1000",
    ),
    ("dramatiq", {"send": "welcome.message(1)"}, "chain: .message"),
    ("dramatiq", {"send": "m = welcome.send(1)"}, "gives is kept"),
    ("rq", {"send": "queue.enqueue(welcome, 1, retry=Retry(3))"}, "retry: retry="),
    ("rq", {"send": "queue.enqueue(welcome, 1, job_timeout=600)"}, "job_timeout=600"),
    ("rq", {"send": "queue.enqueue(welcome, 1, depends_on=x)"}, "chain: depends_on=x"),
    ("rq", {"send": "job = queue.enqueue(welcome, 1)"}, "gives is kept"),
    (
        "rq",
        {"send": "queue.enqueue_in(timedelta(minutes=1), welcome, 1)"},
        "schedule: .enqueue_in",
    ),
    ("rq job", {"options": "retry=Retry(3)"}, "retry: retry="),
    ("rq job", {"options": "result_ttl=60"}, "result: result_ttl=60"),
    ("huey", {"options": "retries=2"}, "retry: retries=2"),
    ("huey", {"options": "priority=50"}, "delivery: priority=50"),
    ("huey", {"send": "result = welcome(1)"}, "gives is kept"),
    ("huey", {"send": "welcome(1)()"}, "is kept"),
    ("huey", {"send": "welcome.schedule((1,), delay=60)"}, "schedule: .schedule"),
    ("huey", {"send": "welcome.s(1).then(other)"}, "chain: .s"),
    (
        "arq",
        {"send": "await pool.enqueue_job('welcome', 1, _defer_by=9)"},
        "_defer_by=9",
    ),
    ("arq", {"send": "job = await pool.enqueue_job('welcome', 1)"}, "gives is kept"),
    ("arq", {"send": "await pool.enqueue_job('welcome', 1, _job_id='a')"}, "_job_id"),
    ("taskiq", {"options": "retry_on_error=True"}, "retry: retry_on_error=True"),
    ("taskiq", {"options": "schedule=[{'cron': '* * * * *'}]"}, "schedule: schedule="),
    ("taskiq", {"send": "t = await welcome.kiq(1)"}, "gives is kept"),
    ("taskiq", {"send": "await welcome.kicker().with_labels(a=1).kiq(1)"}, "chain:"),
    ("django", {"options": "priority=10"}, "delivery: priority=10"),
    ("django", {"options": "queue_name='mail'"}, "delivery: queue_name='mail'"),
    ("django", {"send": "welcome.using(run_after=soon).enqueue(1)"}, "chain: .using"),
    ("django", {"send": "result = welcome.enqueue(1)"}, "gives is kept"),
    ("django", {"send": "welcome.get_result('id')"}, "result: .get_result"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), NEAR_MISSES)
def test_a_task_of_another_engine_that_uses_it_is_not(tree, name, changes, reason):
    """The same in the words of every other engine (advice)."""
    found = survey(tree(project(name, **changes)))
    assert found.findings == ()
    (task,) = found.tasks
    assert any(reason in why for why in task.reasons), task.reasons


def test_dramatiq_retries_by_itself(tree):
    """An actor without `max_retries=0` has retries, though nobody wrote so (advice)."""
    files = project("dramatiq")
    files["shop/tasks.py"] = files["shop/tasks.py"].replace("max_retries=0, ", "")
    (task,) = survey(tree(files)).tasks
    assert "Dramatiq retries 20 times by default" in task.reasons[0]


@pytest.mark.parametrize(
    "decorator",
    [
        "@app.on_event",  # no task at all
        "@celery.periodic_task(run_every=60)",
        "@periodic_task(crontab(minute='0'))",
    ],
)
def test_a_periodic_task_is_none(tree, decorator):
    """What runs by the clock stays (advice)."""
    files = project("celery")
    files["shop/tasks.py"] = (
        "from celery import Celery\n"
        "from huey.contrib.djhuey import periodic_task, crontab\n"
        "celery = Celery()\n"
        f"{decorator}\ndef welcome(user_id):\n    pass\n"
    )
    assert scan(tree(files)) == []


SENDERS = {
    "a command": (
        "shop/management/commands/greet.py",
        """
        from shop.tasks import welcome
        class Command:
            def handle(self):
                welcome.delay(1)
        """,
    ),
    "another task": (
        "shop/jobs.py",
        """
        from celery import shared_task
        from shop.tasks import welcome
        @shared_task
        def nightly():
            welcome.delay(1)
        """,
    ),
    "a function that nobody calls": (
        "shop/service.py",
        """
        from shop.tasks import welcome
        def greet():
            welcome.delay(1)
        """,
    ),
    "the module itself": (
        "shop/start.py",
        """
        from shop.tasks import welcome
        welcome.delay(1)
        """,
    ),
}


@pytest.mark.parametrize("sender", SENDERS)
def test_a_task_that_no_request_sends_is_none(tree, sender):
    """`defer` is for requests: a command's or a task's task stays (advice)."""
    name, text = SENDERS[sender]
    files = {**project("celery", send="pass"), name: text}
    found = survey(tree(files))
    assert found.findings == ()
    reasons = {t.subject: t.reasons for t in found.tasks}["shop.tasks:welcome"]
    assert any(
        f"no place that sends it was seen to be in a request ({name}:" in r
        for r in reasons
    )


REQUESTS = {
    "Flask": """
        from flask import Blueprint
        from shop.tasks import welcome
        pages = Blueprint("pages", __name__)
        @pages.route("/")
        def index():
            welcome.delay(1)
        """,
    "Flask's MethodView": """
        from flask.views import MethodView
        from shop.tasks import welcome
        class Index(MethodView):
            def post(self):
                welcome.delay(1)
        """,
    "add_url_rule": """
        from shop.tasks import welcome
        def index():
            welcome.delay(1)
        app.add_url_rule("/", view_func=index)
        """,
    "Django's path": """
        from django.urls import path
        from shop.tasks import welcome
        def index(request):
            welcome.delay(1)
        urlpatterns = [path("", wrapped(index))]
        """,
    "Django's class": """
        from django.views.generic import FormView as Base
        from shop.tasks import welcome
        class Index(Base):
            def form_valid(self, form):
                welcome.delay(1)
        """,
    "Django's decorator": """
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        @require_POST
        def index(request):
            welcome.delay(1)
        """,
    "REST framework": """
        from rest_framework import viewsets
        from shop.tasks import welcome
        class Own(viewsets.ModelViewSet): pass
        class Index(Own):
            def perform_create(self, serializer):
                welcome.delay(1)
        """,
    "api_view": """
        from rest_framework.decorators import api_view
        from shop.tasks import welcome
        @api_view(["POST"])
        def index(request):
            welcome.delay(1)
        """,
    "Starlette": """
        from starlette.routing import Route
        from shop.tasks import welcome
        async def index(request):
            welcome.delay(1)
        routes = [Route("/", index)]
        """,
    "Litestar": """
        from litestar import post
        from shop.tasks import welcome
        @post("/")
        async def index() -> None:
            welcome.delay(1)
        """,
    "Quart": """
        from quart import Quart
        from shop import tasks as jobs
        app = Quart(__name__)
        @app.get("/")
        async def index():
            jobs.welcome.delay(1)
        """,
    "a dependency": """
        from fastapi import Depends
        from shop.tasks import welcome
        def index():
            welcome.delay(1)
        USER = Depends(index)
        """,
    "a service": """
        from flask import Flask
        from . import tasks
        app = Flask(__name__)
        class Service:
            def greet(self):
                self._send()
            def _send(self):
                tasks.welcome.delay(1)
        @app.post("/")
        def index():
            service = Service()
            service.greet()
        """,
    "a service from somewhere": """
        from flask import Flask
        from shop.tasks import welcome
        app = Flask(__name__)
        class Service:
            def initiate_registration(self):
                welcome.delay(1)
        @app.post("/")
        def index():
            app.services["users"].initiate_registration()
        """,
    "a commit hook": """
        from django.db import transaction
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        @require_POST
        def index(request):
            transaction.on_commit(lambda: welcome.delay(1))
        """,
    "a partial": """
        from functools import partial
        from django.db.transaction import on_commit
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        @require_POST
        def index(request):
            on_commit(partial(welcome.delay, 1))
        """,
    "a function that sends what it is given": """
        from django.db.transaction import on_commit
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        def later(task, **options):
            on_commit(lambda: task.apply_async(**options))
        @require_POST
        def index(request):
            later(welcome, args=(1,))
        """,
    "a signal": """
        from django.dispatch import Signal, receiver
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        visited = Signal()
        left = Signal()
        @receiver(visited)
        def greet(sender, **kwargs):
            welcome.delay(1)
        @require_POST
        def index(request):
            visited.send(None)
        """,
    "a model's method": """
        from django.db import models
        from django.views.decorators.http import require_POST
        from shop.tasks import welcome
        class User(models.Model):
            def greet(self):
                welcome.delay(1)
        @require_POST
        def index(request):
            user = User.objects.select_related("x").get(pk=1)
            user.greet()
        """,
}


@pytest.mark.parametrize("way", REQUESTS)
def test_a_request_is_known_by_what_shows_it(tree, way):
    """Handlers of every framework, and what they are seen to call (advice)."""
    files = {**project("celery", send="pass"), "shop/pages.py": REQUESTS[way]}
    (finding,) = scan(tree(files))
    assert finding.subject == "shop.tasks:welcome"
    shown = [
        e
        for e in finding.evidence
        if e.startswith("sent in a request at shop/pages.py")
    ]
    assert shown
    assert ("(by its name)" in shown[0]) == (way == "a service from somewhere")


def test_another_signal_is_not_taken_for_it(tree):
    """Two signals are two, though both are made in the same way (advice)."""
    text = REQUESTS["a signal"].replace("visited.send", "left.send")
    files = {**project("celery", send="pass"), "shop/pages.py": text}
    assert scan(tree(files)) == []


def test_a_forwarding_function_that_does_more_is_none(tree):
    """A function that keeps the result or adds a delay is no mere sender (advice)."""
    text = REQUESTS["a function that sends what it is given"]
    for change in (
        ("later(welcome, args=(1,))", "later(welcome, args=(1,), countdown=9)"),
        (
            "on_commit(lambda: task.apply_async(**options))",
            "return task.delay(**options)",
        ),
        ("on_commit(lambda: task.apply_async(**options))", "register(task)"),
    ):
        files = {
            **project("celery", send="pass"),
            "shop/pages.py": text.replace(*change),
        }
        assert scan(tree(files)) == [], change


def test_a_method_name_of_many_classes_is_no_way(tree):
    """By its name alone a method is known only if few others have it (advice)."""
    text = REQUESTS["a service from somewhere"] + "".join(
        f"\n        class Other{i}:\n"
        "            def initiate_registration(self): pass\n"
        for i in range(2)
    )
    files = {**project("celery", send="pass"), "shop/pages.py": text}
    assert scan(tree(files)) == []


def test_another_function_of_the_same_name_is_not_taken_for_it(tree):
    """Names are followed through imports, not compared as text (advice)."""
    files = project("celery", send="welcome(1)")
    files["shop/views.py"] = files["shop/views.py"].replace(
        "from shop.tasks import welcome", "from shop.other import welcome"
    )
    files["shop/other.py"] = "def welcome(x):\n    pass\n"
    (task,) = survey(tree(files)).tasks
    assert task.reasons == ("no place was found that sends it",)


def test_imports_are_followed(tree):
    """Re-exports, aliases, stars, relative imports, src folders (advice)."""
    files = {f"src/{name}": text for name, text in project("celery").items()}
    files["src/shop/__init__.py"] = "from .api import *\n"
    files["src/shop/api.py"] = "from .tasks import welcome as greet\n"
    files["src/shop/views.py"] = (
        files["src/shop/views.py"]
        .replace("from shop.tasks import welcome", "import shop")
        .replace("welcome.delay(1)", "shop.greet.delay(1)")
    )
    (finding,) = scan(tree(files))
    assert finding.subject == "shop.tasks:welcome"
    assert finding.file == "src/shop/tasks.py"


def test_a_file_named_like_a_library_is_not_that_library(tree):
    """`shop/celery.py` without an `__init__.py` is not Celery (advice)."""
    files = project("celery app")
    del files["shop/__init__.py"]
    files["shop/celery.py"] = "from celery import Celery\napp = Celery('shop')\n"
    files["shop/tasks.py"] = (
        "from shop.celery import app\n@app.task\ndef welcome(x):\n    pass\n"
    )
    (finding,) = scan(tree(files))
    assert finding.engine == "celery"


def test_all_sends_are_looked_at(tree):
    """One place that keeps the result is enough, wherever it is (advice)."""
    files = project("celery")
    files["shop/admin.py"] = "from shop.tasks import welcome\nx = welcome.delay(2)\n"
    assert scan(tree(files)) == []


def test_where_else_it_is_sent_is_said(tree):
    """Evidence names the sends outside requests, too (advice)."""
    name, text = SENDERS["a command"]
    (finding,) = scan(tree({**project("celery"), name: text}))
    assert finding.evidence[-1] == (
        f"also sent at {name}:5, not seen to be in a request"
    )
