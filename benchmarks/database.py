"""`python -m benchmarks.database PORT`: answers every question after 5 ms.

The order's own work. It waits on a socket, as a query does, and not on a timer of its
loop: uvloop's count whole milliseconds, and would round the customer's wait.
"""

import socketserver
import sys
import time

QUERY_SECONDS = 0.005


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer one query after the other, each a line."""
        while line := self.rfile.readline():
            time.sleep(QUERY_SECONDS)
            self.wfile.write(line)


class Database(socketserver.ThreadingTCPServer):
    """A thread per connection; none outlives the process."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Database(("127.0.0.1", int(sys.argv[1])), Session) as database:
        database.serve_forever()
