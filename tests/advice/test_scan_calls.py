"""The scan finds slow calls that a handler makes just before it returns."""

import pytest

from postlude.scan import scan

HEAD = """
import boto3, httpx, logging, requests, sentry_sdk, smtplib, urllib.request
from django.core.mail import EmailMessage, send_mail
from flask import Flask, flash
app = Flask(__name__)
log = logging.getLogger(__name__)
http = requests.Session()
sns = boto3.client("sns")

@app.post("/orders")
"""


def handler(body, more="", head="def order(request, session: httpx.AsyncClient):"):
    """Give a module with one handler."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return {"shop.py": f"{HEAD}{head}\n{lines}\n{more}"}


SLOW = {
    "django": (
        "send_mail('a', 'b', 'c', ['d'])\nreturn 1",
        "django.core.mail.send_mail",
    ),
    "message": ("EmailMessage('a').send()", "django.core.mail.EmailMessage().send"),
    "variable": (
        "mail = EmailMessage('a')\nmail.attach('x')\nmail.send()\nreturn redirect('/')",
        "django.core.mail.EmailMessage().send",
    ),
    "requests": ("requests.post('http://x', json=1)\nreturn 1", "requests.post"),
    "a session": ("http.post('http://x')\nreturn 1", "requests.Session().post"),
    "a parameter": (
        "session.post('http://x')\nreturn 1",
        "httpx.AsyncClient().post",
    ),
    "smtp": (
        "with smtplib.SMTP('x') as s:\n    s.send_message(m)\nreturn 1",
        "smtplib.SMTP().send_message",
    ),
    "urllib": (
        "urllib.request.urlopen('http://x')\nreturn 1",
        "urllib.request.urlopen",
    ),
    "boto": ("sns.publish(Message='x')\nreturn 1", "boto3.client().publish"),
    "a log line between": (
        "requests.post('x')\nlog.info('sent')\nreturn 1",
        "requests.post",
    ),
    "a message between": (
        "requests.post('x')\nflash('sent')\nreturn 1",
        "requests.post",
    ),
    "an answer between": (
        "requests.post('x')\nanswer = render('a')\nreturn answer",
        "requests.post",
    ),
    "only sometimes": ("if wanted:\n    requests.post('x')\nreturn 1", "requests.post"),
    "an early return": (
        "if wanted:\n    requests.post('x')\n    return 1\nreturn work()",
        "requests.post",
    ),
    "errors are logged": (
        "try:\n    requests.post('x')\nexcept OSError:\n    log.warning('x')\nreturn 1",
        "requests.post",
    ),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_call_before_the_return_is_found(tree, case):
    """Slow I/O whose result nobody uses, with only the return behind it (advice)."""
    body, call = SLOW[case]
    (finding,) = scan(tree(handler(body)))
    assert finding.kind == "call"
    assert finding.subject == "shop:order"
    assert call in finding.sentence
    assert finding.evidence[0].startswith(
        "shop:order is a handler: @app.post('/orders')"
    )
    assert finding.engine == call.partition(".")[0]
    line = finding.line - HEAD.count("\n") - 2
    last = call.rpartition(".")[2]
    assert last in body.splitlines()[line], "the line is that of the call"


def test_an_awaited_call_is_found(tree):
    """Async handlers wait just as long (advice)."""
    body = "await session.post('http://x')\nreturn 1"
    head = "async def order(session: httpx.AsyncClient):"
    (finding,) = scan(tree(handler(body, head=head)))
    assert finding.engine == "httpx"


FAST = {
    "the result is used": "answer = requests.post('x')\nreturn answer.json()",
    "the result is returned": "return requests.post('x')",
    "the result is asked": "if requests.post('x').ok:\n    return 1\nreturn 2",
    "work follows": "requests.post('x')\nwork()\nreturn 1",
    "a commit follows": "requests.post('x')\nsession.commit()\nreturn 1",
    "slow work in the answer": "requests.post('x')\nreturn requests.get('y').text",
    "an await follows": "requests.post('x')\nanswer = await load()\nreturn answer",
    "an error changes the answer": (
        "try:\n    requests.post('x')\nexcept OSError:\n    return 'no', 502\nreturn 1"
    ),
    "an error is answered": (
        "try:\n    requests.post('x')\nexcept OSError:\n    raise Bad\nreturn 1"
    ),
    "in a transaction": "with transaction.atomic():\n    requests.post('x')\nreturn 1",
    "a loop": "for x in y:\n    requests.post(x)\nreturn 1",
    "sentry has its own thread": "sentry_sdk.capture_message('x')\nreturn 1",
    "a method of that name": "mailer.send_mail('a')\nreturn 1",
    "a quick one": "sns.get_paginator('x')\nreturn 1",
    "unreachable": "return 1\nrequests.post('x')",
    "something of the user's": "record('x')\nreturn 1",
}


@pytest.mark.parametrize("case", FAST)
def test_what_the_answer_may_need_is_not(tree, case):
    """A used result, work behind it, or an error that is answered (advice)."""
    head = "async def order(session):"
    assert scan(tree(handler(FAST[case], head=head))) == []


def test_only_handlers_are_looked_at(tree):
    """A command or a helper keeps no user waiting (advice)."""
    files = handler("requests.post('x')\nreturn 1")
    files["shop.py"] = files["shop.py"].replace('@app.post("/orders")\n', "")
    assert scan(tree(files)) == []


THROUGH = "def notify(order):\n    text = render(order)\n    requests.post('x', text)\n"


def test_one_function_of_the_project_is_looked_through(tree):
    """A helper that does nothing else counts as the slow call itself (advice)."""
    (finding,) = scan(tree(handler("notify(1)\nreturn 1", THROUGH)))
    assert "(through shop:notify, shop.py:" in finding.sentence
    twice = THROUGH + "def tell(x):\n    notify(x)\n"
    assert scan(tree(handler("tell(1)\nreturn 1", twice))) == []


@pytest.mark.parametrize(
    "line",
    [
        "raise Refused",
        "return text",
        "order.save()",
        "order.sent = True",
        "yield 1",
        "session.commit()",
    ],
)
def test_a_function_that_does_more_is_not(tree, line):
    """What refuses, answers or changes something must stay where it is (advice)."""
    more = f"{THROUGH}    {line}\n"
    assert scan(tree(handler("notify(1)\nreturn 1", more))) == []


def test_a_task_is_no_handler(tree):
    """The body of a task keeps nobody waiting (advice)."""
    more = "from celery import shared_task\n"
    files = handler("requests.post('x')\nreturn 1", more)
    files["shop.py"] = files["shop.py"].replace(
        "@app.post", "from celery import shared_task\n@shared_task\n@app.post"
    )
    assert [f for f in scan(tree(files)) if f.kind == "call"] == []


def test_view_classes_end_where_they_answer(tree):
    """`get` and `form_valid` answer; a helper method does not (advice)."""
    text = """
        import requests
        from django.views import View
        class Orders(View):
            def post(self, request):
                requests.post("x")
                return 1
            def check(self):
                requests.post("y")
    """
    (finding,) = scan(tree({"shop.py": text}))
    assert finding.subject == "shop:Orders.post"
