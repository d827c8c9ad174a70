"""A small shop that shows why ``defer`` exists: run it with ``python -m shop``.

Read ``fastapi_app.py`` (or ``flask_app.py``, ``django_app.py``) first: the same order
twice, once with a customer who waits for four side effects and once with one who does
not. ``README.md`` beside this file names the other pieces.
"""
