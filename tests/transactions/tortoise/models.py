"""What the tests of Tortoise write to; it wants its models in a module of their own."""

from tortoise import Model, fields


class Order(Model):
    """An order; its name is its own."""

    id = fields.IntField(primary_key=True)
    name = fields.CharField(40, unique=True)
