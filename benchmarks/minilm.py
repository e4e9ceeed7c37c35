"""A folder with a cross-encoder of MiniLM's shape, and what it has to compute.

Its weights are random: speed does not depend on them.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.utils import logging

from serve_app.domain.model import EMBEDDED
from serve_app.engine.sources import resolve


def write(folder: Path) -> BertConfig:
    """Write what `cross-encoder/ms-marco-MiniLM-L12-v2` would have: the shape of its config,
    weights, and BERT's uncased tokenizer, which is also the embedded model's."""
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(  # nosec B615 # a local folder
        resolve(EMBEDDED, None), model_max_length=512
    )
    # The encoder's own cuts and pads at 128 tokens, in both of its files.
    for key in ("max_length", "truncation_strategy", "truncation_side", "stride"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1_536,
        num_labels=1,
        initializer_range=0.1,  # Or all pairs would get nearly one logit, and no difference show.
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return config


def needed_flop(config: BertConfig, lengths: Sequence[int]) -> float:
    """Floating point operations of matrix products a document takes on average, without padding.

    The last layer is needed for one token only, but for its keys and values.
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
