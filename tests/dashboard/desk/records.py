"""Records and numbers, as stores keep them."""

import time

from desk import chores
from postlude import _codec
from postlude.failures import FailureRecord, Tally

SITE = "/srv/shop/orders.py:88 in create_order"


def record(one="a" * 32, fn=chores.work, **other):
    """Give a record of a failed call of *fn*."""
    now = time.time()
    fields = {
        "id": one,
        "name": f"{fn.__module__}:{fn.__qualname__}",
        "function": f"{fn.__module__}:{fn.__qualname__}",
        "arguments": {"key": "'x'"},
        "state": "failed",
        "unit": {
            "method": "POST",
            "route": "/orders",
            "path": "/orders",
            "status": 201,
            "request_id": "req-7",
        },
        "site": SITE,
        "exception": "ConnectionRefusedError('mail server away')",
        "traceback": "Traceback (most recent call last):\n  File ...\nBoom: no\n",
        "started": now - 1.3,
        "ended": now - 1,
        "payload": _codec.encode(fn, ("x",), {}, 1_000),
        "host": "web-1",
        "pid": 4242,
    }
    return FailureRecord(**{**fields, **other})


def tally(kind, label="", count=1, total=0.0, **other):
    """Give numbers of this minute."""
    fields = {"function": "shop:mail", "route": "POST /orders", **other}
    minute = fields.pop("minute", int(time.time() // 60))
    return Tally(minute, kind, fields["function"], fields["route"], label, count, total)
