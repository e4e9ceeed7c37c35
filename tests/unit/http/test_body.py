"""The body limit applies to the bytes that arrive; no body is read before authentication."""

import asyncio
from dataclasses import replace

import pytest

from serve_app.admission.gate import TENANTS_AT_LEAST
from serve_app.admission.refusals import REFUSALS_MAX
from serve_app.domain.errors import NoReplica
from serve_app.domain.units import Seconds
from serve_app.http.rerank import body
from serve_app.protocols.limits import Limits
from tests.support.app import BODY_BYTES_HELD_MAX, LIMITS, FakeApp
from tests.support.asgi import KEY, Exchange
from tests.support.fakes import FailingJobScorer, until

BODY = b'{"query": "blue", "documents": ["sky"]}'
LIMIT = LIMITS.body_bytes_max


def exchange(app: FakeApp, *chunks: bytes, **headers: str) -> Exchange:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    done = Exchange(chunks, KEY | sent)
    asyncio.run(done.run(app.asgi))
    return done


def test_a_body_in_many_chunks_is_read_to_its_end(app: FakeApp) -> None:
    done = exchange(app, *(bytes([byte]) for byte in BODY))

    assert done.status == 200


def test_a_body_of_exactly_the_limit_is_accepted(app: FakeApp) -> None:
    assert exchange(app, BODY.ljust(LIMIT)).status == 200
    assert exchange(app, BODY.ljust(LIMIT + 1)).status == 413


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 18, "9" * 5_000])
def test_a_too_long_content_length_is_refused_without_reading_the_body(
    app: FakeApp, length: str
) -> None:
    done = exchange(app, BODY, content_length=length)

    assert (done.status, done.answer["error"]["code"], done.read) == (413, "too_large", 0)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no length"),
        pytest.param({"content_length": "10"}, id="a false length"),
    ],
)
def test_reading_stops_when_a_body_exceeds_the_limit(app: FakeApp, headers: dict[str, str]) -> None:
    chunk = b" " * (LIMIT // 4)

    done = exchange(app, *[chunk] * 100, **headers)

    assert (done.status, done.answer["error"]["param"], done.read) == (413, "body", 5)


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "", "١٢"])
def test_a_length_that_is_not_a_number_is_refused(app: FakeApp, length: str) -> None:
    done = exchange(app, BODY, content_length=length)

    assert (done.status, done.read) == (400, 0)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_without_reading_it(app: FakeApp, encoding: str) -> None:
    done = exchange(app, BODY, content_encoding=encoding)

    assert (done.status, done.answer["error"]["param"]) == (415, "content-encoding")
    assert done.read == 0


def test_no_body_is_read_without_a_valid_key(app: FakeApp) -> None:
    done = exchange(app, BODY, authorization="Bearer rk-guess", content_length="x")

    assert (done.status, done.read) == (401, 0)


def test_a_disconnect_within_the_body_ends_the_request(app: FakeApp) -> None:
    async def half_a_body() -> Exchange:
        half = Exchange([BODY[:10]], complete=False)
        half.disconnect()
        await half.run(app.asgi)
        return half

    done = asyncio.run(half_a_body())

    assert done.status == 499
    assert app.codes() == ["client_gone"]
    assert app.ledger.pending == {}


def test_a_client_that_sends_too_slowly_runs_out_of_time() -> None:
    quick = Limits(20_000, 10, 60, Seconds(0.01), Seconds(1), Seconds(1))
    app = FakeApp(limits=quick)
    half = Exchange([BODY[:10]], complete=False)

    asyncio.run(half.run(app.asgi))

    assert (half.status, half.answer["error"]["code"]) == (504, "deadline_exceeded")
    app.close()


def test_a_slow_body_is_refused_before_the_request_times_out() -> None:
    patient = Limits(20_000, 10, 60, Seconds(30), Seconds(60), Seconds(0.05))
    app = FakeApp(limits=patient)
    half = Exchange([BODY[:10]], complete=False)

    asyncio.run(half.run(app.asgi))

    assert (half.status, half.answer["error"]["code"]) == (408, "body_timeout")
    assert "0.05 s" in half.answer["error"]["message"]
    assert app.ledger.log == []
    app.close()


def test_a_revoked_key_ends_a_request_whose_body_still_arrives(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "RECHECK_S", 0.01)
    half = Exchange([BODY[:10]], complete=False)

    async def revoked_half_way() -> None:
        sending = asyncio.create_task(half.run(app.asgi))
        await until(lambda: half.read == 1)
        monkeypatch.setattr("tests.support.app.KEYS", {})
        async with asyncio.timeout(5):
            await sending

    asyncio.run(revoked_half_way())

    assert half.status == 401


@pytest.mark.parametrize("ending", ["a disconnect", "a short deadline", "a body too large"])
def test_requests_without_an_answer_use_up_the_refusal_budget(ending: str) -> None:
    """Each costs as much as the bytes that arrived: 2 MB cost 20 refusals, plus one."""
    app = FakeApp(limits=replace(LIMITS, body_bytes_max=2_000_000, body_timeout_s=Seconds(5)))
    large = [b" " * 100_000] * (21 if ending == "a body too large" else 20)
    headers = KEY | ({"x-request-timeout-s": "0.1"} if ending == "a short deadline" else {})

    async def eleven() -> list[Exchange]:
        done = [Exchange(large, headers, complete=False) for _ in range(11)]
        for each in done:
            sending = asyncio.create_task(each.run(app.asgi))
            leaves = ending == "a disconnect"
            await until(lambda: sending.done() or (leaves and each.read == len(large)))  # noqa: B023
            each.disconnect()
            await sending
        return done

    *_, last = asyncio.run(eleven())

    assert (last.status, last.answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "refused recently" in last.answer["error"]["message"]
    app.close()


def test_an_internal_error_does_not_use_up_the_refusal_budget() -> None:
    app = FakeApp(scorer=FailingJobScorer(NoReplica("none there")))

    async def many() -> set[int]:
        done = [Exchange([BODY]) for _ in range(REFUSALS_MAX + 5)]
        for each in done:
            await each.run(app.asgi)
        return {each.status for each in done}

    assert asyncio.run(many()) == {503}
    app.close()


def test_requests_over_the_concurrency_limit_do_not_use_up_the_refusal_budget() -> None:
    app = FakeApp(places=16)

    async def flood() -> Exchange:
        slow = [Exchange([BODY[:10]], complete=False) for _ in range(REFUSALS_MAX + 10)]
        tasks = [asyncio.create_task(each.run(app.asgi)) for each in slow]
        await until(lambda: sum(task.done() for task in tasks) == len(tasks) - 2)
        other = Exchange([BODY], {"authorization": "Bearer rk-other-key"})
        await other.run(app.asgi)
        for each in slow:
            each.disconnect()
        await asyncio.gather(*tasks)
        return other

    assert asyncio.run(flood()).status == 200
    app.close()


def test_stalled_bodies_use_up_the_places_of_their_own_key_only() -> None:
    app = FakeApp(places=16)

    async def flood() -> tuple[list[Exchange], Exchange]:
        slow = [Exchange([BODY[:10]], complete=False) for _ in range(4)]
        tasks = [asyncio.create_task(each.run(app.asgi)) for each in slow]
        await until(lambda: sum(task.done() for task in tasks) == 2)
        other = Exchange([BODY], {"authorization": "Bearer rk-other-tenant"})
        await other.run(app.asgi)
        for each in slow:
            each.disconnect()
        await asyncio.gather(*tasks)
        return slow, other

    slow, other = asyncio.run(flood())

    assert other.status == 200
    assert sorted(each.status for each in slow) == [429, 429, 499, 499]
    refused = next(each for each in slow if each.status == 429)
    assert refused.read == 0
    assert refused.answer["error"]["code"] == "rate_limit_exceeded"
    assert "At most 2 concurrent requests of one key" in refused.answer["error"]["message"]
    app.close()


def test_bodies_of_a_tenant_over_its_refusal_budget_are_not_read(app: FakeApp) -> None:
    async def many() -> list[Exchange]:
        done = [Exchange([b"{}"]) for _ in range(REFUSALS_MAX + 5)]
        for each in done:
            await each.run(app.asgi)
        other = Exchange([BODY], {"authorization": "Bearer rk-other-tenant"})
        await other.run(app.asgi)
        return [*done, other]

    *refused, other = asyncio.run(many())

    assert [each.status for each in refused] == [400] * REFUSALS_MAX + [429] * 5
    assert [each.read for each in refused[-5:]] == [0] * 5
    assert "refused recently" in refused[-1].answer["error"]["message"]
    assert int(refused[-1].answer_headers["retry-after"]) == 1
    assert other.status == 200


def test_requests_without_a_length_hold_only_the_bytes_received(app: FakeApp) -> None:
    """Bodies of the maximum size would together exceed the tenant's part of the gate."""
    count = BODY_BYTES_HELD_MAX // TENANTS_AT_LEAST // LIMIT + 5

    async def together() -> list[int]:
        done = [Exchange([BODY], KEY) for _ in range(count)]
        await asyncio.gather(*(each.run(app.asgi) for each in done))
        return [each.status for each in done]

    assert asyncio.run(together()) == [200] * count
