"""OpenAPI descriptions of the routes by which a tenant manages its own account, as data."""

from serve_app.domain.errors import Conflict, InvalidRequest, NotFound
from serve_app.http.openapi import parameters
from serve_app.http.openapi.operation import CHANGE_ERRORS, Operation
from serve_app.protocols.admin import (
    AuditEntryList,
    KeyChange,
    KeyList,
    KeyObject,
    KeyRotation,
    NewKeyObject,
)
from serve_app.protocols.manage import CallingKeyObject, CreditsObject, OwnKeyCreate

MANAGE_OPERATIONS = (
    Operation(
        "get",
        "/v1/key",
        "getCallingKey",
        "Get the API key of this request, and how close it is to its limits",
        CallingKeyObject,
        errors=(),
    ),
    Operation(
        "get",
        "/v1/keys",
        "listOwnKeys",
        "List the API keys of your tenant, oldest first",
        KeyList,
        parameters=parameters.LIST,
    ),
    Operation(
        "post",
        "/v1/keys",
        "createOwnKey",
        "Create an API key of your tenant; the secret is shown once",
        NewKeyObject,
        OwnKeyCreate,
        errors=CHANGE_ERRORS,
    ),
    Operation(
        "get",
        "/v1/keys/{id}",
        "getOwnKey",
        "Get an API key of your tenant",
        KeyObject,
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "patch",
        "/v1/keys/{id}",
        "changeOwnKey",
        "Change the label and the limits of an API key of your tenant",
        KeyObject,
        KeyChange,
        errors=CHANGE_ERRORS,
    ),
    Operation(
        "post",
        "/v1/keys/{id}/rotate",
        "rotateOwnKey",
        "Replace an API key of your tenant; the new secret is shown once",
        NewKeyObject,
        KeyRotation,
        errors=(*CHANGE_ERRORS, Conflict),
    ),
    Operation(
        "post",
        "/v1/keys/{id}/revoke",
        "revokeOwnKey",
        "Revoke an API key of your tenant",
        KeyObject,
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "get",
        "/v1/credits",
        "getCredits",
        "Get the credit of your tenant, with its grants, refunds and corrections",
        CreditsObject,
        parameters=parameters.LIST,
    ),
    Operation(
        "get",
        "/v1/audit-log",
        "listOwnAuditLog",
        "List the changes to your tenant and its keys",
        AuditEntryList,
        parameters=parameters.LIST,
    ),
)
