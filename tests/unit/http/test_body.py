"""The body's limit holds for the bytes that arrive, and nobody is read before he is known."""

import asyncio

import pytest

from serve_app.admission import TENANTS_AT_LEAST
from serve_app.domain.units import Seconds
from serve_app.protocols.limits import Limits
from tests.contract.house import BODY_BYTES_HELD_MAX, LIMITS, House
from tests.unit.http.asgi import KEY, Exchange

BODY = b'{"query": "blue", "documents": ["sky"]}'
LIMIT = LIMITS.body_bytes_max


def exchange(house: House, *chunks: bytes, **headers: str) -> Exchange:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    done = Exchange(chunks, KEY | sent)
    asyncio.run(done.run(house.app))
    return done


def test_a_body_in_many_chunks_is_read_to_its_end(house: House) -> None:
    done = exchange(house, *(bytes([byte]) for byte in BODY))

    assert done.status == 200


def test_a_body_of_just_the_limit_is_accepted(house: House) -> None:
    assert exchange(house, BODY.ljust(LIMIT)).status == 200
    assert exchange(house, BODY.ljust(LIMIT + 1)).status == 413


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 18, "9" * 5_000])
def test_a_body_announced_too_long_is_refused_unread(house: House, length: str) -> None:
    done = exchange(house, BODY, content_length=length)

    assert (done.status, done.answer["error"]["code"], done.read) == (413, "too_large", 0)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no length"),
        pytest.param({"content_length": "10"}, id="a false length"),
    ],
)
def test_a_body_that_grows_too_long_is_read_no_further(
    house: House, headers: dict[str, str]
) -> None:
    chunk = b" " * (LIMIT // 4)

    done = exchange(house, *[chunk] * 100, **headers)

    assert (done.status, done.answer["error"]["param"], done.read) == (413, "body", 5)


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "", "١٢"])
def test_a_length_that_is_no_number_is_refused(house: House, length: str) -> None:
    done = exchange(house, BODY, content_length=length)

    assert (done.status, done.read) == (400, 0)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_unread(house: House, encoding: str) -> None:
    done = exchange(house, BODY, content_encoding=encoding)

    assert (done.status, done.answer["error"]["param"]) == (400, "content-encoding")
    assert done.read == 0


def test_nothing_of_a_stranger_is_read(house: House) -> None:
    done = exchange(house, BODY, authorization="Bearer rk-guess", content_length="x")

    assert (done.status, done.read) == (401, 0)


def test_a_client_that_hangs_up_half_way_is_gone(house: House) -> None:
    async def half_a_body() -> Exchange:
        half = Exchange([BODY[:10]], complete=False)
        half.hang_up()
        await half.run(house.app)
        return half

    done = asyncio.run(half_a_body())

    assert done.status == 499
    assert house.codes() == ["client_gone"]
    assert house.ledger.pending == {}


def test_a_client_that_sends_too_slowly_runs_out_of_time() -> None:
    quick = Limits(20_000, 10, 60, Seconds(0.01), Seconds(1))
    house = House(limits=quick)
    half = Exchange([BODY[:10]], complete=False)

    asyncio.run(half.run(house.app))

    assert (half.status, half.answer["error"]["code"]) == (504, "deadline_exceeded")
    house.close()


def test_requests_that_do_not_tell_their_size_hold_only_what_they_sent(house: House) -> None:
    """Each might have been of the limit; together they would be too much for one tenant."""
    count = BODY_BYTES_HELD_MAX // TENANTS_AT_LEAST // LIMIT + 5

    async def together() -> list[int]:
        done = [Exchange([BODY], KEY) for _ in range(count)]
        await asyncio.gather(*(each.run(house.app) for each in done))
        return [each.status for each in done]

    assert asyncio.run(together()) == [200] * count
