"""Code that runs after the response: `defer(fn)` for every Python web framework."""

from postlude._call import DeferredCall
from postlude._defer import (
    current_call,
    current_scope,
    defer,
    defer_all,
    forget,
    queue,
)
from postlude._outcome import Outcome
from postlude._process import drain
from postlude._reporting import failure_store
from postlude._scope import DeferScope
from postlude._settings import Settings, configure, settings
from postlude.exceptions import (
    ArgumentError,
    CallStartedError,
    NoQueueError,
    NoScopeError,
    NoScopeWarning,
    PostludeError,
    PostludeWarning,
    QueueError,
    QueueOptionError,
    RecordGoneError,
    RequestBoundWarning,
    ScopeEndedError,
    SettingsError,
    StatementError,
    StoreError,
    TooLateError,
    UncommittedError,
)
from postlude.transactions import transaction

__all__ = [
    "ArgumentError",
    "CallStartedError",
    "DeferScope",
    "DeferredCall",
    "NoQueueError",
    "NoScopeError",
    "NoScopeWarning",
    "Outcome",
    "PostludeError",
    "PostludeWarning",
    "QueueError",
    "QueueOptionError",
    "RecordGoneError",
    "RequestBoundWarning",
    "ScopeEndedError",
    "Settings",
    "SettingsError",
    "StatementError",
    "StoreError",
    "TooLateError",
    "UncommittedError",
    "configure",
    "current_call",
    "current_scope",
    "defer",
    "defer_all",
    "drain",
    "failure_store",
    "forget",
    "queue",
    "settings",
    "transaction",
]

__version__ = "0.1.0"
