"""The service for the trials, and the accounts that each client uses."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from sqlalchemy import text

from serve_app.access.api_keys import SCOPE_ADMIN
from serve_app.deployments.local_ray import free_port
from serve_app.ledger.money.rate_window import WINDOW_S
from testkit.service import Service, deployment, model, serve_config

WAIT_S = 5
"""Least ``Retry-After`` of the refusals for too many requests, if the wait is shortened."""

CREDIT = 10_000_000
TOKEN_PRICE = 1
"""Micro-dollars per token, which LiteLLM can charge, too. It has no price per document."""


class Charged(NamedTuple):
    """Sums over the charges of a tenant."""

    documents: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The keys of one client's tenants."""

    service: Service
    name: str
    paying: str
    poor: str
    """Without credit."""

    limited: str
    """With one request per minute."""

    unknown: str

    @property
    def address(self) -> str:
        return self.service.address

    def charged(self) -> Charged:
        """Return the sums of what the paying tenant was charged so far."""
        (row,) = self.service.rows(
            "SELECT coalesce(sum(documents), 0), coalesce(sum(tokens), 0) FROM charges"
            " WHERE tenant_id = (SELECT id FROM tenants WHERE name = :name)",
            name=f"{self.name} paying",
        )
        return Charged(*row)

    def reach_rate_limit(self, *, shortly: bool) -> None:
        """Use up the limit of requests for a minute, or for a few seconds."""
        body = {"query": "a", "documents": ["b"]}
        headers = {"Authorization": f"Bearer {self.limited}"}
        httpx.post(
            f"{self.address}/v1/rerank", json=body, headers=headers, timeout=60
        ).raise_for_status()
        if not shortly:
            return
        second = int(time.time()) - WINDOW_S + WAIT_S  # noqa: TID251 - the ledger uses wall time
        with self.service.database.begin() as connection:
            connection.execute(
                text(
                    "UPDATE rate_windows SET counts = :counts"
                    " WHERE subject = (SELECT id FROM tenants WHERE name = :name)"
                ),
                {"counts": f"[[{second}, 1, 1]]", "name": f"{self.name} limited"},
            )

    def refusals(self) -> int:
        """Return how often the limited key was refused so far because of its limit."""
        key_id = self.limited.split("_")[1]
        lines = [
            json.loads(line)
            for line in self.service.logs().splitlines()
            if key_id in line and '"rerank_request"' in line
        ]
        return sum(line["status"] == HTTPStatus.TOO_MANY_REQUESTS for line in lines)


class Administrator:
    """Creates the accounts of the clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._key = service.new_key("operators", scope=SCOPE_ADMIN)

    def accounts(self, name: str) -> Accounts:
        """Create the accounts of the client with this name."""
        return Accounts(
            self._service,
            name,
            paying=self._tenant(f"{name} paying", CREDIT),
            poor=self._tenant(f"{name} poor", 0),
            limited=self._tenant(f"{name} limited", CREDIT, {"requests_per_minute_max": 1}),
            unknown=self._service.key[:-8] + "0" * 8,
        )

    def _tenant(self, name: str, credit: int, limits: dict[str, int] | None = None) -> str:
        body: dict[str, Any] = {"name": name, "credit_micro_dollars": credit}
        if limits:
            body["limits"] = limits
        self._post("tenants", body)
        secret: str = self._post("keys", {"tenant": name})["secret"]
        return secret

    def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(
            f"{self._service.address}/admin/v1/{what}",
            json=body,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=60,
        )
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Service]:
    """Run the service with the model ``embedded`` and small limits during the block."""
    embedded = model(
        "embedded",
        "embedded",
        aliases=["fireworks/embedded"],
        price_micro_dollars_per_document=0,
        price_micro_dollars_per_million_tokens=1_000_000 * TOKEN_PRICE,
    )
    config = serve_config([embedded], deployment(1), **settings)
    service = Service.start(folder, config, free_port())
    try:
        yield service
    finally:
        assert service.stop() == 0
