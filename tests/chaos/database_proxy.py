"""A TCP relay between the gateways and PostgreSQL, which fails on request.

    gateway ──> DatabaseProxy ──> PostgreSQL

`cut` resets every connection. `cut_commits` relays the next COMMITs, but resets their connections
instead of relaying the answers: the COMMITs are durable, but the gateways do not know it. Until
`heal`, `refuse` resets all connections, including new ones, and `freeze` relays nothing.
"""

import socket
import struct
import threading
from collections.abc import Callable

COMMIT = b"COMMIT\0"
"""The statement COMMIT in a message of PostgreSQL's protocol."""

BYTES_MAX = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on with 0 s: closing sends RST, not FIN.
CONNECT_TIMEOUT_S = 5.0


class _Link:
    """One client's connection, and its connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.answer_is_lost = False
        self.tail = b""
        """The last bytes sent to the server, because a COMMIT may arrive in two pieces."""

        self.is_asked = False
        """Whether the client waits for an answer."""

    def reset(self) -> None:
        for end in (self.client, self.server):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)  # Wakes the thread that reads from the socket.
            except OSError:
                pass  # The socket is closed already.
            finally:
                end.close()


class DatabaseProxy:
    """A relay for one server, on a free port of 127.0.0.1. Call `close` after use."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self.questions = 0
        """Number of times that a client waited for the server."""

        self._commits_to_cut = 0
        self._on_commit: Callable[[], None] = _nothing
        _start(self._accept)

    def cut(self) -> None:
        """Reset every connection, but accept new ones."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()

    def cut_commits(self, count: int, on_commit: Callable[[], None] = lambda: None) -> None:
        """Drop the answers to the next ``count`` COMMITs and reset their connections.

        ``on_commit`` is called after the server's answer, before the connection is reset.
        """
        with self._lock:
            self._commits_to_cut, self._on_commit = count, on_commit

    def commits_left_to_cut(self) -> int:
        """Return how many of these COMMITs are still to come."""
        with self._lock:
            return self._commits_to_cut

    def refuse(self) -> None:
        """Reset every connection, and each new one."""
        self._refusing = True
        self.cut()

    def freeze(self) -> None:
        """Relay nothing, as if the network lost every packet."""
        self._flowing.clear()

    def heal(self) -> None:
        """Relay normally again."""
        self._refusing = False
        self._flowing.set()
        self.cut_commits(0)

    def close(self) -> None:
        self._listener.close()
        self.refuse()
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # Closed.
            try:
                server = socket.create_connection(
                    ("127.0.0.1", self._server_port), CONNECT_TIMEOUT_S
                )
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            if self._refusing:
                self.cut()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _start(self._to_server, link)
            _start(self._to_client, link)

    def _to_server(self, link: _Link) -> None:
        def note_commit(data: bytes) -> bool:
            with self._lock:
                self.questions += not link.is_asked
                link.is_asked = True
                sent, link.tail = link.tail + data, data[-len(COMMIT) + 1 :]
                if COMMIT in sent and self._commits_to_cut > 0:
                    self._commits_to_cut -= 1
                    link.answer_is_lost = True
            return True

        self._relay(link, link.client, link.server, note_commit)

    def _to_client(self, link: _Link) -> None:
        def may_pass(_: bytes) -> bool:
            link.is_asked = False
            if link.answer_is_lost:
                self._on_commit()
            return not link.answer_is_lost

        self._relay(link, link.server, link.client, may_pass)

    def _relay(
        self,
        link: _Link,
        source: socket.socket,
        target: socket.socket,
        may_pass: Callable[[bytes], bool],
    ) -> None:
        try:
            while data := source.recv(BYTES_MAX):
                self._flowing.wait()
                if not may_pass(data):
                    break
                target.sendall(data)
        except OSError:
            pass  # One end closed the connection, or `cut` reset it.
        with self._lock:
            self._links.discard(link)
        link.reset()


def _nothing() -> None:
    """The default of ``on_commit``: do nothing."""


def _start(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()
