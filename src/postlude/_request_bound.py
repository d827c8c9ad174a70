"""What ends with its request, and how one sees it without waking it.

No library is imported, and no object is asked anything before its type is known; then
only for what its library gives without loading.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from postlude._captures import Held, everything, fields


class Finding(NamedTuple):
    """What is wrong with a value; in *fix*, `{name}` stands for it."""

    what: str
    why: str
    fix: str
    place: str = ""


Judge: TypeAlias = Callable[[Any, Held], Finding | None]


def judge(held: Held) -> Finding | None:
    """Tell what is wrong with holding a value, if anything is."""
    types = _types(len(sys.modules))
    for cls in type(held.value).__mro__:
        found = types.get(id(cls))
        # How SQLAlchemy marks what it maps: such a class need not have a base of its.
        if found is None and "_sa_class_manager" in type.__getattribute__(
            cls, "__dict__"
        ):
            found = _mapped
        if found is not None:
            return found if isinstance(found, Finding) else found(held.value, held)
    return None


@lru_cache(maxsize=1)
def _types(_modules: int) -> dict[int, Finding | Judge]:
    """Give the types of the table that exist in this process, by `id`.

    Anew when the number of imported modules is another one.
    """
    types: dict[int, Finding | Judge] = {}
    for path, found in _TABLE.items():
        module, _, name = path.partition(":")
        cls = fields(sys.modules.get(module)).get(name)
        if cls is not None:
            types[id(cls)] = found
    return types


def _mapped(value: Any, held: Held) -> Finding | None:
    """Judge an ORM instance of SQLAlchemy, SQLModel or Flask-SQLAlchemy.

    What `inspect` gives tells about the instance without loading anything of it. All
    is well with an instance that no session knows, and with one that has everything it
    could be asked for and keeps it: the usual one of `expire_on_commit=False`.
    """
    state = sys.modules["sqlalchemy"].inspect(value, raiseerr=False)
    if state is None or state.transient:
        return None
    expires = state.session is not None and state.session.expire_on_commit
    if not expires and not state.unloaded:
        return None
    mapper = state.mapper
    keys = [mapper.get_property_by_column(key).key for key in mapper.primary_key]
    if state.deleted or state.was_deleted:
        fix = "It is deleted: pass the values that the call needs."
    elif state.key is None:
        fix = "Flush its session first, then do this: " + _pass_key(held, keys)
    else:
        fix = _pass_key(held, keys)
    return Finding(
        f"an instance of {type(value).__qualname__} of a SQLAlchemy session",
        "Usually a commit expires it or the end of the request closes its session, and "
        "the call cannot load what is missing then.",
        fix,
    )


def _pony(value: Any, held: Held) -> Finding:
    keys = [attribute.name for attribute in value._pk_attrs_]
    return Finding(
        f"an instance of {type(value).__qualname__} of a Pony db_session",
        "Its db_session ends with the request, and the call can neither load nor "
        "change anything of it then.",
        _pass_key(held, keys),
    )


def _pass_key(held: Held, keys: list[str]) -> str:
    name = "each" if held.items_of else "{name}"
    key = ", ".join(f"{name}.{key}" for key in keys)
    if len(keys) > 1:
        key = f"({key})"
    if held.items_of:
        key = f"[{key} for each in {held.items_of}]"
        return f"Pass {key} and load them again in the call."
    return f"Pass {key} and load it again in the call."


def _lazy(value: Any, _held: Held) -> Finding | None:
    """Judge a `SimpleLazyObject`: one that is still to be loaded from a request.

    One that has been looked at is what it stands for, a model instance as a rule. One
    that needs no request may be loaded anywhere.
    """
    lazy = fields(value)
    empty = fields(sys.modules["django.utils.functional"]).get("empty")
    if lazy.get("_wrapped") is not empty:
        return None
    request = fields(sys.modules.get("django.http")).get("HttpRequest")
    sources = everything(lazy.get("_setupfunc"))
    if request is None or not any(issubclass(type(s.value), request) for s in sources):
        return None
    return Finding(
        "a lazy object that nobody has looked at",
        "Usually it is request.user. In the call it would be loaded by a request that "
        "is over, and an async call cannot load it at all.",
        "Pass {name}.pk and load the user in the call.",
    )


def _proxy(value: Any, held: Held) -> Finding | None:
    """Judge Werkzeug's proxies; `current_app` and `session` are there in a call too."""
    flask = fields(sys.modules.get("flask"))
    proxy: Any = value
    if value is flask.get("request"):
        return _wsgi_request(proxy._get_current_object(), held)
    if value is flask.get("g"):
        return Finding(
            "Flask's `g`",
            "Each call has a `g` of its own, and nothing that the request put into its "
            "own is there.",
            "Pass the values: `g.user_id`.",
        )
    return None


def _asgi_request(value: Any, held: Held) -> Finding | None:
    """Judge a request of Starlette, FastAPI or Litestar.

    All is well with one that has no body, or whose body has been read and is kept, of
    which only Starlette's private attributes tell (0.40 to 1.x).
    """
    own = fields(value)
    if own.get("_form") is not None:
        return _form(own["_form"], held) and _REQUEST
    body = any(
        name == b"transfer-encoding" or (name == b"content-length" and text != b"0")
        for name, text in value.scope["headers"]
    )
    return _REQUEST if body and "_body" not in own else None


def _wsgi_request(value: Any, _held: Held) -> Finding | None:
    """Judge a request of Django (4.2 to 5.2) or Werkzeug (2.3 to 3.1) likewise."""
    own = fields(value)
    files = own.get("_files", own.get("files"))
    if files is not None:
        return _WSGI_REQUEST if len(files) else None
    environ: dict[str, Any] = own.get("META") or own.get("environ") or {}
    length = environ.get("CONTENT_LENGTH")
    body = length not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in environ
    read = "_body" in own or "_cached_data" in own
    return _WSGI_REQUEST if body and not read else None


def _form(value: Any, _held: Held) -> Finding | None:
    """Judge a form of Starlette: its texts stay, its files are closed."""
    upload = fields(sys.modules["starlette.datastructures"])["UploadFile"]
    if any(issubclass(type(item), upload) for _, item in value.multi_items()):
        return _UPLOAD._replace(what="a form with uploads")
    return None


def _stream(value: Any, _held: Held) -> Finding | None:
    """Judge an async generator: the one of Starlette's `request.stream()`."""
    request = fields(sys.modules.get("starlette.requests")).get("Request")
    stream = getattr(request, "stream", None)
    if stream is not None and value.ag_code is stream.__code__:
        return _BODY
    return None


_SESSION = Finding(
    "a SQLAlchemy session",
    "Usually it is the request's own: it is closed with the request, and the request "
    "may be using it at the same moment.",
    "Open one in the call: `with Session.begin() as session:`.",
)
_ASYNC_SESSION = _SESSION._replace(
    fix="Open one in the call: `async with Session.begin() as session:`."
)
_CONNECTION = Finding(
    "a database connection, or what reads from one",
    "Usually it is closed or goes back to its pool with the request, and somebody else "
    "may be using it then.",
    "Take a connection in the call, or pass what was read from it.",
)
_REQUEST = Finding(
    "the request",
    "Its body and its files end with it: in the call they are empty, closed or gone.",
    "Pass what the call needs: `request.url.path`.",
)
_WSGI_REQUEST = _REQUEST._replace(fix="Pass what the call needs: `request.path`.")
_WEBSOCKET = Finding(
    "the WebSocket",
    "It is closed when the call runs.",
    "Send before it closes, and pass what else the call needs.",
)
_BODY = Finding(
    "the stream of the request's body",
    "It ends with the request, read or not.",
    "Read it before the answer and pass the bytes.",
)
_UPLOAD = Finding(
    "an upload",
    "It is closed with the request, and the call finds a closed file.",
    "Read it before the answer and pass the bytes: `await {name}.read()`.",
)
_WSGI_UPLOAD = _UPLOAD._replace(
    fix="Read it before the answer and pass the bytes: `{name}.read()`."
)

# The types, each where its library offers it, subclasses included; one more is one
# line. Not here on purpose:
# - Django's models and query sets, Tortoise's and Peewee's models: what they lack they
#   load through the connection of whoever asks, which in a call is the call's own.
# - SQLAlchemy's scoped_session (Flask-SQLAlchemy's `db.session`): asked in the call, it
#   gives the session of the call.
# - connections that are as often the application's: sqlite3, aiosqlite, MySQL.
_TABLE: dict[str, Finding | Judge] = {
    "sqlalchemy.orm:Session": _SESSION,
    "sqlalchemy.ext.asyncio:AsyncSession": _ASYNC_SESSION,
    "sqlalchemy.engine:Connection": _CONNECTION,
    "sqlalchemy.engine:Result": _CONNECTION,
    "sqlalchemy.engine:FilterResult": _CONNECTION,
    "sqlalchemy.ext.asyncio:AsyncConnection": _CONNECTION,
    "pony.orm.core:Entity": _pony,
    "tortoise.backends.base.client:TransactionalDBClient": _CONNECTION,
    "psycopg:Connection": _CONNECTION,
    "psycopg:AsyncConnection": _CONNECTION,
    "psycopg:Cursor": _CONNECTION,
    "psycopg:AsyncCursor": _CONNECTION,
    "asyncpg.connection:Connection": _CONNECTION,
    "asyncpg.pool:PoolConnectionProxy": _CONNECTION,
    "asyncpg.cursor:Cursor": _CONNECTION,
    "django.utils.functional:SimpleLazyObject": _lazy,
    "django.http:HttpRequest": _wsgi_request,
    "django.core.files.uploadedfile:UploadedFile": _WSGI_UPLOAD,
    "django.db.backends.base.base:BaseDatabaseWrapper": _CONNECTION,
    "django.db.backends.utils:CursorWrapper": _CONNECTION,
    "starlette.websockets:WebSocket": _WEBSOCKET,
    "starlette.requests:Request": _asgi_request,
    "starlette.datastructures:UploadFile": _UPLOAD,
    "starlette.datastructures:FormData": _form,
    "types:AsyncGeneratorType": _stream,
    "litestar.connection:WebSocket": _WEBSOCKET,
    "litestar.connection:Request": _asgi_request,
    "litestar.datastructures:UploadFile": _UPLOAD,
    "werkzeug.local:LocalProxy": _proxy,
    "werkzeug.wrappers:Request": _wsgi_request,
    "werkzeug.datastructures:FileStorage": _WSGI_UPLOAD,
    "werkzeug.wsgi:LimitedStream": _BODY,
}
