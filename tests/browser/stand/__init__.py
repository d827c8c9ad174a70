"""What the browser tests stand on: servers, a browser, and what it saw."""

from stand.browsing import SHOTS, Watch, chromium, clean_of_axe
from stand.serving import Shop, free_port, start

__all__ = ["SHOTS", "Shop", "Watch", "chromium", "clean_of_axe", "free_port", "start"]
