"""A tenant that guesses the ids of another tenant learns nothing and changes nothing."""

import asyncio
import random
import string
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import select

from serve_app.access.api_keys import ID_CHARACTERS, SCOPE_ADMIN, SCOPE_MANAGE, SCOPE_RERANK
from serve_app.ledger.db.engines import reading
from serve_app.ledger.db.tables import metadata
from tests.support.ledger_app import TIMEOUT_S, LedgerApp

IDS = 1_000
LETTERS = string.digits + string.ascii_lowercase
CHANGES = (
    ("PATCH", "", {"label": "taken", "limits": {"requests_per_minute_max": 0}}),
    ("POST", "/rotate", {"overlap_s": 0}),
    ("POST", "/revoke", None),
)


@pytest.fixture
def app(database_url: str) -> Iterator[LedgerApp]:
    built = LedgerApp(database_url)
    yield built
    built.close()


def neighbours(key_id: str, numbers: random.Random) -> Iterator[str]:
    """Yield ids that differ from ``key_id`` in a character, and parts and variants of it."""
    yield key_id
    while True:
        place = numbers.randrange(len(key_id))
        yield key_id[:place] + numbers.choice(LETTERS) + key_id[place + 1 :]
        yield "".join(numbers.choices(LETTERS, k=ID_CHARACTERS))
        yield numbers.choice(
            [
                key_id.upper(),
                key_id[:-1],
                f"{key_id}%20",
                f"{key_id}%00",
                f"rk_{key_id}_",
                f"{key_id}' or '1'='1",
                "%25",
                "_" * ID_CHARACTERS,
            ]
        )


def rows(database_url: str) -> list[list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with reading(database_url, TIMEOUT_S) as connection:
        return [
            [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        ]


async def guess(
    app: LedgerApp, key: str, ids: list[str], hidden: set[str]
) -> dict[tuple[str, int], int]:
    """Send requests for all ``ids``; return the number of answers by method and status."""
    counts: dict[tuple[str, int], int] = {}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app.asgi),
        base_url="http://test",
        headers={"authorization": f"Bearer {key}"},
    ) as client:
        for number, key_id in enumerate(ids):
            for method, path, body in (("GET", "", None), CHANGES[number % len(CHANGES)]):
                answer = await client.request(method, f"/v1/keys/{key_id}{path}", json=body)
                assert answer.status_code in (400, 404), answer.text
                sent = key_id.lower()
                assert not [word for word in hidden if word not in sent and word in answer.text]
                if answer.status_code == 404 and "%" not in key_id:
                    # The same answer whether another tenant has the id or no tenant has it.
                    message = f"There is no key '{key_id}'. Nothing was charged."
                    assert answer.json()["message"] == message
                place = (method, answer.status_code)
                counts[place] = counts.get(place, 0) + 1
    return counts


@pytest.mark.slow
def test_a_thousand_guessed_ids_leak_and_write_nothing(app: LedgerApp) -> None:
    _, manager = app.add_key(app.tenant, SCOPE_MANAGE, SCOPE_RERANK)
    bolt = app.add_tenant("bolt-limited", 77_777)
    scopes = (SCOPE_RERANK, SCOPE_MANAGE, SCOPE_ADMIN, SCOPE_RERANK, SCOPE_RERANK)
    theirs = {app.add_key(bolt, scope)[0]: app for scope in scopes}
    numbers = random.Random(23)
    sources = [neighbours(key_id, numbers) for key_id in (*theirs, bolt)]
    ids = [next(sources[number % len(sources)]) for number in range(IDS)]
    before = rows(app.database_url)

    counts = asyncio.run(guess(app, manager, ids, {*theirs, bolt, "bolt-limited", "77777"}))

    assert sum(counts.values()) == 2 * IDS
    assert counts["GET", 404] > 0.9 * IDS
    assert rows(app.database_url) == before


def test_reports_have_nothing_of_another_tenant(app: LedgerApp) -> None:
    _, manager = app.add_key(app.tenant, SCOPE_MANAGE)
    bolt = app.add_tenant("bolt-limited", 77_777)
    key_id, key = app.add_key(bolt, SCOPE_RERANK, SCOPE_MANAGE)
    app.add_key(bolt, SCOPE_RERANK)
    for number, owner in enumerate([(app.tenant, app.key_id), (bolt, key_id)]):
        app.settle(f"r{number}", 1_000_000, of=owner)
    foreign = {app.tenant: (bolt, key_id, "bolt-limited"), bolt: (app.tenant, app.key_id, "acme")}
    cursor = app.get("/v1/keys?limit=1", key=key).json()["next_cursor"]

    for tenant, sent in ((app.tenant, manager), (bolt, key)):
        for path in (
            "/v1/key",
            "/v1/keys",
            f"/v1/keys?cursor={cursor}",
            "/v1/credits",
            "/v1/audit-log",
            "/v1/usage?group_by=day,model,key",
            "/v1/statements/1970-01",
            "/v1/statements/1970-01?format=csv",
            "/v1/statements/1970-01?format=html",
        ):
            answer = app.get(path, key=sent)
            assert answer.status_code == 200, answer.text
            assert not [word for word in foreign[tenant] if word in answer.text], path
