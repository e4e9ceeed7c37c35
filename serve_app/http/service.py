"""Dependencies of the HTTP layer."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from serve_app.admission.gate import SharedGate
from serve_app.admission.places import Places
from serve_app.admission.refusals import RefusalBudget
from serve_app.domain.clock import Clock
from serve_app.domain.load import ServiceLoad
from serve_app.domain.model_card import ModelCard, Readiness
from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import Credits, RequestId
from serve_app.http.request_ids import random_request_id
from serve_app.ledger.db.engines import Connection
from serve_app.pipeline import Pipeline
from serve_app.ports import Access
from serve_app.protocols.limits import Limits
from serve_app.telemetry.logs import Emit
from serve_app.telemetry.metrics import Metrics
from serve_app.telemetry.recent import RecentCodes
from serve_app.telemetry.traces import Traces

T = TypeVar("T")


class Office(Protocol):
    """Ledger access for reports and account changes."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` on one snapshot.

        Raises: LedgerUnavailable, and any exception of ``query``.
        """

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run ``change`` and return its result once it is durable; an exception undoes it.

        Raises: LedgerUnavailable (the change may be durable; check before a retry), and any
        exception of ``change``.
        """


class Catalogue(Protocol):
    """The served models. The methods are called often and must be cheap."""

    async def cards(self) -> tuple[ModelCard, ...]:
        """Return every model, the default first."""

    async def readiness(self) -> Readiness:
        """Return whether a request would be answered now."""


class Monitor(Protocol):
    """The load of the installation."""

    async def load(self) -> ServiceLoad:
        """Return the load of every model of the catalogue."""


@dataclass(frozen=True, slots=True)
class Service:
    """Objects that the endpoints share."""

    pipeline: Pipeline
    access: Access
    catalogue: Catalogue
    office: Office
    clock: Clock
    metrics: Metrics
    limits: Limits
    parsers: Executor
    """Threads for large bodies and answers, which would block the event loop."""

    body_gate: SharedGate
    """Limits the bytes of bodies held before they are parsed."""

    places: Places

    report_places: Places
    """Places of tenants' own reports that wait for or read the database."""

    change_places: Places
    """Separate places of tenants' changes of their own keys, so that reports cannot prevent a
    revocation."""

    refusal_budget: RefusalBudget

    model_names: ModelNames

    monitor: Monitor
    recent_codes: RecentCodes
    free_credit: Credits
    """Credit of a new tenant unless the operator names an amount."""

    log: Emit
    traces: Traces
    new_request_id: Callable[[], RequestId] = random_request_id
    cors_allowed_origins: Sequence[str] = ()
    server_names_answers: bool = False
    """Whether the server adds ``x-request-id`` itself."""
