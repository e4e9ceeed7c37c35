"""Run an HTTP server of the standard library in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer

POLL_S = 0.01


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Run ``server`` on a thread during the block, and close it afterwards."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
