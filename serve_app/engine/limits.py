"""Limits of an engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of an engine, named like the settings."""

    batch_tokens_max: int
    forward_tokens_max: int | None = None
    """``None`` selects a value that suits the device."""

    pair_tokens_max: int | None = None
    """``None`` selects the model's own limit."""

    threads: int = 0
    """0 selects all cores available to the process. Ignored on CUDA."""
