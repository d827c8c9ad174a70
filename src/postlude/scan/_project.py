"""The project as one: modules, scopes, and from an expression to what it names.

A name is written with dots, `()` for an instance or a result, and a leading `~` if it
is the project's own: `~shop.tasks.send`, `celery.Celery().task`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from postlude.scan._scopes import Binding, Class, Function, Module, Scope, build
from postlude.scan._words import words

if TYPE_CHECKING:
    from pathlib import Path

    from postlude.scan._files import Source

_DEEPEST = 12
_MANAGERS = frozenset({"objects", "all_objects", "query"})
_GETTERS = words(
    "get() first() last() create() get_or_404() first_or_404() latest() earliest() "
    "one() get_object()"
)
"""`Order.objects.filter(...).get()` gives an order, in Django and Flask-SQLAlchemy."""
_LIBRARIES = frozenset(
    {
        "aiohttp", "arq", "boto3", "celery", "django", "django_rq", "django_tasks",
        "dramatiq", "email", "fastapi", "flask", "http", "httpx", "huey", "json",
        "litestar", "logging", "quart", "requests", "rest_framework", "rq",
        "sentry_sdk", "smtplib", "starlette", "taskiq", "types", "urllib",
    }
)  # fmt: skip
"""What `shop/celery.py` must not be taken for, where `shop` has no `__init__.py`."""


class Project:
    """All modules, and the names in them."""

    def __init__(self, sources: Iterable[Source], top: Path) -> None:
        self.modules: dict[str, Module] = {}
        self._imported_as: dict[str, list[Module]] = {}
        self._canonical: dict[str, str] = {}
        self._packages: dict[Path, bool] = {}
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        for source in sources:
            self._add(source, top)
        for module in self.modules.values():
            build(module, self._localized)
            self.functions.update((f.dotted, f) for f in module.functions)
            self.classes.update((c.dotted, c) for c in module.classes)

    def _add(self, source: Source, top: Path) -> None:
        parts = _parts(source.path.relative_to(top))
        own = "~" + ".".join(parts or [source.path.parent.name])
        public = _parts(source.path.relative_to(self._root(source.path.parent)))
        name = ".".join(public) or source.path.stem
        module = Module(source, own, name, source.path.name == "__init__.py")
        self.modules[own] = module
        for known in {name, own[1:]}:
            if known.partition(".")[0] not in _LIBRARIES:
                self._imported_as.setdefault(known, []).append(module)

    def _root(self, folder: Path) -> Path:
        """Give the folder that must be on `sys.path` for an import from *folder*."""
        while self._is_package(folder) and folder.parent != folder:
            folder = folder.parent
        return folder

    def _is_package(self, folder: Path) -> bool:
        known = self._packages.get(folder)
        if known is None:
            known = self._packages[folder] = (folder / "__init__.py").is_file()
        return known

    def _localized(self, dotted: str, importer: Module) -> str:
        """Give an imported name as the project's own, if it is."""
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            found = self._imported_as.get(".".join(parts[:end]))
            if found:
                nearest = max(found, key=lambda module: _shared(module, importer))
                return ".".join([nearest.dotted, *parts[end:]])
        return dotted

    # -- from expressions to names ------------------------------------------

    def resolve(self, node: ast.expr, scope: Scope, depth: int = 0) -> str | None:
        """Give the name of what an expression stands for; None if nobody can tell."""
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.Name):
            binding = scope.look_up(node.id)
            return None if binding is None else self._bound(binding, depth)
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value, scope, depth + 1)
            return None if base is None else self.canonical(f"{base}.{node.attr}")
        if isinstance(node, ast.Call):
            base = self.resolve(node.func, scope, depth + 1)
            return None if base is None else f"{base}()"
        if isinstance(node, ast.Await):
            return self.resolve(node.value, scope, depth + 1)
        return None

    def _bound(self, binding: Binding, depth: int) -> str | None:
        if binding.target is not None:
            return self.canonical(binding.target, depth + 1)
        if binding.value is None:
            return None
        found = self.resolve(binding.value, binding.scope, depth + 1)
        if found is not None and binding.instance:
            return f"{found}()"
        return found

    def canonical(self, dotted: str, depth: int = 0) -> str:
        """Follow imports and assignments to where a name was made."""
        if not dotted.startswith("~") or depth > _DEEPEST:
            return dotted
        known = self._canonical.get(dotted)
        if known is None:
            known = self._follow(dotted, depth)
            self._canonical[dotted] = known
        return known

    def _follow(self, dotted: str, depth: int) -> str:
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            module = self.modules.get(".".join(parts[:end]))
            if module is not None:
                rest = parts[end:]
                return self._in_module(module, rest, depth) if rest else module.dotted
        return dotted

    def _in_module(self, module: Module, rest: list[str], depth: int) -> str:
        head, called = rest[0].removesuffix("()"), rest[0].endswith("()")
        own = f"{module.dotted}.{head}"
        binding = module.scope.names.get(head)
        if binding is None:
            for star in module.stars:
                found = self.modules.get(star)
                if found is not None and found is not module and depth < _DEEPEST:
                    given = self.canonical(".".join([star, *rest]), depth + 1)
                    if given != ".".join([star, *rest]) or head in found.scope.names:
                        return given
            return ".".join([module.dotted, *rest])
        suffix = ["()" if called else "", *rest[1:]]
        if (found_class := self.classes.get(own)) is not None:
            return self._in_class(found_class, called, rest[1:], depth)
        if own in self.functions:
            return _joined(own, suffix)
        target = self._bound(binding, depth + 1)
        if target is None or target == own:
            return _joined(own, suffix)
        return self.canonical(_joined(target, suffix), depth + 1)

    def _in_class(self, owner: Class, called: bool, rest: list[str], depth: int) -> str:
        base = f"{owner.dotted}{'()' if called else ''}"
        if not rest:
            return base
        for i, part in enumerate(rest):
            if i and part in _GETTERS and rest[0] in _MANAGERS:
                return self._in_class(owner, True, rest[i + 1 :], depth)
        name = rest[0].removesuffix("()")
        for dotted in self.lineage(owner.dotted, depth):
            member = f"{dotted}.{name}"
            if member in self.functions:
                return _joined(member, ["()" if rest[0] != name else "", *rest[1:]])
        return ".".join([base, *rest])

    def variable(self, node: ast.expr, scope: Scope) -> str | None:
        """Give the name of the variable that *node* is, whatever it holds.

        `resolve` gives what it holds: of two signals, both are `Signal()`.
        """
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value, scope)
            return None if base is None else self._imported(f"{base}.{node.attr}")
        binding = scope.look_up(node.id) if isinstance(node, ast.Name) else None
        if binding is None or not isinstance(node, ast.Name):
            return None
        return self._imported(binding.target or f"{binding.scope.dotted}.{node.id}")

    def _imported(self, dotted: str) -> str:
        """Follow imports only."""
        for _ in range(_DEEPEST):
            place, _, name = dotted.rpartition(".")
            module = self.modules.get(place)
            binding = None if module is None else module.scope.names.get(name)
            if binding is None or binding.target in {None, dotted}:
                break
            dotted = binding.target or dotted
        return dotted

    def lineage(self, dotted: str, depth: int = 0) -> Iterator[str]:
        """Give a class's name and those of all its bases, nearest first."""
        yield dotted
        found = self.classes.get(dotted)
        if found is None or depth > _DEEPEST:
            return
        for base in found.node.bases:
            node = base.value if isinstance(base, ast.Subscript) else base
            name = self.resolve(node, found.scope, depth + 1)
            if name is not None and name != dotted:
                yield from self.lineage(name, depth + 1)

    def kinds(self, dotted: str | None) -> set[str]:
        """Give the names of the classes that an instance is of."""
        if dotted is None or not dotted.endswith("()"):
            return set()
        return set(self.lineage(dotted.removesuffix("()")))

    # -- calls --------------------------------------------------------------

    def called(self, node: ast.Call, scope: Scope) -> Function | None:
        """Give the project's own function that a call runs."""
        name = self.resolve(node.func, scope)
        if name is None:
            return None
        found = self.functions.get(name)
        if found is None and name in self.classes:
            found = self.functions.get(self.canonical(f"{name}().__init__"))
        return found


def _parts(path: Path) -> list[str]:
    parts = [*path.parts[:-1], path.stem]
    return parts[:-1] if parts[-1] == "__init__" else parts


def _joined(first: str, rest: list[str]) -> str:
    """Join with dots; the first of *rest* is what follows at once."""
    return ".".join([first + rest[0], *rest[1:]])


def _shared(one: Module, other: Module) -> int:
    """Count the folders that two modules have in common."""
    count = 0
    for a, b in zip(one.source.path.parts, other.source.path.parts, strict=False):
        if a != b:
            break
        count += 1
    return count


def keywords(node: ast.expr) -> Mapping[str | None, ast.expr]:
    """Give the keyword arguments of a call; None is the key of `**more`."""
    if not isinstance(node, ast.Call):
        return {}
    return {keyword.arg: keyword.value for keyword in node.keywords}
