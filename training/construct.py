"""Build a cross-encoder that ranks like its encoder before training; linear algebra sets weights.

    python -m training.construct --data ../shared/data/train --out var/training/start

Random cross-attention would destroy the encoder's knowledge of meaning. So no weight is random:

    layers 1-6   Copied from the encoder. The two least used of the 384 hidden coordinates become
                 flags (query segment, document segment). The token types set them, and two of the
                 32 dimensions of each head read them: query and document do not see each other,
                 both see [CLS], and [CLS] sees only itself. So each token has the state that it
                 has when the encoder reads its text alone.
                 The encoder marks unimportant tokens in three coordinates, and the layer norm then
                 shrinks the others. Layer 6 silences these three, so that all states have the same
                 length and their products are cosines.
                 The feed-forward unit with least effect now fires only at [CLS] and gives it a
                 flag.
    layer 7      Matches: each query token attends to similar document tokens. Query, key, value and
                 output projections are the same rotation of the states, so an attention logit is a
                 similarity in 30 of the dimensions. The attended states are added to the token's
                 own; attending to [CLS] instead adds nothing. The feed-forward layer squares:
                 |token + w found|^2 equals 2 w (token . found) plus terms that are the same for all
                 documents. The attention that the document received is added.
    layer 8      Reads: [CLS] averages the result over the query's tokens.
    head         Scales it to a logit.

This is a soft form of late interaction's MaxSim (Khattab and Zaharia, 2020, ColBERT), inside a
plain `BertForSequenceClassification`. Statistics come from a seeded sample of training pairs.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertConfig, BertForSequenceClassification

from training.data import ENCODER, Batch, tokenizer
from training.matching import blank, match_layer, read_head, read_layer
from training.sample import Sample, isolation, sample_pairs
from training.separation import flag_embeddings, isolate_layer, least_used, restore_flags


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def construct(root: Path) -> Any:
    """Build the whole model from the encoder and a sample of the training pairs in ``root``."""
    encoder = AutoModel.from_pretrained(ENCODER, attn_implementation="eager").eval()
    config = BertConfig.from_pretrained(ENCODER, num_hidden_layers=8, num_labels=1)
    model = BertForSequenceClassification(config).eval()
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    batch = sample_pairs(root)
    apart = isolation(batch)
    means = mean_states(encoder, batch, apart)
    flags = least_used(encoder, batch, apart)

    embeddings = model.bert.embeddings
    flag_embeddings(embeddings, flags)
    mask = torch.where(batch.real, 0.0, -1e4)[:, None, None]
    sample = Sample(batch, mask, apart, torch.empty(0), flags)
    summed = (
        embeddings.word_embeddings(batch.input_ids)
        + embeddings.token_type_embeddings(batch.token_types)
        + embeddings.position_embeddings.weight[: batch.input_ids.shape[1]]
    )
    sample.hidden = restore_flags(embeddings.LayerNorm, summed[batch.real], sample)

    layers = model.bert.encoder.layer
    for number in range(6):
        isolate_layer(layers[number], sample, means[number], last=number == 5)
    for layer in layers[6:]:
        blank(layer)
    match_layer(layers[6], sample)
    read_layer(layers[7], sample)
    read_head(model, sample)
    return model


def mean_states(encoder: Any, batch: Batch, apart: torch.Tensor) -> list[tuple[Any, Any]]:
    """Return mean states at the input and between the halves of each original encoder layer."""
    between: list[torch.Tensor] = []
    hooks = [
        layer.attention.output.LayerNorm.register_forward_hook(
            lambda _module, _inputs, output: between.append(output[batch.real].mean(0))
        )
        for layer in encoder.encoder.layer
    ]
    states = encoder(batch.input_ids, apart, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    return [
        (state[batch.real].mean(0), mean) for state, mean in zip(states[:-1], between, strict=True)
    ]


def save(model: Any, folder: Path) -> None:
    """Save the model and its tokenizer to ``folder`` in the format of transformers."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Construct the untrained cross-encoder.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--out", type=Path, default=Path("var/training/start"))
    chosen = parser.parse_args()
    torch.manual_seed(0)
    save(construct(chosen.data), chosen.out)


if __name__ == "__main__":
    main()
