from django.db import models


class Book(models.Model):
    """What the views and calls of the tests read and write."""

    title = models.CharField(max_length=100)

    class Meta:
        """Say whose model it is."""

        app_label = "books"

    def __str__(self) -> str:
        return self.title
