"""Small random models with real fast tokenizers, for tests in which scores need no meaning.

`build` writes a folder like `save_pretrained` does. The same arguments give the same weights, which
are large enough that different texts get clearly different logits.

The poisoned models have one more word, `POISON`. They warm up normally. For a text with that word:

    build_poison_nan      its logit is NaN; other pairs are not affected
    build_poison_crash    scoring its batch raises an error
"""

import itertools
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Tokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaTokenizer,
)

from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER

POISON = "poison"

_WORDS = """
    the a of and to in is for on with what how does do river city bridge water energy light
    capital france paris berlin germany cat dog bird house old new long short where when why
    history music science heart moon sun rain snow
"""
WORDS = (*_WORDS.split(), QUERY_MARKER, DOCUMENT_MARKER)

CJK_AND_EMOJI = list("日本語中文東京都的是天地人🙂🚀❤👩")

SPECIALS = ("PAD", "UNK", "CLS", "SEP", "MASK")
"""Special tokens of the families whose tokens have square brackets."""

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("a", "n")]
"""Merges of a vocabulary of bytes."""

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WEIGHT_SPREAD = 0.3
TOKENS_MAX = 512


def build(folder: Path, family: str = "bert", *, seed: int = 0, labels: int = 1) -> Path:
    """Write a model of ``family`` (a key of `FAMILIES`) with ``labels`` logits to ``folder``."""
    return _save(folder, *_make(family, seed, labels))


def build_poison_nan(folder: Path) -> Path:
    """A BERT for which `POISON` has an embedding of NaN."""
    tokenizer, model = _make("bert", 0, 1)
    poison_id = tokenizer.convert_tokens_to_ids(POISON)
    with torch.no_grad():
        model.get_input_embeddings().weight[poison_id] = float("nan")
    return _save(folder, tokenizer, model)


def build_poison_crash(folder: Path) -> Path:
    """A BERT whose embedding table ends just before `POISON`, its last word."""
    tokenizer, model = _make("bert", 0, 1)
    poison_id = tokenizer.convert_tokens_to_ids(POISON)
    assert poison_id == len(tokenizer) - 1
    model.resize_token_embeddings(poison_id)
    return _save(folder, tokenizer, model)


def _make(family: str, seed: int, labels: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    tokenizer, model = FAMILIES[family](labels)
    return tokenizer, model.eval()


def _save(folder: Path, tokenizer: Any, model: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _bert(labels: int) -> tuple[Any, Any]:
    tokenizer = BertTokenizer(vocab=_word_pieces(), model_max_length=TOKENS_MAX)
    config = BertConfig(
        **SHAPE,
        intermediate_size=64,
        vocab_size=len(tokenizer),
        num_labels=labels,
        initializer_range=WEIGHT_SPREAD,
    )
    return tokenizer, BertForSequenceClassification(config)


def _distilbert(labels: int) -> tuple[Any, Any]:
    tokenizer = BertTokenizer(
        vocab=_word_pieces(),
        model_max_length=TOKENS_MAX,
        model_input_names=["input_ids", "attention_mask"],
    )
    config = DistilBertConfig(
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        vocab_size=len(tokenizer),
        num_labels=labels,
        initializer_range=WEIGHT_SPREAD,
    )
    return tokenizer, DistilBertForSequenceClassification(config)


def _electra(labels: int) -> tuple[Any, Any]:
    tokenizer = BertTokenizer(vocab=_word_pieces(), model_max_length=TOKENS_MAX)
    config = ElectraConfig(
        **SHAPE,
        embedding_size=16,
        intermediate_size=64,
        vocab_size=len(tokenizer),
        num_labels=labels,
        initializer_range=WEIGHT_SPREAD,
    )
    return tokenizer, ElectraForSequenceClassification(config)


def _modernbert(labels: int) -> tuple[Any, Any]:
    """Its two layers in the middle attend to at most 8 tokens on either side."""
    specials = {f"{name.lower()}_token": f"[{name}]" for name in SPECIALS}
    vocabulary = _numbered([*specials.values(), *_bytes(), *map("".join, MERGES)])
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **specials,
        model_max_length=TOKENS_MAX,
        model_input_names=["input_ids", "attention_mask"],
    )
    config = ModernBertConfig(
        **SHAPE | {"num_hidden_layers": 4},
        intermediate_size=64,
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS_MAX,
        local_attention=16,
        pad_token_id=vocabulary["[PAD]"],
        bos_token_id=vocabulary["[CLS]"],
        cls_token_id=vocabulary["[CLS]"],
        eos_token_id=vocabulary["[SEP]"],
        sep_token_id=vocabulary["[SEP]"],
        num_labels=labels,
        initializer_range=WEIGHT_SPREAD,
    )
    return tokenizer, ModernBertForSequenceClassification(config)


def _roberta(labels: int) -> tuple[Any, Any]:
    entries = ["<s>", "<pad>", "</s>", "<unk>", *_bytes(), *map("".join, MERGES), "<mask>"]
    tokenizer = RobertaTokenizer(
        vocab=_numbered(entries), merges=MERGES, model_max_length=TOKENS_MAX
    )
    return tokenizer, RobertaForSequenceClassification(
        _roberta_config(RobertaConfig, len(tokenizer), labels)
    )


def _xlm_roberta(labels: int) -> tuple[Any, Any]:
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = XLMRobertaTokenizer(
        vocab=[*specials, *_sentence_pieces(), ("<mask>", 0.0)], model_max_length=TOKENS_MAX
    )
    return tokenizer, XLMRobertaForSequenceClassification(
        _roberta_config(XLMRobertaConfig, len(tokenizer), labels)
    )


def _deberta_v2(labels: int) -> tuple[Any, Any]:
    """Like DeBERTa v3: positions only relative to each other, and no token types."""
    specials = [(f"[{name}]", 0.0) for name in SPECIALS]
    tokenizer = DebertaV2Tokenizer(
        vocab=[*specials, *_sentence_pieces()],
        model_max_length=TOKENS_MAX,
    )
    config = DebertaV2Config(
        **SHAPE,
        intermediate_size=64,
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS_MAX,
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        num_labels=labels,
        initializer_range=WEIGHT_SPREAD / 2,  # Attention adds three products instead of one.
    )
    return tokenizer, DebertaV2ForSequenceClassification(config)


def _roberta_config(config: Any, vocabulary: int, labels: int) -> Any:
    return config(
        **SHAPE,
        intermediate_size=64,
        vocab_size=vocabulary,
        num_labels=labels,
        max_position_embeddings=TOKENS_MAX + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=WEIGHT_SPREAD,
    )


def _word_pieces() -> dict[str, int]:
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = itertools.chain(
        (f"[{name}]" for name in SPECIALS),
        letters,
        (f"##{letter}" for letter in letters),
        string.punctuation,
        CJK_AND_EMOJI,
        (word for word in WORDS if len(word) > 1),
        ["##s", "##ing", "##ed"],
        [POISON],
    )
    return _numbered(list(dict.fromkeys(pieces)))


def _bytes() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _sentence_pieces() -> list[tuple[str, float]]:
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, *CJK_AND_EMOJI]
    pieces = [("▁", -3.0), *((f"▁{word}", -4.0) for word in WORDS)]
    return pieces + [(character, -8.0) for character in dict.fromkeys(characters)]


def _numbered(entries: list[str]) -> dict[str, int]:
    return {entry: number for number, entry in enumerate(entries)}


FAMILIES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "bert": _bert,
    "deberta_v2": _deberta_v2,
    "distilbert": _distilbert,
    "electra": _electra,
    "modernbert": _modernbert,
    "roberta": _roberta,
    "xlm_roberta": _xlm_roberta,
}
