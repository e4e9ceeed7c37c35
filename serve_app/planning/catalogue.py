"""Published speeds of GPUs, and prices of instances, for plans without measurements.

**No speed here was measured with this service.** All were published for sentence-transformers'
`CrossEncoder` or for other servers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from serve_app.planning.profiles import PAIR_TOKENS, Basis, ProfileError, Scorer

MINILM = "cross-encoder/ms-marco-MiniLM-L12-v2"
BGE = "BAAI/bge-reranker-v2-m3"
MODELS = (MINILM, BGE)

FLOAT16_TFLOP_PER_S: Mapping[str, float] = {
    "V100": 125,
    "T4": 65,
    "A10": 125,
    "L4": 121,
    "A100": 312,
    "H100": 989,
}
"""Dense float16 peaks of the matrix units, from data sheets."""

MODEL_CARD = "the model card, MS MARCO passages"
ETTIN = "Hugging Face's article on the Ettin rerankers, May 2026, Natural Questions"
FLAG_EMBEDDING = "FlagEmbedding issue 1088, 2 slices of an A100, 5.4 requests/s of 23 documents"


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine for rent, with the price of one of its GPUs."""

    name: str
    device: str
    price_per_hour: float
    """Dollars for one GPU, with its share of the machine."""

    source: str
    read_on: date


@dataclass(frozen=True, slots=True)
class Core:
    """A core for gateways and the database."""

    name: str = "AWS m6i.8xlarge, 32 cores"
    price_per_hour: float = 0.048
    source: str = "price list for us-east-1, in the documentation of cloudfit-provider-aws"
    read_on: date = date(2026, 10, 23)


LAMBDA = "lambda.ai/instances"
AWS = "price list for us-east-1, in github.com/datareceipts/data-receipts"

INSTANCES = (
    Instance("Lambda 8x V100", "V100", 0.79, LAMBDA, date(2026, 9, 20)),
    Instance("Lambda 1x A10", "A10", 1.29, LAMBDA, date(2026, 9, 20)),
    Instance("Lambda 8x A100 40 GB", "A100", 1.99, LAMBDA, date(2026, 9, 20)),
    Instance("AWS p4d.24xlarge", "A100", 2.7447, AWS, date(2026, 11, 9)),
    Instance("Lambda 1x H100 SXM", "H100", 4.29, LAMBDA, date(2026, 9, 20)),
    Instance("AWS p5.48xlarge", "H100", 6.88, AWS, date(2026, 11, 9)),
)
"""On-demand prices. No dated public price of a T4 or an L4 was found."""


def _published(name: str, documents_per_s: float, tokens: float, source: str) -> Scorer:
    speeds = ((tokens, documents_per_s * tokens),)
    return Scorer(name, Basis.PUBLISHED, source, speeds)


def _scaled(known: Scorer, peak: float, name: str) -> Scorer:
    factor = FLOAT16_TFLOP_PER_S[name] / peak
    source = f"{known.name}'s ({known.source}) times {factor:.3g}, the ratio of the float16 peaks"
    speeds = tuple((tokens, factor * speed) for tokens, speed in known.speeds)
    return replace(known, name=name, basis=Basis.SCALED, source=source, speeds=speeds)


_V100 = _published("V100", 960, PAIR_TOKENS, MODEL_CARD)
_SLICES = _published("A100-2-slices", 124, 512, FLAG_EMBEDDING)
_SLICES_PEAK = FLOAT16_TFLOP_PER_S["A100"] * 2 / 7

SCORERS: Mapping[str, Mapping[str, Scorer]] = {
    MINILM: {
        "V100": _V100,
        "RTX-3090": _published("RTX-3090", 2_847, PAIR_TOKENS, ETTIN),
        "H100": _published("H100", 3_311, PAIR_TOKENS, ETTIN),
        "CPU": _published("CPU", 75.9, PAIR_TOKENS, f"{ETTIN}, Core i7-13700K, float32"),
        **{
            name: _scaled(_V100, FLOAT16_TFLOP_PER_S["V100"], name)
            for name in ("T4", "A10", "L4", "A100")
        },
    },
    BGE: {
        "A100-2-slices": _SLICES,
        "RTX-3090": _published("RTX-3090", 436, PAIR_TOKENS, ETTIN),
        "H100": _published("H100", 1_569, PAIR_TOKENS, ETTIN),
        **{
            name: _scaled(_SLICES, _SLICES_PEAK, name)
            for name in ("V100", "T4", "A10", "L4", "A100")
        },
    },
}
"""Scorers by model and device. The articles do not give the length of a pair: if it was more than
`PAIR_TOKENS`, the tokens per second here are too low."""


def scorer(model: str, device: str) -> Scorer:
    """Raises: ProfileError."""
    known = SCORERS[model]
    found = next((each for name, each in known.items() if name.lower() == device.lower()), None)
    if found is None:
        raise ProfileError(
            f"There is no published speed of {device} for {model}, only of "
            f"{', '.join(sorted(known))}."
        )
    return found


def instances(device: str) -> list[Instance]:
    """Return the machines with this device, the cheapest first."""
    found = [each for each in INSTANCES if each.device == device]
    return sorted(found, key=lambda each: each.price_per_hour)
