"""How gunicorn serves the shop; a release without one of these settings skips it."""

worker_class = "gthread"
workers = 1
threads = 8
loglevel = "warning"
# The shop needs no remote control, and two shops must not share one.
control_socket_disable = True
