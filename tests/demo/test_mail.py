from email import policy

import pytest

from shop.customers import NAMES
from shop.mail import body, confirmation, order_number, parse
from shop.orders import Order, OrderLine, Product, euros


def order(name):
    """Return an order of two lines that no database has seen."""
    cup = Product(sku="cup", title="Cup <fine>", cents=1650)
    tea = Product(sku="tea", title="Sencha 煎茶", cents=1290)
    return Order(
        id=42,
        name=name,
        email="customer@example.org",
        lines=[
            OrderLine(product=cup, quantity=2, cents=1650),
            OrderLine(product=tea, quantity=1, cents=1290),
        ],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_arrives_as_it_was_written(name):
    """The mail of any customer survives the wire: name, number, lines and total."""
    raw = confirmation(order(name)).as_bytes(policy=policy.SMTP)
    message = parse(raw)
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == (name, "customer@example.org")
    assert order_number(message) == 42
    text = body(message, "plain")
    assert f"Dear {name}," in text
    assert "2 × Cup <fine>" in text
    assert "€ 33.00" in text
    assert "Total: € 45.90" in text


def test_html_is_escaped():
    """What a customer or a product is called never becomes markup."""
    html = body(confirmation(order("<b>Zoë</b>")), "html")
    assert "&lt;b&gt;Zoë&lt;/b&gt;" in html
    assert "Cup &lt;fine&gt;" in html


def test_a_mail_without_a_number_is_nobodys():
    """A mail whose subject names no order belongs to order 0, which does not exist."""
    assert order_number(parse(b"Subject: hello\r\n\r\n")) == 0


def test_amounts():
    """Cents are written as euros with two decimals."""
    assert [euros(5), euros(1650), euros(123456)] == ["€ 0.05", "€ 16.50", "€ 1,234.56"]
