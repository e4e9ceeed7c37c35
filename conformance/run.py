"""Run the checks against a server."""

from collections.abc import Collection
from datetime import UTC, datetime

import httpx

from conformance.check import result_of
from conformance.checks import CHECKS, GROUPS
from conformance.family import Family
from conformance.report import Report
from conformance.server import Server, Target

TIMEOUT_S = 120.0


def run(
    family: Family,
    target: Target,
    groups: Collection[str] = GROUPS,
    transport: httpx.BaseTransport | None = None,
) -> Report:
    """Run the checks of ``groups`` and return their results.

    ``transport`` carries the requests; ``None``: the network.
    """
    # A connection for each request, so that a server that fails in one check cannot fail the next.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(timeout=TIMEOUT_S, limits=limits, transport=transport) as http:
        server = Server(family, target, http)
        results = [result_of(check, server) for check in CHECKS if check.group in groups]
    return Report(family.name, datetime.now(UTC).date().isoformat(), results)
