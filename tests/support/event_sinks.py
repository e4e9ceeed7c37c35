"""An HTTP server that receives events, like an operator's metering system."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testkit.http_server import serving

PIECE_BYTES = 65_536


class Sink:
    """A real HTTP server. ``status`` returns its status code, or 0 to close the connection."""

    def __init__(self, port: int) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.status: Callable[[list[dict[str, Any]]], int] = lambda _: 204
        self.open = threading.Event()
        self.open.set()
        self.body = b""
        self.bytes_sent = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                batch = json.loads(self.rfile.read(int(self.headers["content-length"])))
                sink.headers.append({name.lower(): value for name, value in self.headers.items()})
                sink.batches.append(batch)
                sink.open.wait(30.0)
                status = sink.status(batch)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                if status != 204:
                    self.send_header("content-length", str(len(sink.body)))
                self.end_headers()
                for begin in range(0, len(sink.body), PIECE_BYTES):
                    self.wfile.write(sink.body[begin : begin + PIECE_BYTES])
                    sink.bytes_sent += PIECE_BYTES

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # Clients are killed in these tests.

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"

    @property
    def ids(self) -> list[str]:
        return [event["id"] for batch in self.batches for event in batch]


@contextmanager
def listening(port: int = 0) -> Iterator[Sink]:
    sink = Sink(port)
    with serving(sink.server):
        try:
            yield sink
        finally:
            sink.open.set()
