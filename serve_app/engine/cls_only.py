"""Encoder for BERT and RoBERTa that computes only the first token in its last layer.

A classifier reads no other token, so scores are the same. Queries, keys and values are one matrix
product. Attention has a boolean mask, which torch's memory-efficient kernel on CUDA takes, unlike
flash attention.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

ARCHITECTURES = frozenset(
    {
        "BertForSequenceClassification",
        "RobertaForSequenceClassification",
        "XLMRobertaForSequenceClassification",
    }
)
"""Architectures with BERT's layers, named as in `config.json`."""


def is_supported(model: Any) -> bool:
    """Return whether `ClsOnlyEncoder` can replace the model's encoder."""
    return type(model).__name__ in ARCHITECTURES and not model.config.is_decoder


def head_logits(
    model: Any, encoder: Callable[..., torch.Tensor], inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return (B, 1) float32 logits from ``encoder`` and the model's own head."""
    states = encoder(**inputs)
    pooler = model.base_model.pooler
    logits: torch.Tensor = model.classifier(states if pooler is None else pooler(states))
    return logits.float()


class ClsOnlyEncoder(torch.nn.Module):
    """Takes over the encoder of a loaded model."""

    def __init__(self, base: Any) -> None:
        """The query, key and value weights of ``base`` are freed."""
        super().__init__()
        self.embeddings = base.embeddings
        self.layers = torch.nn.ModuleList(_Layer(layer) for layer in base.encoder.layer)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the first token's last hidden state, (B, 1, H), for inputs of shape (B, L)."""
        states = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        attended = attention_mask[:, None, None, :].bool()
        for layer in self.layers[:-1]:
            states = layer(states, states, attended)
        return self.layers[-1](states[:, :1], states, attended)


class _Layer(torch.nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        self.head_size = attention.attention_head_size
        self.weight, self.bias = _joined(attention.query, attention.key, attention.value)
        del attention.query, attention.key, attention.value
        self.after_attention = layer.attention.output
        self.intermediate = layer.intermediate
        self.output = layer.output

    def forward(
        self, rows: torch.Tensor, states: torch.Tensor, attended: torch.Tensor
    ) -> torch.Tensor:
        """Return (B, R, H) for ``rows`` (B, R, H): all or some of ``states`` (B, L, H)."""
        if rows is states:
            query, key, value = linear(states, self.weight, self.bias).chunk(3, dim=-1)
        else:
            hidden = states.shape[-1]
            query = linear(rows, self.weight[:hidden], self.bias[:hidden])
            key, value = linear(states, self.weight[hidden:], self.bias[hidden:]).chunk(2, dim=-1)
        context = scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), attn_mask=attended
        )
        rows = self.after_attention(context.transpose(1, 2).flatten(2), rows)
        return self.output(self.intermediate(rows), rows)

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        """Reshape (B, R, H) to (B, heads, R, head size)."""
        return states.unflatten(-1, (-1, self.head_size)).transpose(1, 2)


def _joined(*products: Any) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    weight = torch.cat([product.weight for product in products])
    bias = torch.cat([product.bias for product in products])
    return (
        torch.nn.Parameter(weight.detach(), requires_grad=False),
        torch.nn.Parameter(bias.detach(), requires_grad=False),
    )
