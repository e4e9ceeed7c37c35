"""Run the encoder in a short number format and the classification head in float32.

A head in bfloat16 maps the logits of a hundred documents to a few dozen values, and the ties reduce
ranking quality.
"""

from typing import Any

import torch

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def shorten(model: Any, precision: torch.dtype) -> None:
    """Convert ``model.base_model`` to ``precision``; its pooler and all else stay in float32.

    A model without a separate head stays in float32 as a whole.
    """
    model.float()
    base = model.base_model
    if base is model or precision is torch.float32:
        return
    base.to(precision)
    head = [child for child in model.children() if child is not base]
    pooler = getattr(base, "pooler", None)
    if isinstance(pooler, torch.nn.Module):
        head.append(pooler)
    for module in head:
        module.float()
        module.register_forward_pre_hook(_to_float32, with_kwargs=True)


def _to_float32(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    return (
        tuple(_float32(value) for value in args),
        {name: _float32(value) for name, value in kwargs.items()},
    )


def _float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float()
    return value
