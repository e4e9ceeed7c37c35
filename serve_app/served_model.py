"""A model of a gateway: its live revision, and the canary that may replace it."""

from dataclasses import dataclass

from serve_app.admission.door import Admission
from serve_app.domain.canary import is_chosen
from serve_app.domain.units import ModelId, Revision, TenantId
from serve_app.ports import JobScorer, JobTokenizer, Shadow


@dataclass(frozen=True, slots=True)
class ServedRevision:
    """A checkpoint with scorers of its own."""

    name: Revision
    admission: Admission
    tokenizer: JobTokenizer
    scorer: JobScorer
    shadow: Shadow | None = None
    """Is offered the jobs that this revision has answered."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model under one id and price, whichever of its revisions scores a request."""

    live: ServedRevision
    canary: ServedRevision | None = None
    canary_share: float = 0.0
    """Share of the tenants that the canary serves, 0 to 1."""

    def revision(self, model: ModelId, tenant: TenantId) -> ServedRevision:
        """Return the revision for a tenant's requests, always the same one."""
        if self.canary is not None and is_chosen(self.canary_share, model, tenant):
            return self.canary
        return self.live
