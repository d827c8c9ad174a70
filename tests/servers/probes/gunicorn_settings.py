"""What gunicorn is told by name: an option of a later version is no error here."""

control_socket_disable = True
