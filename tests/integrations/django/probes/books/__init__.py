"""The Django application of the tests."""
