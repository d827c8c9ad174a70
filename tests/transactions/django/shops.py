"""What these tests share: a database with books, and how a call may end."""

from books.models import Book
from django.db import connections, transaction

ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mariadb": "mysql"}


class NoError(Exception):
    """What a test raises to leave a block."""


class Shop:
    """A database with a table of books, under an alias of Django's."""

    def __init__(self, alias):
        """Take the alias."""
        self.alias = alias

    @property
    def connection(self):
        """This thread's connection."""
        return connections[self.alias]

    def atomic(self, **options):
        """Make a block."""
        return transaction.atomic(using=self.alias, **options)

    def write(self, title):
        """Add a book."""
        Book.objects.using(self.alias).create(title=title)

    def titles(self):
        """Give the titles that this thread sees."""
        books = Book.objects.using(self.alias).order_by("id")
        return list(books.values_list("title", flat=True))


def options_of(database):
    """Say where a database is, as Django's setting DATABASES does."""
    return {
        "ENGINE": f"django.db.backends.{ENGINES[database.kind]}",
        "NAME": database.name,
        "HOST": database.host,
        "PORT": database.port or "",
        "USER": database.user,
        "PASSWORD": database.password,
    }


def dropped(call, shop):
    """Tell whether a rollback of that database has dropped the call."""
    ended = (call.state, call.reason, call.rolled_back)
    return ended == ("dropped", "rollback", shop.alias)
