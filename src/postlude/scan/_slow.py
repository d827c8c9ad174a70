"""Slow calls that a handler makes just before it returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from postlude.scan._sending import last_name
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function, Scope

_HTTP = words("get post put patch delete head options request send")
_FUNCTIONS = frozenset(
    {
        "django.core.mail.send_mail", "django.core.mail.send_mass_mail",
        "django.core.mail.mail_admins", "django.core.mail.mail_managers",
        "urllib.request.urlopen", "aiosmtplib.send", "pywebpush.webpush",
        "firebase_admin.messaging.send", "firebase_admin.messaging.send_multicast",
        "paho.mqtt.publish.single", "paho.mqtt.publish.multiple",
        "slack_sdk.webhook.WebhookClient().send",
        "slack_sdk.webhook.async_client.AsyncWebhookClient().send",
    }
)  # fmt: skip
_METHODS = {
    "smtplib.SMTP": frozenset({"send_message", "sendmail"}),
    "smtplib.SMTP_SSL": frozenset({"send_message", "sendmail"}),
    "aiosmtplib.SMTP": frozenset({"send_message", "sendmail"}),
    "django.core.mail.EmailMessage": frozenset({"send"}),
    "django.core.mail.EmailMultiAlternatives": frozenset({"send"}),
    "flask_mail.Mail": frozenset({"send"}),
    "flask_mailman.EmailMessage": frozenset({"send"}),
    "fastapi_mail.FastMail": frozenset({"send_message"}),
    "requests.Session": _HTTP,
    "requests.sessions.Session": _HTTP,
    "httpx.Client": _HTTP,
    "httpx.AsyncClient": _HTTP,
    "aiohttp.ClientSession": _HTTP,
    "urllib3.PoolManager": frozenset({"request", "urlopen"}),
    "slack_sdk.WebClient": frozenset({"chat_postMessage", "files_upload_v2"}),
    "slack_sdk.web.async_client.AsyncWebClient": frozenset({"chat_postMessage"}),
    "sendgrid.SendGridAPIClient": frozenset({"send"}),
    "pusher.Pusher": frozenset({"trigger"}),
}
"""What waits for another machine. Not here: Sentry, PostHog, Segment, logging over HTTP
and their like, which put things on a queue of their own and return at once."""
_AWS = ("boto3.client().", "boto3.resource().", "boto3.session.Session().client().")
_AWS_SLOW = (
    "publish", "send_message", "send_email", "send_raw_email", "put_object", "invoke",
    "upload_file", "upload_fileobj", "put_record", "put_events", "put_metric_data",
)  # fmt: skip
_BETWEEN = words(
    "debug info warning error exception log flash success append add_message "
    "print update"
)
"""Calls that may stand between the slow one and the return."""
_CHANGES = words(
    "save create update delete commit flush add remove set bulk_create bulk_update "
    "set_cookie insert execute append pop setdefault login logout write"
)
"""What a function may do that its caller, or the next page, needs."""


class Tail(NamedTuple):
    """A slow call at the end of a handler."""

    node: ast.expr
    call: str
    """What is slow, by its full name."""
    through: str | None
    """The project's own function that it is made in, with its place."""


def tails(project: Project, function: Function) -> Iterator[Tail]:
    """Give the slow calls after which a handler only returns."""
    yield from _ends(project, function, function.node.body, True)


def _ends(
    project: Project, function: Function, body: Sequence[ast.stmt], at_end: bool
) -> Iterator[Tail]:
    """Look at a block backwards, from each return and from the function's end."""
    body = _reached(body)
    returns = bool(body) and isinstance(body[-1], ast.Return)
    if returns and _works(project, function, body[-1]):
        return
    for statement in body if not (at_end or returns) else body[:-1]:
        if isinstance(statement, ast.If):
            yield from _ends(project, function, statement.body, False)
            yield from _ends(project, function, statement.orelse, False)
    if not (at_end or returns):
        return
    for statement in reversed(body[:-1] if returns else body):
        found = list(_tail(project, function, statement))
        yield from found
        if not found and not _is_quiet(statement):
            return


def _reached(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    """Give a block up to where it is left."""
    for i, statement in enumerate(body):
        if isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break):
            return body[: i + 1]
    return body


def _works(project: Project, function: Function, statement: ast.stmt) -> bool:
    """Tell whether a return does slow work itself, so that the order may matter."""
    return any(
        slow(project, node, function.scope) is not None
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
    )


def _tail(project: Project, function: Function, statement: ast.stmt) -> Iterator[Tail]:
    if isinstance(statement, ast.If):
        # What is last in a branch is last in the handler.
        for branch in (statement.body, statement.orelse):
            if branch and not isinstance(branch[-1], ast.Return | ast.Raise):
                yield from _ends(project, function, branch, True)
    elif isinstance(statement, ast.Try) and _only_logs(statement):
        yield from _ends(project, function, statement.body, True)
    elif isinstance(statement, ast.With | ast.AsyncWith):
        names = [
            project.resolve(item.context_expr, function.scope) or ""
            for item in statement.items
        ]
        if all(project.kinds(name) & _METHODS.keys() for name in names):
            yield from _ends(project, function, statement.body, True)
    elif isinstance(statement, ast.Expr):
        node = statement.value
        call = node.value if isinstance(node, ast.Await) else node
        if isinstance(call, ast.Call):
            yield from _call(project, function, call)


def _call(project: Project, function: Function, call: ast.Call) -> Iterator[Tail]:
    name = slow(project, call, function.scope)
    if name is not None:
        yield Tail(call, name, None)
        return
    called = project.called(call, function.scope)
    if called is None or called.dotted == function.dotted or called.node.decorator_list:
        return
    inner = _through(project, called)
    if inner is not None:
        node, name = inner
        place = f"{called.module.source.file}:{node.lineno}"
        yield Tail(call, name, f"{called.subject}, {place}")


def _through(project: Project, called: Function) -> tuple[ast.Call, str] | None:
    """Give the slow call of a function that does nothing its caller could need."""
    found: tuple[ast.Call, str] | None = None
    for statement in called.node.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Raise | ast.Yield | ast.YieldFrom | ast.Global):
                return None
            if isinstance(node, ast.Return) and node.value is not None:
                return None
            if isinstance(node, ast.Assign | ast.AugAssign) and _changes(node):
                return None
            if isinstance(node, ast.Call):
                name = slow(project, node, called.scope)
                if name is not None:
                    found = found or (node, name)
                elif last_name(node.func) in _CHANGES:
                    return None
    return found


def _changes(node: ast.Assign | ast.AugAssign) -> bool:
    """Tell whether something beyond the function's own names is assigned to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Attribute) for target in targets)


def _is_quiet(statement: ast.stmt) -> bool:
    """Tell whether a statement may stand between the slow call and the return."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Assign):
        calls = [
            node for node in ast.walk(statement.value) if isinstance(node, ast.Call)
        ]
        return (
            all(isinstance(t, ast.Name) for t in statement.targets)
            and not any(
                isinstance(node, ast.Await) for node in ast.walk(statement.value)
            )
            and len(calls) <= 1
        )
    if isinstance(statement, ast.Expr):
        value = statement.value
        if isinstance(value, ast.Constant):
            return True
        return isinstance(value, ast.Call) and last_name(value.func) in _BETWEEN
    return False


def _only_logs(statement: ast.Try) -> bool:
    """Tell whether no error handler changes what the user is answered."""
    if statement.orelse or statement.finalbody:
        return False
    return all(
        _is_quiet(inner) for handler in statement.handlers for inner in handler.body
    )


def slow(project: Project, call: ast.Call, scope: Scope) -> str | None:
    """Give the full name of a call that waits for another machine; None if not."""
    name = project.resolve(call.func, scope)
    if name is None:
        return None
    base, _, verb = name.rpartition(".")
    if name in _FUNCTIONS or (base in {"requests", "httpx"} and verb in _HTTP):
        return name
    if base.startswith(_AWS) or f"{base}." in _AWS:
        return name if verb in _AWS_SLOW else None
    for kind in project.kinds(base):
        if verb in _METHODS.get(kind, ()):
            return name
    return None
