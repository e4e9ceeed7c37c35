"""The costs that LiteLLM's proxy logs equal the charges of the service."""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from testkit.log_leaks import DOCUMENT_MARKER
from testkit.service import wait_for
from tests.clients.accounts import Administrator
from tests.clients.catalogue import CLIENTS
from tests.clients.trials import conversation_with

REQUESTS = 200
MICRO = 1_000_000


def check_costs(administrator: Administrator) -> None:
    """Send requests of different sizes, and compare the log with the charges."""
    (proxy,) = (client for client in CLIENTS if client.script == "litellm_proxy.py:proxy")
    accounts = administrator.accounts("costs")
    refused = 0
    with conversation_with(proxy, accounts.address) as conversation:
        for number, (documents, top_n) in enumerate(_requests()):
            key = accounts.poor if number % 10 == 9 else accounts.paying
            reply = conversation.call(key, documents, top_n)
            if "error" in reply:
                refused += 1
            else:
                log = Path(reply["log"])
        answered = REQUESTS - refused
        assert refused == REQUESTS // 10
        wait_for(lambda: len(_logged(log)) >= answered, what="the log of the last cost")
        logged = [int(MICRO * cost) for cost in _logged(log)]

    charges = [
        row.amount
        for row in accounts.service.rows(
            "SELECT amount FROM charges"
            " WHERE tenant_id = (SELECT id FROM tenants WHERE name = 'costs paying')"
        )
    ]
    assert len(charges) == answered
    assert sorted(logged) == sorted(charges)


def _requests() -> Iterator[tuple[list[str], int]]:
    """Yield documents, and the number of results."""
    source = random.Random(7)
    for _ in range(REQUESTS):
        documents = [
            DOCUMENT_MARKER + " word" * source.choice((0, 1, 20, 300))
            for _ in range(source.choice((1, 2, 5, 20)))
        ]
        yield documents, source.randint(1, len(documents))


def _logged(log: Path) -> list[Decimal]:
    """Return the logged costs in dollars; a cost of ``1e-06`` may be logged as ``9.99...e-07``."""
    return [
        Decimal(json.loads(line)).quantize(Decimal("1e-9")) for line in log.read_text().splitlines()
    ]
