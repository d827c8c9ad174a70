"""What the tests of the core share: units of every kind, calls of every form."""

from stage.servers import Answer, ASGIServer, answering, replying, visit
from stage.units import FORMS, UNITS, Boom
from stage.waiting import PATIENCE, Gate, Listener, settle

__all__ = [
    "FORMS",
    "PATIENCE",
    "UNITS",
    "ASGIServer",
    "Answer",
    "Boom",
    "Gate",
    "Listener",
    "answering",
    "replying",
    "settle",
    "visit",
]
