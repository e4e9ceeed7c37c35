"""How a model becomes an `Engine` or a `Tokenizer`: the two functions that deployments call.

Gateways call `load_tokenizer`, which leaves torch alone; scorers call `load_engine`, which imports
it only then. Both raise `serve_app.engine.sources.ModelLoadError`.
"""

from dataclasses import dataclass

from serve_app.engine.sources import resolve
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.ports import Engine


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What an engine may use; the names are the settings'."""

    batch_tokens_max: int
    forward_tokens_max: int | None = None
    """``None`` takes what suits the device."""

    pair_tokens_max: int | None = None
    """``None`` takes what the model itself allows."""

    threads: int = 0
    """CPU threads; 0 takes all cores the process may run on. Ignored on CUDA."""


def load_tokenizer(
    source: str, revision: str | None = None, pair_tokens_max: int | None = None
) -> PairTokenizer:
    """The tokenizer of a model; takes some seconds, in a child process unless torch is loaded.

    Raises: ModelLoadError.
    """
    return PairTokenizer(TokenizerFiles.read(resolve(source, revision), source), pair_tokens_max)


def load_engine(source: str, revision: str | None, precision: str, limits: EngineLimits) -> Engine:
    """The model itself, on the best device there is, not yet warmed up.

    Args:
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises: ModelLoadError.
    """
    # torch takes seconds and 200 MB, which a gateway that imports this module does not need.
    from serve_app.engine.assembly import assemble  # noqa: PLC0415 - imports torch

    return assemble(source, resolve(source, revision), precision, limits)
