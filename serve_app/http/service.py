"""What the HTTP room needs from the house, held together; the composition root fills it in."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from serve_app.admission.gate import SharedGate
from serve_app.admission.places import Places
from serve_app.admission.refusals import RefusalBudget
from serve_app.domain.model import EMBEDDED, ModelCard, Readiness
from serve_app.domain.units import Credits, ModelId, RequestId
from serve_app.ledger.database import Connection
from serve_app.pipeline import Pipeline
from serve_app.protocols.limits import Limits
from serve_app.telemetry.logs import Emit

T = TypeVar("T")


class Office(Protocol):
    """The ledger for reports and for changes of accounts, apart from the requests' own path."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What ``query`` finds; each of its statements sees what was committed when it began.

        Raises: LedgerUnavailable, and whatever ``query`` raises.
        """

    async def write(self, change: Callable[[Connection], T]) -> T:
        """What ``change`` answers, once it is durable; nothing is changed if it raises.

        Raises: LedgerUnavailable (then look whether it was done before it is tried again), and
            whatever ``change`` raises.
        """


class Catalogue(Protocol):
    """What is served, and whether it answers. Both are asked often: keep them cheap."""

    async def cards(self) -> tuple[ModelCard, ...]:
        """Every model; the first is the default."""

    async def readiness(self) -> Readiness:
        """Whether a rerank request would be answered now."""


def random_request_id() -> RequestId:
    """Unique without any coordination: 122 random bits."""
    return RequestId(f"rr_{uuid.uuid4().hex}")


@dataclass(frozen=True, slots=True)
class Service:
    """Built once per gateway replica."""

    pipeline: Pipeline
    catalogue: Catalogue
    office: Office
    limits: Limits
    body_gate: SharedGate
    """Bounds the bytes of bodies held at once, before anything is known of them."""

    places: Places
    """Bounds the requests that are read and worked on at once."""

    report_places: Places
    """Bounds the tenants' own reports that wait for the database or read it."""

    refusal_budget: RefusalBudget
    """Bounds the work for requests that are then refused."""

    default_model: ModelId
    aliases: Mapping[str, ModelId]
    """The models' other names."""

    free_credit: Credits
    """What a new tenant is granted unless its operator names an amount."""

    log: Emit
    new_request_id: Callable[[], RequestId] = random_request_id
    server_names_answers: bool = False
    """Whether the server around the application puts ``x-request-id`` on answers itself."""

    def resolve_model(self, name: str | None) -> ModelId:
        """The id of the model that ``name``, an id or an alias, stands for.

        ``None`` stands for the default model, and so does ``embedded`` unless it is a model's id.
        A name that is neither an id nor an alias is returned as it is.
        """
        if name is None or (name == EMBEDDED and EMBEDDED not in self.pipeline.models):
            return self.default_model
        return self.aliases.get(name, ModelId(name))
