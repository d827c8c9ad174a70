"""The settings of the Django project under test on servers."""

SECRET_KEY = "-" * 50
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop_views"
MIDDLEWARE = ["postlude.integrations.django.PostludeMiddleware"]
WSGI_APPLICATION = None
USE_TZ = True
POSTLUDE = {"GRACE": 3600}
