"""Export the embedded model as a folder for transformers and sentence-transformers."""

import hashlib
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils import logging

from serve_app import __version__
from serve_app.domain.model import EMBEDDED
from serve_app.engine.embedded import model as embedded
from serve_app.engine.sources import BASE_REQUIREMENT, resolve

ACTIVATION = {"activation_fn": "torch.nn.modules.linear.Identity"}
"""For sentence-transformers' `CrossEncoder.predict`, which by default applies a sigmoid."""

CARD = """\
---
license: apache-2.0
language: en
library_name: sentence-transformers
pipeline_tag: text-ranking
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# The model `embedded` of rerank-serve {version}

A cross-encoder: it reads a query and a document together, at most {tokens} tokens, and returns one
logit; a higher logit means more relevant. `BertForSequenceClassification`, {layers} layers, hidden
size {hidden}, float32.

    from sentence_transformers import CrossEncoder

    model = CrossEncoder("DIR")  # this folder
    model.predict([("how tall is the eiffel tower", "The Eiffel Tower is 330 metres tall.")])

`predict` returns the raw logit (`activation_fn` in `config.json` is the identity); its sigmoid
is the `relevance_score` of rerank-serve. With transformers: `AutoModelForSequenceClassification`
and `AutoTokenizer`.

The weights are those of all-MiniLM-L6-v2 (Apache-2.0; package {requirement}) with the
adapter of rerank-serve (Apache-2.0; SHA-256 {adapter}) merged in.
"""


def export_embedded(folder: Path) -> None:
    """Write the model's files into ``folder``, which is created if missing.

    Raises: ModelLoadError, or OSError when the folder cannot be written.
    """
    logging.disable_progress_bar()
    base = resolve(EMBEDDED, None)
    model = embedded.load(base, embedded.ADAPTER)
    config = model.config
    config.sentence_transformers = ACTIVATION
    tokenizer = AutoTokenizer.from_pretrained(  # nosec B615 # a local folder
        base, model_max_length=config.max_position_embeddings
    )
    # Both tokenizer files of the base truncate and pad at 128 tokens.
    for key in ("max_length", "truncation_strategy", "truncation_side", "stride"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Only their owner can read the weights as written; a service often runs as another user.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    card = CARD.format(
        version=__version__,
        tokens=config.max_position_embeddings,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        requirement=BASE_REQUIREMENT,
        adapter=hashlib.sha256(embedded.ADAPTER.read_bytes()).hexdigest(),
    )
    (folder / "README.md").write_text(card)
