"""The plot of ``rerank-serve plan``."""

from pathlib import Path

import matplotlib as mpl

from serve_app.planning.sizing import Plan, run, share_of

mpl.use("Agg")
from matplotlib import pyplot as plt

LOADS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""Shares of the planned traffic."""


def draw(plan: Plan, file: Path) -> None:
    """Plot the fleet without its spare replicas at several loads.

    Raises: OSError, ValueError: The file cannot be written.
    """
    traffic, fleet = plan.demand.traffic, plan.needed.slice(plan.slices)
    found = [run(share_of(traffic, load / plan.slices), plan.service, fleet) for load in LOADS]
    rates = [load * traffic.requests_per_s for load in LOADS]
    figure, (latency, use) = plt.subplots(2, sharex=True, figsize=(8, 6), layout="constrained")
    for name, values in (
        ("p50", [each.p50_s for each in found]),
        ("p99", [each.p99_s for each in found]),
    ):
        latency.plot(rates, [1_000 * value for value in values], marker="o", label=name)
    latency.axhline(1_000 * plan.demand.p99_s, color="0.6", linestyle="--", label="target of p99")
    latency.set(ylabel="latency, ms", yscale="log")
    for part in found[0].busy:
        use.plot(rates, [each.busy[part] for each in found], marker="o", label=part)
    refused = [each.refused_ratio for each in found]
    use.plot(rates, refused, color="0.3", linestyle=":", label="refused requests")
    use.set(xlabel="requests/s", ylabel="share", ylim=(0, 1.05))
    for axis in (latency, use):
        axis.axvline(traffic.requests_per_s, color="0.8", linewidth=0.8)
        axis.legend()
    figure.savefig(file, dpi=110)
    plt.close(figure)
