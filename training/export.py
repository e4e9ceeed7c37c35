"""Write the trained weights as the adapter that the service ships.

    python -m training.export --model var/training/run/model

The weights of several models are averaged (Wortsman et al., 2022, "Model soups"). Layers 1 to 6 are
not trained; their changes are copied from the adapter that training continued from. Matrices of the
other layers are stored in float16, biases and norms in float32. Finally the file is merged as in
the service, and its scores are compared with the model's.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from serve_app.engine.embedded import adapter
from serve_app.engine.embedded.model import ADAPTER, BASE_WEIGHTS, load
from training.data import ENCODER, collate, token_ids
from training.train import TRAINED

LICENSE = "Apache-2.0"
PROBES = (
    ("how many people live in berlin", "Berlin has a population of 3,520,031 registered people."),
    ("how many people live in berlin", "New York City is famous for the Museum of Modern Art."),
    ("symptoms of iron deficiency", "Tiredness and pale skin are signs that iron is lacking."),
)


def adapter_of(model: Any, start: adapter.Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors of the new adapter."""
    final = model.state_dict()
    base = adapter.start(final, load_file(ENCODER / BASE_WEIGHTS))
    held = {name: each for name, each in start.tensors.items() if not name.startswith(TRAINED)}
    for name, value in final.items():
        if name.startswith(TRAINED):
            change = value - base[name]
            held[name + adapter.DELTA] = change.half() if change.ndim == 2 else change
    return held


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def mean_of(models: Sequence[Any]) -> Any:
    """Return the first model with the mean of the weights of all."""
    states = [model.state_dict() for model in models]
    means = {name: torch.stack([each[name] for each in states]).mean(0) for name in states[0]}
    models[0].load_state_dict(means)
    return models[0]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def probe(model: Any) -> torch.Tensor:
    queries, documents = zip(*PROBES, strict=True)
    batch = collate(list(zip(token_ids(queries, 64), token_ids(documents, 64), strict=True)))
    logits: torch.Tensor = model(**batch.inputs).logits
    return logits[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the adapter that the service ships.")
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("var/training/run/model")])
    parser.add_argument("--start", type=Path, default=ADAPTER, help="adapter of the other layers")
    parser.add_argument("--out", type=Path, default=ADAPTER)
    chosen = parser.parse_args()
    load_model = AutoModelForSequenceClassification.from_pretrained
    model = mean_of([load_model(each).eval() for each in chosen.model])
    start = adapter.read(chosen.start)
    metadata = {
        "base": start.base,
        "base_sha256": start.base_sha256,
        "config": json.dumps(start.config),
        "license": LICENSE,
    }
    adapter.write_adapter(chosen.out, adapter_of(model, start), metadata)
    merged = probe(load(ENCODER, chosen.out).eval())
    difference = (merged - probe(model)).abs().max().item()
    print(f"{chosen.out.name}: {chosen.out.stat().st_size / 1e6:.2f} MB")
    print(f"logits {merged.tolist()}, at most {difference:.4f} from the model's")


if __name__ == "__main__":
    main()
