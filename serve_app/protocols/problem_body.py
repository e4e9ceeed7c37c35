"""The default error body: one message in every place where a client family looks for it.

OpenAI's clients read ``error``, Cohere's ``message``, the Jina and Voyage families ``detail``.
"""

from typing import Annotated

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """The form of OpenAI."""

    message: str
    type: Annotated[str, Field(description="The family of the error.")]
    param: Annotated[str | None, Field(description="The request field at fault, if one is.")]
    code: Annotated[str, Field(description="Names the error; stable.")]


class ErrorBody(BaseModel):
    """Why there is no answer. Nothing was charged."""

    error: ErrorDetail
    message: str
    detail: str
    id: Annotated[str, Field(description="Names the request in our logs.")]


def render_problem(detail: ErrorDetail, request_id: str) -> bytes:
    """The body, as JSON in UTF-8."""
    body = ErrorBody(error=detail, message=detail.message, detail=detail.message, id=request_id)
    return body.model_dump_json().encode()
