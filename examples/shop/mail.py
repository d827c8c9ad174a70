"""The confirmation mail: rendered for the customer, and read back by the runner."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import formataddr, make_msgid
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from shop.orders import Order, Placed, euros

SENDER = "The Shop <orders@shop.example>"
RAW = "latin-1"
"""How raw mails travel in JSON: each of the 256 bytes is one character, and back."""


@cache
def templates() -> Environment:
    """Return the templates; HTML is escaped, plain text is not."""
    environment = Environment(
        loader=PackageLoader("shop"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["euros"] = euros
    return environment


def confirmation(order: Order | Placed) -> EmailMessage:
    """Render the mail that confirms an order, as plain text and as HTML."""
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = formataddr((order.name, order.email))
    message["Subject"] = f"Your order #{order.id}"
    message["Message-ID"] = make_msgid(f"order-{order.id}", domain="shop.example")
    for part, add in (
        ("confirmation.txt.j2", message.set_content),
        ("confirmation.html.j2", message.add_alternative),
    ):
        subtype = "html" if ".html" in part else "plain"
        add(templates().get_template(part).render(order=order), subtype=subtype)
    return message


def parse(raw: bytes) -> EmailMessage:
    """Read a mail as a mail program would."""
    return message_from_bytes(raw, policy=policy.default)


def order_number(message: EmailMessage) -> int:
    """Return the order a mail confirms, 0 when its subject names none."""
    _, _, number = str(message["Subject"]).rpartition("#")
    return int(number) if number.isdecimal() else 0


def body(message: EmailMessage, subtype: str) -> str:
    """Return the text of a mail's part, "plain" or "html"."""
    part = message.get_body((subtype,))
    return "" if part is None else str(part.get_content())
