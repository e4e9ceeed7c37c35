"""Ways to score the same texts with the same model on a CPU: this engine and its peers.

Each tokenizes and scores requests (a query and documents), and returns all logits in order.
OpenVINO and torch.compile have no batching of their own. They get the pairs of all requests sorted
by length, in batches cut as this engine cuts its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.engine.texts import prepared, scored, text_pairs
from loadtests.traffic import Request
from serve_app.engine.cpu import Passes
from serve_app.engine.openvino_export import convert, token_examples
from serve_app.engine.openvino_model import compile_graph, infer
from serve_app.engine.packing import plan, unplan
from serve_app.ports import Engine, Tokenizer

Score = Callable[[Sequence[Request]], list[float]]


def this_engine(
    tokenizer: Tokenizer, engine: Engine, portion_tokens: int, batch_tokens: int
) -> Score:
    """Return this engine, with portions and batches as in the service on a fast device.

    On a slow device, the service uses smaller portions.
    """

    def score(requests: Sequence[Request]) -> list[float]:
        portions = prepared(tokenizer, requests, portion_tokens)
        logits = [[0.0] * len(request.documents) for request in requests]
        for (number, each), answer in zip(
            portions, scored(engine, portions, portion_tokens, batch_tokens), strict=True
        ):
            for index, logit in zip(each.indices, answer, strict=True):
                logits[number][index] = logit
        return [logit for one in logits for logit in one]

    return score


def sentence_transformers(folder: Path, precision: torch.dtype) -> Score:
    """`CrossEncoder.predict` with its defaults: batches of 32, sorted by length."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415 - seconds to import

    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": precision})

    def score(requests: Sequence[Request]) -> list[float]:
        logits = model.predict(
            text_pairs(requests), show_progress_bar=False, activation_fn=torch.nn.Identity()
        )
        return [float(logit) for logit in logits]

    return score


def plain_openvino(folder: Path, precision: str, passes: Passes) -> Score:
    """The transformers model as OpenVINO converts it, which computes all rows of all layers."""
    model = _Logits(_transformers(folder, torch.float32))
    names = "input_ids", "attention_mask", "token_type_ids"
    graph = convert(model, names, token_examples(names))
    request = compile_graph(graph, precision, torch.get_num_threads())

    def compute(inputs: dict[str, torch.Tensor]) -> Any:
        return np.array(infer(request, {name: inputs[name].numpy() for name in names}))

    return _sorted_batches(folder, compute, passes)


def compiled(folder: Path, precision: torch.dtype, passes: Passes) -> Score:
    """`torch.compile` with dynamic shapes, weights frozen."""
    from torch._inductor import config  # noqa: PLC0415 - seconds to import

    config.freezing = True
    model = torch.compile(_transformers(folder, precision), dynamic=True)

    def compute(inputs: dict[str, torch.Tensor]) -> Any:
        with torch.no_grad():
            return model(**inputs).logits.float().numpy()

    return _sorted_batches(folder, compute, passes)


class _Logits(torch.nn.Module):
    """A model with positional inputs that returns logits instead of an output object."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> Any:
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits


def _transformers(folder: Path, precision: torch.dtype) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(  # nosec B615 # a local folder
        folder, dtype=precision
    )
    return model.eval()


def _sorted_batches(
    folder: Path, compute: Callable[[dict[str, torch.Tensor]], Any], passes: Passes
) -> Score:
    tokenizer = AutoTokenizer.from_pretrained(folder)  # nosec B615 # a local folder

    def score(requests: Sequence[Request]) -> list[float]:
        queries, documents = zip(*text_pairs(requests), strict=True)
        encoded = tokenizer(list(queries), list(documents), truncation=True)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        batches = plan(lengths, passes.tokens_max, passes.cost_tokens)
        rows = []
        for each in batches:
            members = {name: [encoded[name][row] for row in each.members] for name in encoded}
            rows.append(compute(tokenizer.pad(members, return_tensors="pt")))
        logits = np.concatenate(rows)[unplan(batches), 0]
        return [float(logit) for logit in logits]

    return score
