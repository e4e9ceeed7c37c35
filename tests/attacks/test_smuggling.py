"""A request whose length can be read in two ways does not affect other clients.

HAProxy and the gateway would disagree about where such a request ends. The rest of it would then be
read as the beginning of another client's request.
"""

import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from testkit.service import Service
from tests.attacks.conftest import everything_answers
from tests.attacks.http2 import Http2Connection
from tests.attacks.test_answers import check_other_clients

pytestmark = pytest.mark.ray

HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: x\r\nx-rest: "
CHUNKED = b"0\r\n\r\n" + HIDDEN
RESETS = 2_000

AMBIGUOUS: dict[str, tuple[bytes, bytes]] = {
    "a length and chunks": (b"content-length: 4\r\ntransfer-encoding: chunked", CHUNKED),
    "chunks and a length": (b"transfer-encoding: chunked\r\ncontent-length: 100", CHUNKED),
    "two lengths": (b"content-length: 0\r\ncontent-length: 60", HIDDEN),
    "a list of lengths": (b"content-length: 0, 60", HIDDEN),
    "a length with a sign": (b"content-length: +0", HIDDEN),
    "a negative length": (b"content-length: -1", HIDDEN),
    "a length in hexadecimal digits": (b"content-length: 0x0", HIDDEN),
    "a length beyond 64 bits": (b"content-length: 18446744073709551616", HIDDEN),
    "a space before the colon": (b"transfer-encoding : chunked\r\ncontent-length: 4", CHUNKED),
    "an underscore": (b"transfer_encoding: chunked\r\ncontent-length: 4", CHUNKED),
    "an unknown coding": (b"transfer-encoding: xchunked\r\ncontent-length: 4", CHUNKED),
    "two codings": (b"transfer-encoding: chunked, identity\r\ncontent-length: 4", CHUNKED),
    "a coding twice": (b"transfer-encoding: chunked\r\ntransfer-encoding: identity", CHUNKED),
    "a tab before the coding": (b"transfer-encoding:\x0bchunked\r\ncontent-length: 4", CHUNKED),
    "a folded header": (b"transfer-encoding:\r\n chunked\r\ncontent-length: 4", CHUNKED),
    "a line without carriage return": (b"x: y\ntransfer-encoding: chunked", CHUNKED),
    "a chunk beyond 64 bits": (b"transfer-encoding: chunked", b"10000000000000000\r\n" + HIDDEN),
    "a chunk with a sign": (b"transfer-encoding: chunked", b"-1\r\n" + HIDDEN),
    "a chunk whose end is missing": (b"transfer-encoding: chunked", b"1\r\nxx0\r\n\r\n" + HIDDEN),
    "a trailer with a length": (b"transfer-encoding: chunked", b"0\r\ncontent-length: 60\r\n\r\n"),
    "a null byte": (b"x: a\0b\r\ncontent-length: 0", HIDDEN),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_length_does_not_affect_other_clients(service: Service, case: str) -> None:
    headers, body = AMBIGUOUS[case]
    request = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n\r\n" + body
    where = urlsplit(service.address)

    for _ in range(3):
        with socket.create_connection((where.hostname, where.port or 80), 5) as connection:
            connection.sendall(request)
            assert connection.recv(65_536).split()[1] in (b"400", b"401")
            check_other_clients(service)
    check_other_clients(service)


def test_a_length_that_http2_contradicts_does_not_affect_other_clients(service: Service) -> None:
    for headers in ({"content-length": "0"}, {"content-length": "5"}):
        with suppress(ConnectionError), Http2Connection(service.address) as connection:
            connection.response(connection.request("POST", "/v1/rerank", headers, HIDDEN))
        check_other_clients(service)


def test_thousands_of_reset_requests_do_not_affect_other_clients(service: Service) -> None:
    """The server may start all of them before it reads that the client gave them up.

    The attacker has a tenant of its own: the requests use up its budget of refused requests.
    """
    before = service.charges()
    attacker = service.new_key("resets")
    headers = {"authorization": f"Bearer {attacker}", "content-type": "application/json"}
    with suppress(ConnectionError), Http2Connection(service.address, timeout_s=30) as connection:
        for _ in range(RESETS):
            stream = connection.request("POST", "/v1/rerank", headers, b"{", complete=False)
            connection.reset(stream)

    check_other_clients(service)
    everything_answers(service)
    assert service.charges() == before + 1
