"""A cross-encoder that ranks like its encoder before any training: weights set by linear algebra.

    python -m training.construct --data ../shared/data/train --out var/training/start

An encoder with random cross-attention forgets what it knew of meaning. So nothing here is random:

    layers 1-6   the encoder's own. Two of the 384 hidden coordinates, the least used, become flags
                 (query segment, document segment), fed by the token types and read by two of the 32
                 dimensions of each head: query and document do not see each other, both see [CLS],
                 [CLS] sees itself. Each token's state is what the encoder gives the text alone.
                 In layer 6, three coordinates in which this encoder writes how little a token
                 matters (the layer norm then shrinks the rest) are silenced: all states have one
                 length, and their products are cosines.
                 A feed-forward unit that did little now fires at [CLS] only and gives it a flag.
    layer 7      match: each query token looks for its like in the document. Query, key, value and
                 output projections are one rotation of the states, so an attention logit is a
                 similarity in 30 of the dimensions and what is found is added to the token's own
                 state; [CLS] is the alternative to attend to, and gives nothing. The feed-forward
                 layer squares: |token + w found|^2 is 2 w (token . found), but for what is the
                 same for all documents. To it comes the attention that the document got.
    layer 8      read: [CLS] averages that over the query's tokens.
    head         scales it to a logit.

That is a soft form of late interaction's MaxSim (Khattab and Zaharia, 2020, ColBERT), inside a
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
    """The whole model, from the encoder and a sample of the training pairs in ``root``."""
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
    """For each layer of the untouched encoder, mean states at its input and between its halves."""
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
    """A folder that transformers loads."""
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
