"""How each job engine says things, and the tasks that a project defines with it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from postlude.scan._project import keywords
from postlude.scan._sending import last_name
from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._scopes import Function, Scope


class Engine(NamedTuple):
    """The words of one engine."""

    name: str
    label: str
    sends: frozenset[str]
    """Attributes of a task that hand it to the queue; `` is the call itself."""
    direct: frozenset[str]
    """What runs it here and now; `` is the call itself."""


CELERY = Engine(
    "celery",
    "Celery task",
    words("delay apply_async delay_on_commit apply_async_on_commit"),
    words("apply run __call__") | {""},
)
DRAMATIQ = Engine(
    "dramatiq", "Dramatiq actor", words("send send_with_options"), words("fn") | {""}
)
RQ = Engine("rq", "RQ job", words("delay"), frozenset({""}))
HUEY = Engine("huey", "Huey task", frozenset({""}), words("call_local func"))
ARQ = Engine("arq", "arq job", frozenset(), frozenset({""}))
TASKIQ = Engine("taskiq", "TaskIQ task", words("kiq"), frozenset({""}))
DJANGO = Engine(
    "django", "Django task", words("enqueue aenqueue"), words("call acall func")
)

_MEANINGS = {
    "retry": words(
        "autoretry_for retry_backoff retry_backoff_max retry_jitter retry_kwargs "
        "max_retries default_retry_delay retries retry_delay retry retry_when "
        "retry_on_error min_backoff max_backoff dont_autoretry_for max_tries backoff "
        "retry_policy retry_for on_retry_exhausted"
    ),
    "schedule": words(
        "run_every schedule eta countdown delay expires run_after cron _defer_by "
        "_defer_until _expires repeat interval"
    ),
    "result": words(
        "ignore_result result_ttl result_expires store_results track_started "
        "task_id keep_result result_backend ttl job_id _job_id preserve meta"
    ),
    "chain": words(
        "link link_error chord depends_on on_success on_failure pipe_target then "
        "on_complete on_error on_stopped at_front"
    ),
    "delivery": words(
        "acks_late reject_on_worker_lost acks_on_failure_or_timeout queue queue_name "
        "_queue_name routing_key exchange priority rate_limit time_limit max_age "
        "soft_time_limit timeout job_timeout broker backend _job_try lock_task "
        "failure_ttl max_concurrency takes_context"
    ),
}
"""What an option makes use of."""
_SAYS_NOTHING = words(
    "name bind base shared serializer compression typing throws trail actor_name "
    "task_name pydantic send_events store_errors_even_if_ignored args kwargs "
    "description"
)
_LISTS = words("args kwargs")
"""Options of a send that carry the task's own arguments."""


class Job(NamedTuple):
    """A task that the project defines."""

    engine: Engine
    function: Function
    options: Mapping[str | None, ast.expr]
    name: str
    """As its engine knows it."""
    reasons: tuple[str, ...] = ()
    """Why it stays, from its definition alone."""


def meaning(option: str | None, value: ast.expr) -> str | None:
    """Give what an option makes use of; None if nothing."""
    if option is None:
        return "options that are put together elsewhere (**)"
    if option in _SAYS_NOTHING:
        return None
    constant = value.value if isinstance(value, ast.Constant) else _NOT_CONSTANT
    if option == "ignore_result":
        return None if constant is True else "result: ignore_result is not True"
    for use, names in _MEANINGS.items():
        if option in names:
            off = constant is False or (constant == 0 and use == "retry")
            return None if off else f"{use}: {option}={short(value)}"
    return f"the option {option}, which this scan does not know"


_NOT_CONSTANT = object()


def short(node: ast.expr) -> str:
    """Give an expression as text, cut to a readable length."""
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:40]}..."  # noqa: PLR2004 - a line's worth


# -- definitions ------------------------------------------------------------

_EXACT = {
    "celery.shared_task": CELERY,
    "celery.app.shared_task": CELERY,
    "celery.task": CELERY,
    "celery.task.task": CELERY,
    "celery.task.periodic_task": CELERY,
    "celery.decorators.task": CELERY,
    "celery.decorators.periodic_task": CELERY,
    "dramatiq.actor": DRAMATIQ,
    "dramatiq.actor.actor": DRAMATIQ,
    "rq.job": RQ,
    "rq.decorators.job": RQ,
    "django_rq.job": RQ,
    "django_rq.decorators.job": RQ,
    "django.tasks.task": DJANGO,
    "django.tasks.base.task": DJANGO,
    "django_tasks.task": DJANGO,
    "django_tasks.base.task": DJANGO,
}
_HUEY = "huey.contrib.djhuey."


def jobs(project: Project) -> dict[str, Job]:
    """Give the tasks that decorators make, by the dotted name of their function."""
    found: dict[str, Job] = {}
    for function in project.functions.values():
        for decorator in function.node.decorator_list:
            job = _decorated(project, function, decorator)
            if job is not None:
                found[function.dotted] = job
    return found


def _decorated(project: Project, function: Function, node: ast.expr) -> Job | None:
    bare = node.func if isinstance(node, ast.Call) else node
    made_by = _maker(project, bare, function.outer)
    if made_by is None:
        return None
    engine, verb = made_by
    options = keywords(node)
    given = options.get("name") or options.get("actor_name") or options.get("task_name")
    name = f"{function.module.name}.{function.node.name}"
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        name = given.value
    reasons = [text for key, value in options.items() if (text := meaning(key, value))]
    if "periodic" in verb or "cron" in verb or verb.startswith("on_"):
        reasons.append(f"schedule: @{verb}")
    if engine is DRAMATIQ and not _is_zero(options.get("max_retries")):
        reasons.append(
            "retry: Dramatiq retries 20 times by default, and max_retries=0 does not "
            "say that it need not"
        )
    return Job(engine, function, options, name, tuple(reasons))


def _is_zero(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _maker(project: Project, node: ast.expr, scope: Scope) -> tuple[Engine, str] | None:
    """Give the engine whose decorator *node* is, and the decorator's name."""
    name = project.resolve(node, scope) or ""
    base, _, verb = name.rpartition(".")
    engine = _EXACT.get(name)
    if engine is None and name.startswith(_HUEY) and verb.endswith("task"):
        engine = HUEY
    if engine is not None:
        return engine, verb
    verb = last_name(node)
    if verb not in _VERBS:
        return None
    kinds = set(project.lineage(base.removesuffix("()")))
    for engine, verbs, tops in _BY_CLASS:
        if verb in verbs and any(kind.partition(".")[0] in tops for kind in kinds):
            return engine, verb
    # An application that is made at run time is known by its name.
    variable = project.variable(node, scope) or ast.unparse(node)
    if isinstance(node, ast.Attribute):
        owner = project.variable(node.value, scope) or ast.unparse(node.value)
        variable = f"{owner}.{verb}"
    if verb != "actor" and "celery" in variable.lower():
        return CELERY, verb
    return None


_VERBS = words("task periodic_task actor context_task cron")
_BY_CLASS = (
    (CELERY, words("task periodic_task"), {"celery"}),
    (DRAMATIQ, words("actor"), {"dramatiq"}),
    (HUEY, words("task periodic_task context_task"), {"huey"}),
    (TASKIQ, words("task"), {"taskiq", "taskiq_redis", "taskiq_aio_pika"}),
)
"""The decorators that an instance of a library's class has."""
