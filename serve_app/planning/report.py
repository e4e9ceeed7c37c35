"""A plan as data for programs, with the figures that the command line prints."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.planning.costs import Cost
from serve_app.planning.sensitivity import Variation
from serve_app.planning.simulation import Simulated
from serve_app.planning.sizing import CHARGES_KEPT_DAYS, Plan
from serve_app.planning.steps import Step


def as_json(
    plan: Plan,
    costs: Sequence[Cost] = (),
    variations: Sequence[Variation] = (),
    step: Step | None = None,
) -> dict[str, Any]:
    demand, traffic = plan.demand, plan.demand.traffic
    return {
        "traffic": {
            "requests_per_s": traffic.requests_per_s,
            "documents_per_s": round(traffic.documents_per_s, 1),
            "documents": {str(size): round(share, 4) for size, share in traffic.shares.items()},
            "pair_tokens": traffic.pair_tokens,
            "pair_tokens_cv": traffic.pair_tokens_cv,
            "burstiness": traffic.burstiness,
        },
        "target": {"p99_s": demand.p99_s, "spare": demand.spare},
        "profiles": _profiles(plan),
        "scorers": plan.fleet.scorers,
        "gateways": plan.fleet.gateways,
        "database": {
            "cores": plan.fleet.database_cores,
            "charges_gb": round(plan.database_gb, 1),
            "charges_kept_days": CHARGES_KEPT_DAYS,
        },
        "without_spare": {"scorers": plan.needed.scorers, "gateways": plan.needed.gateways},
        "slices": plan.slices,
        "simulated": _simulated(plan.simulated),
        "limits_requests_per_s": {name: _number(limit) for name, limit in plan.limits.items()},
        "breaks_first": plan.breaks_first,
        "costs": [_cost(each) for each in costs],
        "sensitivity": [_variation(each) for each in variations],
        "step": None if step is None else _step(step),
    }


def _profiles(plan: Plan) -> dict[str, Any]:
    scorer, gateway, database = plan.service.scorer, plan.service.gateway, plan.service.database
    return {
        "scorer": {
            "name": scorer.name,
            "basis": scorer.basis.value,
            "source": scorer.source,
            "tokens_per_s": round(scorer.tokens_per_s(plan.demand.traffic.pair_tokens)),
            "batch_s": scorer.batch_s,
            "start_s": scorer.start_s,
        },
        "gateway": {
            "request_s": gateway.request_s,
            "document_s": gateway.document_s,
            "source": gateway.source,
        },
        "database": {
            "name": database.name,
            "transaction_s": database.transaction_s,
            "write_s": database.write_s,
            "source": database.source,
        },
    }


def _simulated(found: Simulated) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "refused_ratio": round(found.refused_ratio, 4),
        "documents_per_s": round(found.documents_per_s, 1),
        "p50_s": _number(found.p50_s),
        "p99_s": _number(found.p99_s),
        "busy": {name: round(share, 3) for name, share in found.busy.items()},
    }


def _cost(cost: Cost) -> Mapping[str, Any]:
    return {
        "instance": cost.instance.name,
        "price_per_hour": cost.instance.price_per_hour,
        "source": cost.instance.source,
        "read_on": cost.instance.read_on.isoformat(),
        "scorers_per_hour": round(cost.scorers_per_hour, 3),
        "cores_per_hour": round(cost.cores_per_hour, 3),
        "per_1000_documents": round(cost.per_1000_documents, 6),
        "price_per_1000_documents": cost.price_per_1000_documents,
        "margin": round(cost.margin, 3),
    }


def _variation(each: Variation) -> dict[str, Any]:
    if each.plan is None:
        return {"what": each.what, "scorers": None, "gateways": None, "breaks_first": None}
    return {
        "what": each.what,
        "scorers": each.plan.fleet.scorers,
        "gateways": each.plan.fleet.gateways,
        "breaks_first": each.plan.breaks_first,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "factor": step.factor,
        "scorers_before": step.before,
        "scorers": [[round(at, 1), running] for at, running in step.simulated.scorers],
        "full_after_s": step.full_after_s,
        "simulated": _simulated(step.simulated),
    }


def _number(value: float) -> float | None:
    """Round; return ``None`` for NaN and infinity, which JSON lacks."""
    return round(value, 4) if math.isfinite(value) else None
