"""Error bodies: the interface of all wire formats, and the default body.

The default body repeats the message in every field that a client family reads: OpenAI's clients
read ``error``, Cohere's ``message``, and the Jina family ``detail``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from serve_app.domain.errors import RerankError


@dataclass(frozen=True, slots=True)
class Problem:
    """What error bodies contain."""

    error: RerankError
    status: int
    """The default status."""

    family: str
    """``error.type`` of OpenAI's format."""

    request_id: str


RenderProblem = Callable[[Problem], tuple[int, bytes]]
"""Returns the status and the JSON body."""


class ErrorDetail(BaseModel):
    """The error in OpenAI's format."""

    message: str
    type: Annotated[str, Field(description="Family of the error.")]
    param: Annotated[str | None, Field(description="The request field at fault, if one is.")]
    code: Annotated[str, Field(description="Stable code of the error.")]


class ErrorBody(BaseModel):
    """The reason for a failed request. Nothing was charged."""

    error: ErrorDetail
    message: str
    detail: str
    id: Annotated[str, Field(description="Id of the request in the service's logs.")]


def render_problem(problem: Problem) -> tuple[int, bytes]:
    error = problem.error
    message = error.public_message
    detail = ErrorDetail(message=message, type=problem.family, param=error.where, code=error.code)
    body = ErrorBody(error=detail, message=message, detail=message, id=problem.request_id)
    return problem.status, body.model_dump_json().encode()
