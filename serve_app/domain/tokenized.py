"""The token ids of a job's pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.domain.units import Tokens


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document, scored like one."""

    document: int
    """Index in the request."""

    start: int
    end: int
    """Both are in code points, and ``end`` is exclusive."""

    truncated: bool = False
    """Whether a limit leaves the document's end without a window."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tokenized query and document, with special tokens."""

    index: int
    """Position in the job."""

    input_ids: bytes
    """Little-endian int32."""

    query_tokens: Tokens
    """Leading tokens in the query's segment, with special tokens."""

    truncated: bool
    window: Window | None = None
    """With ``Overflow.CHUNK``."""

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)

    @property
    def document(self) -> int:
        return self.index if self.window is None else self.window.document


@dataclass(frozen=True, slots=True)
class TokenizedJob:
    """The pairs of a job, in request order; a document has a pair for each window.

    It holds columns, because 10,000 objects would take milliseconds to copy between processes.

    Shapes, for P pairs with T tokens in total:
        input_ids     T little-endian int32, pair after pair
        lengths       (P,)  tokens of each pair
        query_tokens  (P,)  tokens of each query segment
        truncated     (P,)
        windows       (P,)  or () without ``Overflow.CHUNK``
    """

    input_ids: bytes
    lengths: tuple[int, ...]
    query_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    windows: tuple[Window, ...] = ()
    warnings: tuple[str, ...] = ()
    """For the client, about texts of which the model reads little."""

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
