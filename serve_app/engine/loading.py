"""Load a model as an `Engine` or a `Tokenizer`: the two functions that deployments call.

Gateways call `load_tokenizer`, which does not import torch. Scorers call `load_engine`, which
imports torch when it is called. Both raise `serve_app.engine.sources.ModelLoadError`.
"""

from serve_app.engine.limits import EngineLimits
from serve_app.engine.sources import check_torch, resolve
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.ports import Engine


def load_tokenizer(
    source: str, revision: str | None = None, pair_tokens_max: int | None = None
) -> PairTokenizer:
    """Return a model's tokenizer in some seconds, through a child process unless torch is loaded.

    Raises: ModelLoadError.
    """
    return PairTokenizer(TokenizerFiles.read(resolve(source, revision), source), pair_tokens_max)


def load_engine(source: str, revision: str | None, precision: str, limits: EngineLimits) -> Engine:
    """Load the model on the best available device, without warm-up.

    Args:
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises: ModelLoadError, also if torch is not installed.
    """
    check_torch(source)
    # Importing torch takes seconds and 200 MB. A gateway imports this module and needs no torch.
    from serve_app.engine.assembly import assemble  # noqa: PLC0415 - imports torch

    return assemble(source, resolve(source, revision), precision, limits)
