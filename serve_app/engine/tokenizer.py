"""Convert a job's texts to pairs of token ids, identical to transformers' ids for each pair.

Gateways run this module, so it does not import torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer as Backend

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.job import Job
from serve_app.domain.model import INPUT_ID_BYTES, Overflow, Truncation
from serve_app.domain.tokenized import Pair, TokenizedJob
from serve_app.domain.units import Tokens
from serve_app.engine.export_cache import digest, exported, files_below
from serve_app.engine.overflow import divide, refuse_truncated, windows_at_most
from serve_app.engine.sources import ModelLoadError
from serve_app.engine.template import Template
from serve_app.engine.text_prefix import TextEncoder, cut
from serve_app.engine.text_warnings import text_warnings, unknown_token
from serve_app.engine.word_cache import ids_as_bytes
from serve_app.ports import Usage

PAIR_TOKENS_DEFAULT = 512
"""Limit of a model that states none."""

EXPORT = Path(__file__).with_name("tokenizer_export.py")
EXPORT_TIMEOUT_S = 120

SUFFIXES = frozenset({".json", ".model", ".txt"})
"""Endings of a model's files that may change its tokenizer."""

FIELDS = "tokenizer_files.json"


def limit_threads(threads: int) -> None:
    """Limit the threads that all Rust tokenizers of this process and of its child processes share.

    It must run before the process first encodes a batch, which creates the thread pool.
    """
    assert threads >= 1
    # rayon, the pool's library, offers no other way here; see its `ThreadPoolBuilder`.
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # noqa: TID251 - written for Rust, not read


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Tokenizer data from a model's folder; see `serve_app.engine.tokenizer_export`."""

    model: str
    backend: str
    """The Rust tokenizer as JSON."""

    tokenizer_tokens_max: int
    """The tokenizer's own limit; astronomically large if it states none."""

    positions: int | None
    """Number of tokens with a position; ``None`` if the config does not state it."""

    token_types: bool
    """Whether token types separate the query's segment from the document's."""

    @classmethod
    def read(cls, folder: Path, model: str, cache: Path | None = None) -> "TokenizerFiles":
        """Read the data through transformers: in a child process, unless torch is already loaded.

        Raises: ModelLoadError.
        """
        try:
            with exported(_key(folder), cache, partial(_export, folder)) as files:
                return cls(model=model, **json.loads((files / FIELDS).read_text("utf-8")))
        # transformers and the Rust tokenizer may raise any error for a damaged file.
        except Exception as error:
            raise ModelLoadError(
                f"model {model}: its tokenizer cannot be read ({_last_line(error)}); "
                "save it again with `AutoTokenizer.save_pretrained`"
            ) from error

    def pair_tokens_max(self, override: int | None) -> Tokens:
        """Return the length of the longest pair, special tokens included.

        Raises: ModelLoadError when ``override`` exceeds the model's positions.
        """
        if override is None:
            positions = self.positions or PAIR_TOKENS_DEFAULT
            return Tokens(min(self.tokenizer_tokens_max, positions))
        if self.positions is not None and override > self.positions:
            raise ModelLoadError(
                f"model {self.model}: pair_tokens_max is {override}, but the model has positions "
                f"for {self.positions} tokens only; set at most that"
            )
        return Tokens(override)


def _key(folder: Path) -> str:
    files = [(EXPORT.name, EXPORT), *files_below(folder, SUFFIXES)]
    return digest("tokenizer", ("tokenizers", "transformers"), files)


def _export(folder: Path, out: Path, inherited: tuple[int, ...]) -> None:
    if "torch" in sys.modules:
        from serve_app.engine.tokenizer_export import export  # noqa: PLC0415 - imports torch

        fields = json.dumps(export(str(folder)))
    else:
        # -P keeps the script's folder off the import path; its modules would hide others.
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-P", str(EXPORT), str(folder)],
            pass_fds=inherited,
            capture_output=True,
            text=True,
            check=False,
            timeout=EXPORT_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr or f"exit status {done.returncode}")
        fields = done.stdout.splitlines()[-1]
    (out / FIELDS).write_text(fields, encoding="utf-8")


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """``ids`` are truncated to a pair's length, but ``tokens`` counts the whole query."""

    ids: bytes
    tokens: int


class PairTokenizer:
    """Tokenizer of one model. Thread-safe."""

    pair_tokens_max: Tokens

    def __init__(self, files: TokenizerFiles, pair_tokens_max: int | None = None) -> None:
        """Raises: ModelLoadError."""
        backend = Backend.from_str(files.backend)
        # A tokenizer.json may enable both.
        backend.no_truncation()
        backend.no_padding()
        self.template = Template.learn(backend, files.model)
        self._prefix, self._middle, self._suffix = map(
            ids_as_bytes, (self.template.prefix, self.template.middle, self.template.suffix)
        )
        self._encoder = TextEncoder(backend)
        self._unknown = unknown_token(files.backend)
        self.pair_tokens_max = files.pair_tokens_max(pair_tokens_max)
        self._text_tokens_max = self.pair_tokens_max - self.template.tokens
        if self._text_tokens_max < 2:
            raise ModelLoadError(
                f"model {files.model}: pair_tokens_max is {self.pair_tokens_max}, which leaves no "
                f"room for text with {self.template.tokens} special tokens; set at least 16"
            )

    def check_queries(self, job: Job) -> Usage:
        """See `serve_app.ports.Tokenizer`.

        A query may leave no room if the job allows it to be truncated.
        """
        room = self._text_tokens_max - 1
        rooms: dict[str, int] = {}
        for query, index in job.queries.items():
            tokens = self._encoder.count(query)
            rooms[query] = self._text_tokens_max - tokens
            if tokens == 0:
                raise InvalidRequest(
                    job.query_path(index),
                    "must have at least one character that the model's tokenizer keeps",
                )
            if tokens > room and job.truncation is Truncation.ONLY_DOCUMENT:
                problem = (
                    f"is {tokens:,} tokens long; a query may have at most {room:,} tokens for this "
                    "model; shorten it"
                )
                if job.overflow is Overflow.TRUNCATE:
                    problem += ", or send truncation_strategy 'longest_first' to have it truncated"
                raise InvalidRequest(job.query_path(index), problem)
        chunked = job.overflow is Overflow.CHUNK
        documents = windows_at_most(job, rooms) if chunked else len(job.pairs)
        return Usage(documents, Tokens(documents * self.pair_tokens_max))

    def tokenize(self, job: Job) -> TokenizedJob:
        """See `serve_app.ports.Tokenizer`. Every distinct query is tokenized once.

        Raises: InvalidRequest, TooLarge; see `serve_app.engine.overflow`.
        """
        texts = list(job.queries)
        queries = {
            query: EncodedQuery(
                ids[: self._text_tokens_max * INPUT_ID_BYTES], len(ids) // INPUT_ID_BYTES
            )
            for query, ids in zip(texts, self._encoder.encode(texts), strict=True)
        }
        rooms = {text: self._text_tokens_max - query.tokens for text, query in queries.items()}
        if job.overflow is Overflow.CHUNK:
            job, windows = divide(job, rooms, self._encoder)
            pairs = tuple(
                replace(pair, window=window, truncated=pair.truncated or window.truncated)
                for pair, window in zip(self._pairs(job, queries), windows, strict=True)
            )
        else:
            pairs = self._pairs(job, queries)
            if job.overflow is Overflow.ERROR:
                refuse_truncated(job, pairs, rooms, self._encoder)
        warnings = text_warnings(job, pairs, self.template, self._text_tokens_max, self._unknown)
        return TokenizedJob.of(pairs, warnings)

    def _pairs(self, job: Job, queries: Mapping[str, EncodedQuery]) -> tuple[Pair, ...]:
        # A document of this length is truncated under either strategy, and a longer one does not
        # change the part of the query that is kept. Queries that fit the model share one length.
        indices: dict[int, list[int]] = {}
        for index, pair in enumerate(job.pairs):
            enough = max(self._text_tokens_max, queries[pair.query].tokens) + 1
            indices.setdefault(enough, []).append(index)
        pairs: dict[int, Pair] = {}
        read_max = job.document_tokens_max
        for enough, group in indices.items():
            documents = [cut(job.pairs[index].document, enough) for index in group]
            encoded = self._encoder.encode(documents)
            for index, document, ids in zip(group, documents, encoded, strict=True):
                pair = job.pairs[index]
                kept = ids if read_max is None else ids[: read_max * INPUT_ID_BYTES]
                whole = len(document) == len(pair.document) and len(kept) == len(ids)
                pairs[index] = self._pair(
                    index, queries[pair.query], kept, job.truncation, whole=whole
                )
        return tuple(pairs[index] for index in range(len(job.pairs)))

    def _pair(
        self,
        index: int,
        query: EncodedQuery,
        document: bytes,
        truncation: Truncation,
        *,
        whole: bool,
    ) -> Pair:
        """``whole``: ``document`` has the tokens of all its text."""
        document_tokens = len(document) // INPUT_ID_BYTES
        query_kept, document_kept = fit(
            query.tokens, document_tokens, self._text_tokens_max, truncation
        )
        query_segment = self._prefix + query.ids[: query_kept * INPUT_ID_BYTES] + self._middle
        return Pair(
            index=index,
            input_ids=query_segment + document[: document_kept * INPUT_ID_BYTES] + self._suffix,
            query_tokens=Tokens(len(query_segment) // INPUT_ID_BYTES),
            truncated=not whole or query_kept + document_kept < query.tokens + document_tokens,
        )


def fit(query: int, document: int, room: int, truncation: Truncation) -> tuple[int, int]:
    """Return how many leading tokens of the query and of the document are kept.

    Longest first cuts exactly as the Rust tokenizer does: the shorter text stays whole if it leaves
    the other at least as much; otherwise each gets half, and the longer one the odd token. Source:
    `truncate_encodings` in tokenizers 0.23, src/utils/truncation.rs.
    """
    if query + document <= room:
        return query, document
    if truncation is Truncation.ONLY_DOCUMENT:
        return query, room - query
    shorter, longer = sorted((query, document))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return (shorter, longer) if query <= document else (longer, shorter)
