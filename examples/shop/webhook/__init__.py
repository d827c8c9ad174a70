"""A webhook whose receiver fails now and then: ``python -m shop.webhook``.

Read ``fastapi_app.py`` (or ``flask_app.py``, ``django_app.py``) first, then
``delivery.py``.
"""
