"""How much is measured: on a GPU, and on a CPU, where only the program itself is tested."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.engine.minilm import SHAPE


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the model, the texts and the measurements."""

    shape: Mapping[str, int]
    """Sizes of the model, as in transformers' `BertConfig`."""

    lengths: tuple[int, ...]
    """Tokens of a pair, in addition to the lengths of MS MARCO."""

    tokens: int
    """Tokens of the texts of each length; they are scored again and again."""

    batch_tokens: tuple[int, ...]
    production_tokens: int
    """Batch size of sections that measure only one; see `cluster/production.yaml`."""

    warm_up_tokens: tuple[int, ...]
    """Batch sizes for which the memory of a warm-up is measured."""

    seconds: float
    """Duration of one measurement."""

    queries: int
    documents_per_query: int
    """For the comparison of number formats."""

    peer_documents: int
    """Documents of each length that the `CrossEncoder` scores."""

    peer_batches: tuple[int, ...]
    """Its batch sizes in documents."""

    pass_rows: tuple[int, ...]
    """Numbers of pairs of 64 tokens in a pass, at least 2: `torch.compile` compiles 1 anew."""


ON_GPU = Sizes(
    shape=SHAPE,
    lengths=(16, 67, 128, 256, 512),
    tokens=262_144,
    batch_tokens=(2_048, 4_096, 8_192, 16_384, 32_768, 65_536),
    production_tokens=32_768,
    warm_up_tokens=(8_192, 32_768, 65_536),
    seconds=0.5,
    queries=10,
    documents_per_query=50,
    peer_documents=1_024,
    peer_batches=(32, 128, 512),
    pass_rows=(2, 8, 32, 128, 512, 1_024),
)

ON_CPU = Sizes(
    shape={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    lengths=(16, 67),
    tokens=2_048,
    batch_tokens=(1_024, 2_048),
    production_tokens=2_048,
    warm_up_tokens=(1_024,),
    seconds=0.05,
    queries=4,
    documents_per_query=20,
    peer_documents=32,
    peer_batches=(8, 32),
    pass_rows=(2, 8),
)
