"""What the dashboard's tests share: calls to run again, records, visitors."""

from desk.records import SITE, record, tally
from desk.visiting import Page, Visitor, over_asgi, over_wsgi

__all__ = ["SITE", "Page", "Visitor", "over_asgi", "over_wsgi", "record", "tally"]
