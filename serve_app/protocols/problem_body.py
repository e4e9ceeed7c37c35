"""The default error body. It repeats the message for each family of clients: OpenAI's clients read
``error``, Cohere's ``message``, and those of Jina and Voyage ``detail``.
"""

from typing import Annotated

from pydantic import BaseModel, Field


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


def render_problem(detail: ErrorDetail, request_id: str) -> bytes:
    body = ErrorBody(error=detail, message=detail.message, detail=detail.message, id=request_id)
    return body.model_dump_json().encode()
