"""An HTTP/2 client that can leave a request's body unfinished."""

import socket
import ssl
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

READ_BYTES = 65_536


class Http2Connection:
    """A connection for one thread. ``timeout_s`` limits every wait."""

    def __init__(
        self, address: str, timeout_s: float = 5.0, trust: ssl.SSLContext | None = None
    ) -> None:
        """Connect to ``http://HOST:PORT`` and use HTTP/2 without negotiation.

        With ``trust``, the connection uses TLS, and its protocols must include ``h2``.
        """
        where = urlsplit(address)
        self._authority = where.netloc
        self._socket = socket.create_connection((where.hostname, where.port or 80), timeout_s)
        if trust is not None:
            self._socket = trust.wrap_socket(self._socket, server_hostname=where.hostname)
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._state.initiate_connection()
        self._flush()
        self._responses: dict[int, tuple[int, bytes]] = {}
        self._ended: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        complete: bool = True,
    ) -> int:
        """Send a request and return its stream id. Without ``complete``, the body stays open."""
        stream = self._state.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":path", path),
            (":scheme", "http"),
            (":authority", self._authority),
        ]
        self._state.send_headers(
            stream, [*pseudo, *headers.items()], end_stream=complete and not body
        )
        if body:
            self._state.send_data(stream, body, end_stream=complete)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes) -> None:
        """Send more of a body that stays open."""
        self._state.send_data(stream, data)
        self._flush()

    def response(self, stream: int) -> tuple[int, bytes]:
        """Return the status and body of the response on ``stream``.

        Raises:
            ConnectionError: The server closed the connection or reset the stream.
            TimeoutError: There was no response in time.
        """
        while stream not in self._ended:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            for event in self._state.receive_data(data):
                self._take(event)
            self._flush()
        return self._responses[stream]

    def end_early(self, stream: int) -> None:
        """End a request's body before its announced length, which HTTP/2 forbids."""
        end_of_data = b"\0\0\0\0\1"  # An empty DATA frame with the flag END_STREAM.
        self._socket.sendall(end_of_data + stream.to_bytes(4, "big"))

    def reset(self, stream: int) -> None:
        """Give up a request."""
        self._state.reset_stream(stream)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            assert event.headers is not None
            status = int(dict(event.headers)[b":status"])
            self._responses[event.stream_id or 0] = (status, b"")
        elif isinstance(event, h2.events.DataReceived):
            stream = event.stream_id or 0
            status, body = self._responses[stream]
            self._responses[stream] = (status, body + (event.data or b""))
            self._state.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._ended.add(event.stream_id or 0)
        elif isinstance(event, h2.events.StreamReset):
            if event.stream_id in self._responses:  # The response came first.
                self._ended.add(event.stream_id)
            else:
                raise ConnectionError(f"stream {event.stream_id} was reset")
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise ConnectionError("the server ended the connection")

    def _flush(self) -> None:
        self._socket.sendall(self._state.data_to_send())
