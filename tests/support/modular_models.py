"""Small cross-encoders of modules, written by sentence-transformers."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

WIDTH = 32
"""Hidden size of the encoders."""

WEIGHT_SPREAD = 0.5


def _ettin() -> list[Any]:
    """The head of the ettin rerankers."""
    return [
        Pooling(WIDTH, "cls"),
        Dense(WIDTH, WIDTH, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(WIDTH),
        scores(WIDTH),
    ]


def _mean() -> list[Any]:
    return [Pooling(WIDTH, "mean"), Normalize(), Dense(WIDTH, 64, use_residual=True), scores(64)]


def _two_ways() -> list[Any]:
    both = 2 * WIDTH
    return [
        Pooling(WIDTH, ("max", "lasttoken")),
        Dense(both, both, use_residual=True),
        scores(both),
    ]


def _tokens() -> list[Any]:
    """A layer for each token before the tokens are combined."""
    first = Dense(WIDTH, WIDTH, module_input_name="token_embeddings")
    return [first, Pooling(WIDTH, "cls"), Dropout(0.5), scores(WIDTH)]


def scores(width: int, labels: int = 1, activation: torch.nn.Module | None = None) -> Dense:
    """The last module of a head."""
    return Dense(width, labels, activation_function=activation, module_output_name="scores")


HEADS = {"ettin": _ettin, "mean": _mean, "two_ways": _two_ways, "tokens": _tokens}


def build_modular(
    folder: Path, base: Path, head: list[Any], activation: torch.nn.Module | None = None
) -> Path:
    """Write a model with the encoder and the tokenizer of ``base`` to ``folder``.

    The activation is that of ``predict``, by default the identity.
    """
    torch.manual_seed(0)
    encoder = Transformer(str(base))
    for module in head:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=WEIGHT_SPREAD)
    model = CrossEncoder(
        modules=[encoder, *head], activation_fn=activation or torch.nn.Identity(), device="cpu"
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
