"""Write the trained weights as the adapter that the service ships.

    python -m training.export --model var/training/run/model --start var/training/start

Each weight's difference from the encoder's is stored in the smallest of three forms that represents
it: two low-rank float16 factors, 8-bit rows, or plain float16. Biases and norms are stored in
float32. The changes of construction and of training are factored separately, so that rounding the
larger does not swamp the smaller. Finally the file is merged as in the service, and its scores are
compared with the model's.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertConfig

from serve_app.engine.embedded import adapter
from serve_app.engine.embedded.model import ADAPTER, BASE_WEIGHTS, load
from serve_app.engine.sources import BASE_PACKAGE
from training.data import ENCODER, collate, token_ids

WEIGHTS = ENCODER / BASE_WEIGHTS
EXACT = 1e-3
"""Largest relative error, in the Frobenius norm, that counts as exact."""

LICENSE = "Apache-2.0"
PROBES = (
    ("how many people live in berlin", "Berlin has a population of 3,520,031 registered people."),
    ("how many people live in berlin", "New York City is famous for the Museum of Modern Art."),
    ("symptoms of iron deficiency", "Tiredness and pale skin are signs that iron is lacking."),
)


def factors(change: torch.Tensor, rank_max: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return A (rank, in) and B (out, rank) with B @ A close to ``change``.

    ``None``: this needs a rank above ``rank_max``.
    """
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    beyond = values.pow(2).flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    rank = int((beyond > EXACT).sum())
    if rank > rank_max:
        return None
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def matrix(name: str, constructed: torch.Tensor, learned: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tensors that store both changes of the weight ``name``."""
    held: dict[str, torch.Tensor] = {}
    thin = []
    rest = torch.zeros_like(constructed)
    for change in (constructed, learned):
        if not change.any():
            continue
        # Beyond a quarter of the full rank, two factors are no smaller than the other forms.
        found = factors(change, min(change.shape) // 4)
        if found is not None:
            thin.append(found)
        else:
            rest += change
    if rest.any():
        scale = rest.abs().amax(1).clamp(min=1e-12) / 127
        rows = (rest / scale[:, None]).round()
        if (rows * scale[:, None] - rest).norm() <= EXACT * rest.norm():
            held[name + adapter.ROWS], held[name + adapter.SCALE] = rows.to(torch.int8), scale
        else:
            held[name + adapter.DELTA] = rest.half()
    if thin:
        held[name + adapter.LORA_A] = torch.cat([each for each, _ in thin]).half().contiguous()
        held[name + adapter.LORA_B] = torch.cat([each for _, each in thin], 1).half().contiguous()
    return held


def adapter_of(model: Any, start: Any) -> dict[str, torch.Tensor]:
    final, constructed = model.state_dict(), start.state_dict()
    base = adapter.start(final, load_file(WEIGHTS))
    held: dict[str, torch.Tensor] = {}
    for name, value in final.items():
        change = value - base[name]
        if change.ndim == 2:
            held |= matrix(name, constructed[name] - base[name], value - constructed[name])
        elif change.any():
            held[name + adapter.DELTA] = change
    return held


def config_of(model: Any) -> dict[str, Any]:
    """Return the differences from the encoder's configuration."""
    base = BertConfig.from_pretrained(ENCODER)
    return {
        "num_labels": 1,
        **{
            field: getattr(model.config, field)
            for field in ("num_hidden_layers", "max_position_embeddings")
            if getattr(model.config, field) != getattr(base, field)
        },
    }


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def probe(model: Any) -> torch.Tensor:
    queries, documents = zip(*PROBES, strict=True)
    batch = collate(list(zip(token_ids(queries, 64), token_ids(documents, 64), strict=True)))
    logits: torch.Tensor = model(**batch.inputs).logits
    return logits[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the adapter that the service ships.")
    parser.add_argument("--model", type=Path, default=Path("var/training/run/model"))
    parser.add_argument("--start", type=Path, default=Path("var/training/start"))
    parser.add_argument("--out", type=Path, default=ADAPTER)
    chosen = parser.parse_args()
    model, start = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval()
        for folder in (chosen.model, chosen.start)
    )
    metadata = {
        "base": BASE_PACKAGE,
        "base_sha256": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
        "config": json.dumps(config_of(model)),
        "license": LICENSE,
    }
    adapter.write_adapter(chosen.out, adapter_of(model, start), metadata)
    merged = probe(load(ENCODER, chosen.out).eval())
    difference = (merged - probe(model)).abs().max().item()
    print(f"{chosen.out.name}: {chosen.out.stat().st_size / 1e6:.2f} MB")
    print(f"logits {merged.tolist()}, at most {difference:.4f} from the model's")


if __name__ == "__main__":
    main()
