"""A cross-encoder of MiniLM's shape with random weights, and the operations that it needs.

The speed does not depend on the weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.utils import logging

from serve_app.domain.model import EMBEDDED
from serve_app.engine.sources import resolve

SHAPE = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1_536,
}
"""The shape of `cross-encoder/ms-marco-MiniLM-L12-v2`."""


def write(folder: Path) -> BertConfig:
    """Write a model of `SHAPE` to ``folder``, with BERT's uncased tokenizer from `embedded`."""
    tokenizer = AutoTokenizer.from_pretrained(  # nosec B615 # a local folder
        resolve(EMBEDDED, None), model_max_length=512
    )
    # Both tokenizer files of the encoder truncate and pad to 128 tokens.
    for key in ("max_length", "truncation_strategy", "truncation_side", "stride"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return write_with(tokenizer, folder, SHAPE)


def write_with(tokenizer: Any, folder: Path, shape: Mapping[str, int]) -> BertConfig:
    """Write a model of ``shape`` and its ``tokenizer`` to ``folder``."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_labels=1,
        initializer_range=0.1,  # With the default, all logits would be nearly equal.
        **shape,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return config


def needed_flop(config: BertConfig, lengths: Sequence[int]) -> float:
    """Return the mean number of matrix product operations per document, without padding.

    The last layer computes keys and values for all tokens, but everything else only for one.
    """
    hidden, inner, layers = (
        int(size)
        for size in (config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    )
    row = 2 * hidden * (2 * hidden + 2 * inner)  # query, attention's output, feed-forward
    keys_and_values = 2 * hidden * 2 * hidden

    def of(length: int) -> int:
        attention = 4 * hidden * length  # of one row
        full = length * (row + keys_and_values + attention)
        last = length * keys_and_values + row + attention
        return (layers - 1) * full + last

    return sum(map(of, lengths)) / len(lengths)
