"""What all sections measure: a model of random weights, its texts, and the device."""

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertTokenizer

from benchmarks.engine import minilm
from benchmarks.engine.texts import job, of_length
from benchmarks.gpu.sizes import ON_CPU, ON_GPU, Sizes
from loadtests.traffic import WORDS, Request, Traffic
from serve_app.dispatch.portions import cut
from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId, Tokens
from serve_app.engine.device import pick_device
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.engine.unpacking import Encoded, InputLimits, unpack
from serve_app.ports import Engine

TYPICAL = "MS MARCO"
"""The name of the texts with the lengths of MS MARCO passages."""

PORTION_TOKENS = 8_192
"""As in `cluster/production.yaml`."""

REQUEST_DOCUMENTS = 100
VOCABULARY = 30_522  # BERT's, so that the table of embeddings has its size.

Batch = list[Portion]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in a folder, its tokenizer, and the device and sizes to measure it with."""

    folder: Path
    device: torch.device
    sizes: Sizes
    config: BertConfig
    tokenizer: PairTokenizer
    texts: dict[str, list[Request]]
    """Requests by name: `TYPICAL`, and one for each length."""

    def engine(self, precision: str, batch_tokens: int) -> Engine:
        """Return the service's engine, not warmed up."""
        return load_engine(str(self.folder), None, precision, EngineLimits(batch_tokens))

    def model(self) -> Any:
        """Return the model as transformers loads it, in float32 on the CPU."""
        model = AutoModelForSequenceClassification.from_pretrained(  # nosec B615 # a local folder
            self.folder, dtype=torch.float32
        )
        return model.eval()

    def batches(self, name: str, batch_tokens: int) -> list[Batch]:
        """Return the texts of ``name`` as batches of as many portions as fit."""
        batches: list[Batch] = []
        room = 0
        for portion in self.portions(self.texts[name], min(PORTION_TOKENS, batch_tokens)):
            tokens = sum(portion.lengths)
            if tokens > room or not batches:
                batches.append([])
                room = batch_tokens
            batches[-1].append(portion)
            room -= tokens
        return batches

    def sequences(self, batch: Batch) -> list[Encoded]:
        limits = InputLimits(self.config.vocab_size, self.tokenizer.pair_tokens_max, 0)
        return [pair for portion in batch for pair in unpack(portion, limits)]

    def lengths(self, name: str) -> list[int]:
        """Return the number of tokens of every pair of ``name``."""
        return [
            tokens
            for request in self.texts[name]
            for tokens in self.tokenizer.tokenize(job(request)).lengths
        ]

    def flop(self, name: str) -> float:
        """Return the operations that a document of ``name`` needs."""
        return minilm.needed_flop(self.config, self.lengths(name))

    def portions(self, requests: Sequence[Request], tokens_max: int) -> Batch:
        """Tokenize ``requests`` and cut them into portions."""
        return [
            each.portion()
            for request in requests
            for each in cut(
                RequestId("r"), self.tokenizer.tokenize(job(request)), Tokens(tokens_max)
            )
        ]


def prepare(folder: Path) -> Subject:
    """Write the model to ``folder`` and draw its texts, in the sizes that suit the device."""
    device = pick_device()
    sizes = ON_GPU if device.type == "cuda" else ON_CPU
    config = minilm.write_with(word_tokenizer(), folder, sizes.shape)
    tokenizer = load_tokenizer(str(folder))
    texts = {TYPICAL: _typical(sizes.tokens)}  # first, because a section may run out of time
    for length in sizes.lengths:
        texts[f"{length} tokens"] = _divided(of_length(length, sizes.tokens // length))
    return Subject(folder, device, sizes, config, tokenizer, texts)


def word_tokenizer() -> BertTokenizer:
    """Return a tokenizer like BERT's in which every word of the texts is one token.

    The package with BERT's own vocabulary need not be installed.
    """
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = itertools.chain(
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        letters,
        (f"##{letter}" for letter in letters),
        string.punctuation,
        WORDS,
        (f"unused{number}" for number in range(VOCABULARY)),
    )
    unique = itertools.islice(dict.fromkeys(pieces), VOCABULARY)
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate(unique)}, model_max_length=512
    )


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions and the GPU, which decide the figures."""
    packages = ("torch", "transformers", "tokenizers", "numpy", "sentence-transformers")
    found: dict[str, Any] = {name: _version(name) for name in packages}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpu_memory_mib": properties.total_memory // 2**20,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _typical(tokens: int) -> list[Request]:
    traffic = Traffic(seed=1)
    per_request = 67 * REQUEST_DOCUMENTS
    return [traffic.request(REQUEST_DOCUMENTS) for _ in range(max(1, tokens // per_request))]


def _divided(request: Request) -> list[Request]:
    documents: Sequence[str] = request.documents
    return [
        Request(request.query, list(documents[start : start + REQUEST_DOCUMENTS]))
        for start in range(0, len(documents), REQUEST_DOCUMENTS)
    ]
