"""Which functions answer requests, as far as decorators, routes and bases show."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postlude.scan._words import words

if TYPE_CHECKING:
    from postlude.scan._project import Project
    from postlude.scan._scopes import Class, Function, Scope

_ROUTERS = (
    "flask.", "quart.", "fastapi.", "starlette.", "litestar.", "sanic.", "ninja.",
    "falcon.", "flask_restx.", "flask_openapi3.", "apiflask.", "aiohttp.web.",
)  # fmt: skip
_ROUTING = words(
    "route get post put patch delete head options api_route websocket api_operation"
)
_DECORATORS = frozenset(
    {
        "flask_appbuilder.expose", "flask_appbuilder.baseviews.expose",
        "flask_appbuilder.api.expose", "rest_framework.decorators.api_view",
        "rest_framework.decorators.action", "pyramid.view.view_config",
        "django.contrib.admin.action", "django.contrib.auth.decorators.login_required",
        "litestar.get", "litestar.post", "litestar.put", "litestar.patch",
        "litestar.delete", "litestar.route", "litestar.handlers.get",
        "litestar.handlers.post", "litestar.handlers.put", "litestar.handlers.patch",
        "litestar.handlers.delete",
    }
)  # fmt: skip
_DECORATING = "django.views.decorators."
_VIEWS = (
    "django.views.", "django.contrib.auth.views.", "django.contrib.admin.",
    "rest_framework.views.", "rest_framework.viewsets.", "rest_framework.generics.",
    "rest_framework.mixins.", "flask.views.", "quart.views.", "starlette.endpoints.",
    "litestar.Controller", "litestar.controller.", "flask_appbuilder.",
    "flask_restful.", "flask_restx.", "tornado.web.",
)  # fmt: skip
"""Where the classes are whose methods run in a request."""
_URLS = frozenset(
    {
        "django.urls.path", "django.urls.re_path", "django.urls.conf.path",
        "django.urls.conf.re_path", "django.conf.urls.url", "starlette.routing.Route",
        "fastapi.Depends", "fastapi.param_functions.Depends", "litestar.Litestar",
        "litestar.Router", "litestar.di.Provide",
    }
)  # fmt: skip
_ADDING = words("add_url_rule add_route add_api_route add_view")


def handlers(project: Project) -> dict[str, str]:
    """Give the handlers by dotted name, each with what shows that it is one."""
    found: dict[str, str] = {}
    for function in project.functions.values():
        for decorator in function.node.decorator_list:
            if _routes(project, decorator, function.outer):
                text = ast.unparse(decorator)
                found[function.dotted] = f"@{text[:80]} at {function.place}"
    for owner in project.classes.values():
        base = next(
            (b for b in project.lineage(owner.dotted) if b.startswith(_VIEWS)), None
        )
        if base is not None:
            found.update(_methods(project, owner, f"a method of a {base}"))
    for function, why in _registered(project):
        found.setdefault(function.dotted, why)
    return found


def _routes(project: Project, node: ast.expr, scope: Scope) -> bool:
    bare = node.func if isinstance(node, ast.Call) else node
    name = project.resolve(bare, scope)
    if name is None:
        return False
    if name in _DECORATORS or name.startswith(_DECORATING):
        return True
    base, _, verb = name.rpartition(".")
    if verb not in _ROUTING or not base:
        return False
    return any(
        kind.startswith(_ROUTERS) for kind in project.lineage(base.removesuffix("()"))
    )


def _methods(project: Project, owner: Class, why: str) -> dict[str, str]:
    return {
        function.dotted: f"{why}, {owner.module.source.file}:{owner.node.lineno}"
        for dotted in [owner.dotted]
        for node in owner.node.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (function := project.functions.get(f"{dotted}.{node.name}")) is not None
    }


def _registered(project: Project) -> Iterator[tuple[Function, str]]:
    """Give what tables of routes name."""
    for module in project.modules.values():
        for node, scope in module.calls:
            name = project.resolve(node.func, scope) or ""
            verb = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name not in _URLS and verb not in _ADDING:
                continue
            why = f"routed at {module.source.file}:{node.lineno}"
            for argument in [*node.args, *(k.value for k in node.keywords)]:
                yield from _named(project, argument, scope, why)


def _named(
    project: Project, node: ast.expr, scope: Scope, why: str
) -> Iterator[tuple[Function, str]]:
    if isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            yield from _named(project, item, scope, why)
    elif isinstance(node, ast.Call):
        # Both views.Orders.as_view() and login_required(views.orders).
        for inner in [node.func, *node.args]:
            yield from _named(project, inner, scope, why)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = project.resolve(node, scope) or ""
        name = name.removesuffix(".as_view")
        if (function := project.functions.get(name)) is not None:
            yield function, why
        for dotted in project.lineage(name):
            owner = project.classes.get(dotted)
            if owner is not None:
                for method in _methods(project, owner, why):
                    yield project.functions[method], why
