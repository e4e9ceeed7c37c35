"""Layers 7 and 8 and the head, on states from `states`: nearly the same logits for less work.

Layer 7 computes only query rows, layer 8 only [CLS]; document tokens are keys and values of layer 7
only. Layer 8's [CLS] ignores document tokens, which would have a weight below 0.005.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from training.sample import heads


def logits(model: Any, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Any:
    """Return (P,) float32: the logit of each query with the document of the same index.

    Args:
        queries: States as in `Texts`, and likewise ``documents``.
    """
    query, query_mask = padded(queries)
    document, document_mask = padded(documents)
    match, read = model.bert.encoder.layer[-2:]
    both = torch.cat([query, document], 1)
    state = layer(match, query, both, torch.cat([query_mask, document_mask], 1))
    first = layer(read, state[:, :1], state, query_mask)
    return model.classifier(model.bert.pooler(first))[:, 0]


def layer(module: Any, rows: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute a BERT layer for ``rows`` (B, R, HIDDEN), which attend to ``seen`` (B, L, HIDDEN).

    Args:
        mask: (B, L) bool: whether a row of ``seen`` is a token rather than padding.
    """
    attention = module.attention.self
    context = scaled_dot_product_attention(
        heads(attention.query(rows)),
        heads(attention.key(seen)),
        heads(attention.value(seen)),
        attn_mask=mask[:, None, None],
    )
    between = module.attention.output(context.transpose(1, 2).flatten(2), rows)
    done: torch.Tensor = module.output(module.intermediate(between), between)
    return done


def padded(texts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the texts; return states (B, L, HIDDEN) float32, and their mask (B, L) bool."""
    states = nn.utils.rnn.pad_sequence(list(texts), batch_first=True).float()
    lengths = torch.tensor([len(text) for text in texts])
    return states, torch.arange(states.shape[1]) < lengths[:, None]
