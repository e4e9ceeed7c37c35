"""The token ids of a job's pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.domain.units import Tokens


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document that is scored like a document."""

    document: int
    """Index of the document in the request."""

    start: int
    end: int
    """The range of the part in code points, without ``end``."""

    truncated: bool = False
    """Whether a limit leaves the end of the document without a window."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tokenized query and document, with the model's special tokens."""

    index: int
    """Position of the pair in its job, which is that in the request if there are no windows."""

    input_ids: bytes
    """Token ids of the whole pair, as little-endian int32."""

    query_tokens: Tokens
    """Number of leading tokens in the query's segment, including special tokens."""

    truncated: bool
    window: Window | None = None
    """The part of the document in this pair, with ``Overflow.CHUNK``."""

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)

    @property
    def document(self) -> int:
        return self.index if self.window is None else self.window.document


@dataclass(frozen=True, slots=True)
class TokenizedJob:
    """The tokenized pairs of a job, in request order; a document has a pair for each window.

    It holds columns, because 10,000 objects would take milliseconds to copy between processes.

    Shapes, for P pairs with T tokens in total:
        input_ids     T little-endian int32, pair after pair, with the model's special tokens
        lengths       (P,)  tokens of each pair
        query_tokens  (P,)  tokens of each pair's query segment
        truncated     (P,)
        windows       (P,)  the part of the document in each pair; () without ``Overflow.CHUNK``
    """

    input_ids: bytes
    lengths: tuple[int, ...]
    query_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    windows: tuple[Window, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences for the client about texts of which the model reads little."""

    @classmethod
    def of(cls, pairs: Sequence[Pair], warnings: tuple[str, ...] = ()) -> "TokenizedJob":
        return cls(
            input_ids=b"".join([pair.input_ids for pair in pairs]),
            lengths=tuple([pair.tokens for pair in pairs]),
            query_tokens=tuple([pair.query_tokens for pair in pairs]),
            truncated=tuple([pair.truncated for pair in pairs]),
            windows=tuple([pair.window for pair in pairs if pair.window is not None]),
            warnings=warnings,
        )

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)
