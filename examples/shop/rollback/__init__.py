"""An order whose transaction rolls back under a 200: ``python -m shop.rollback``.

Read ``fastapi_app.py`` (or ``flask_app.py``, ``django_app.py``) first.
"""
