"""The scopes of a module, the names bound in them, and what is of interest there."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from postlude.scan._files import Source

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_Scoped = ast.Module | ast.ClassDef | FunctionNode | ast.Lambda


class Binding(NamedTuple):
    """What a name was bound to, if it can be told."""

    scope: Scope
    target: str | None = None
    """A dotted name."""
    value: ast.expr | None = None
    instance: bool = False
    """The value is the type of what was bound: an annotation."""


class Function(NamedTuple):
    """A function of the project's, at any depth."""

    dotted: str
    module: Module
    node: FunctionNode
    outer: Scope
    """Where it is defined; its decorators are evaluated there."""
    scope: Scope
    owner: str | None
    """The dotted name of its class."""

    @property
    def subject(self) -> str:
        """Give `module:qualname`."""
        return f"{self.module.name}:{self.dotted[len(self.module.dotted) + 1 :]}"

    @property
    def place(self) -> str:
        """Give `file:line`."""
        return f"{self.module.source.file}:{self.node.lineno}"


class Class(NamedTuple):
    """A class of the project's."""

    dotted: str
    module: Module
    node: ast.ClassDef
    scope: Scope
    """Where it is defined."""


class Scope:
    """One scope: names, and the scope around it."""

    __slots__ = ("dotted", "function", "module", "names", "node", "parent")

    def __init__(
        self, module: Module, node: _Scoped, parent: Scope | None, dotted: str
    ) -> None:
        self.module = module
        self.node = node
        self.parent = parent
        self.dotted = dotted
        self.names: dict[str, Binding] = {}
        self.function: Function | None = None if parent is None else parent.function

    def bind(self, name: str, binding: Binding) -> None:
        """Bind a name; bound again to something else, nobody can tell what it is."""
        known = self.names.get(name)
        if known is None:
            self.names[name] = binding
        elif known.target is None and binding.target is not None:
            # `y = None`, and an import elsewhere: of an optional library.
            self.names[name] = binding
        elif known.target is None and (known.value or binding.value) is not None:
            self.names[name] = Binding(self)

    def look_up(self, name: str) -> Binding | None:
        """Find a name as Python would: class bodies are not seen from inside."""
        scope: Scope | None = self
        while scope is not None:
            if scope is self or not isinstance(scope.node, ast.ClassDef):
                found = scope.names.get(name)
                if found is not None:
                    return found
            scope = scope.parent
        return None


class Module:
    """One file, with what a look at all of its nodes found."""

    def __init__(self, source: Source, dotted: str, name: str, package: bool) -> None:
        self.source = source
        self.dotted = dotted
        self.name = name
        """As it is imported."""
        self.package = package
        self.scope = Scope(self, source.tree, None, dotted)
        self.functions: list[Function] = []
        self.classes: list[Class] = []
        self.stars: list[str] = []
        self.chains: list[tuple[ast.Name | ast.Attribute, Scope]] = []
        """Every name with its attributes, as long as it goes."""
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.strings: list[tuple[ast.Constant, Scope]] = []
        self.parents: dict[ast.AST, ast.AST] = {}


def build(module: Module, localized: Callable[[str, Module], str]) -> None:
    """Look at all nodes of a module; *localized* knows the project's own modules."""
    _Builder(module, localized).visit_body(module.source.tree)


class _Builder(ast.NodeVisitor):
    def __init__(self, module: Module, localized: Callable[[str, Module], str]) -> None:
        self._module = module
        self._localized = localized
        self._scope = module.scope

    def visit_body(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self._module.parents[child] = node
            self.visit(child)

    generic_visit = visit_body

    # -- scopes -------------------------------------------------------------

    def _inside(self, scope: Scope, nodes: list[ast.AST], parent: ast.AST) -> None:
        before, self._scope = self._scope, scope
        for node in nodes:
            self._module.parents[node] = parent
            self.visit(node)
        self._scope = before

    def _function(self, node: FunctionNode) -> None:
        outer = self._scope
        dotted = f"{outer.dotted}.{node.name}"
        outer.bind(node.name, Binding(outer, target=dotted))
        inner = Scope(self._module, node, outer, dotted)
        in_class = isinstance(outer.node, ast.ClassDef)
        owner = outer.dotted if in_class else None
        function = Function(dotted, self._module, node, outer, inner, owner)
        inner.function = function
        self._module.functions.append(function)
        arguments = node.args
        for item in [
            *node.decorator_list,
            *arguments.defaults,
            *[value for value in arguments.kw_defaults if value is not None],
        ]:
            self._module.parents[item] = node
            self.visit(item)
        self._parameters(arguments, inner, owner)
        self._inside(inner, [*node.body], node)

    visit_FunctionDef = _function  # noqa: N815 - the name that ast looks for
    visit_AsyncFunctionDef = _function  # noqa: N815 - as above

    def _parameters(
        self, arguments: ast.arguments, inner: Scope, owner: str | None
    ) -> None:
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in every:
            annotation = argument.annotation
            inner.bind(
                argument.arg,
                Binding(self._scope, value=annotation, instance=annotation is not None),
            )
        for more in (arguments.vararg, arguments.kwarg):
            if more is not None:
                inner.bind(more.arg, Binding(inner))
        if owner is not None and every and every[0].arg in {"self", "cls"}:
            instance = "()" if every[0].arg == "self" else ""
            inner.names[every[0].arg] = Binding(inner, target=f"{owner}{instance}")

    def visit_Lambda(self, node: ast.Lambda) -> None:
        inner = Scope(self._module, node, self._scope, self._scope.dotted)
        self._parameters(node.args, inner, None)
        self._inside(inner, [node.body], node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer = self._scope
        dotted = f"{outer.dotted}.{node.name}"
        outer.bind(node.name, Binding(outer, target=dotted))
        self._module.classes.append(Class(dotted, self._module, node, outer))
        for item in [*node.decorator_list, *node.bases, *node.keywords]:
            self._module.parents[item] = node
            self.visit(item)
        inner = Scope(self._module, node, outer, dotted)
        self._inside(inner, [*node.body], node)

    # -- bindings -----------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            whole = alias.name if alias.asname else name
            self._import(name, whole)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self._module.dotted.split(".")
            keep = len(parts) - node.level + self._module.package
            inside = ".".join(parts[: max(1, keep)])
            base = f"{inside}.{base}" if base else inside
        for alias in node.names:
            if alias.name == "*":
                self._module.stars.append(self._own(base))
            else:
                self._import(alias.asname or alias.name, f"{base}.{alias.name}")

    def _import(self, name: str, dotted: str) -> None:
        self._scope.bind(name, Binding(self._scope, target=self._own(dotted)))

    def _own(self, dotted: str) -> str:
        if dotted.startswith("~"):
            return dotted
        return self._localized(dotted, self._module)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind_target(target, node.value)
        self.visit_body(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            value: ast.expr = node.annotation
            made = isinstance(node.value, ast.Call)
            if made and node.value is not None:
                value = node.value
            binding = Binding(self._scope, value=value, instance=not made)
            self._scope.bind(node.target.id, binding)
        self.visit_body(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._bind_target(node.optional_vars, node.context_expr)
        self.visit_body(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind_target(node.target, node.value)
        self.visit_body(node)

    def _bind_target(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._scope.bind(target.id, Binding(self._scope, value=value))
        elif isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self._bind_target(part, None)
        elif isinstance(target, ast.Starred):
            self._bind_target(target.value, None)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self._bind_target(node.target, None)
        self.visit_body(node)

    visit_For = _loop  # noqa: N815 - the name that ast looks for
    visit_AsyncFor = _loop  # noqa: N815 - as above
    visit_comprehension = _loop

    # -- what is of interest ------------------------------------------------

    def _chain(self, node: ast.Name | ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._module.chains.append((node, self._scope))
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            self._module.parents[inner.value] = inner
            inner = inner.value
        if not isinstance(inner, ast.Name):
            self.visit(inner)

    visit_Name = _chain  # noqa: N815 - the name that ast looks for
    visit_Attribute = _chain  # noqa: N815 - as above

    def visit_Call(self, node: ast.Call) -> None:
        self._module.calls.append((node, self._scope))
        self.visit_body(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._module.strings.append((node, self._scope))
