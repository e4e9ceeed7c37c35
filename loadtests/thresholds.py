"""Thresholds that fail a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The highest allowed values; ``None`` allows every value."""

    p99_ms: float | None = None
    """99th percentile of the latency of correct answers."""

    error_ratio: float | None = None
    refused_ratio: float | None = None

    def any(self) -> bool:
        return (self.p99_ms, self.error_ratio, self.refused_ratio) != (None, None, None)

    def exceeded(self, summary: dict[str, Any]) -> Iterator[str]:
        """Yield one sentence for each threshold that the run exceeds.

        A run without requests, or without correct answers where `p99_ms` is set, fails too.
        """
        total = summary["total"]
        if not total["requests"]:
            yield "No request was sent."
        if self.p99_ms is not None:
            if total["latency_ms"] is None:
                yield "There is no correct answer, so the p99 is unknown."
            elif total["latency_ms"]["p99"] > self.p99_ms:
                p99_ms = total["latency_ms"]["p99"]
                yield f"The p99 is {p99_ms:,.0f} ms, above {self.p99_ms:,.0f} ms."
        for name, limit in (
            ("error_ratio", self.error_ratio),
            ("refused_ratio", self.refused_ratio),
        ):
            if limit is not None and total[name] > limit:
                yield f"The {name.replace('_', ' ')} is {total[name]:.4f}, above {limit:g}."
