"""Convert ledger accounts to wire objects, and account problems to client errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from serve_app.domain.errors import Conflict, InvalidRequest, NotFound
from serve_app.domain.formats import write_moment
from serve_app.domain.units import Moment
from serve_app.ledger.accounts.credit_grants import Grant
from serve_app.ledger.accounts.tenant_accounts import (
    AccountConflict,
    AccountProblem,
    Tenant,
    UnknownAccount,
)
from serve_app.ledger.accounts.tenant_keys import Key
from serve_app.ledger.db.audit_log import AuditEntry
from serve_app.ledger.reports.credit_state import CreditState
from serve_app.ledger.reports.limit_use import LimitUse
from serve_app.ledger.reports.monthly_statement import month_name
from serve_app.protocols.admin import (
    AuditEntryObject,
    GrantList,
    GrantObject,
    KeyObject,
    LimitsObject,
    NewKeyObject,
    TenantObject,
)
from serve_app.protocols.json_body import shown
from serve_app.protocols.manage import CallingKeyObject, CreditsObject, LimitUseObject


@contextmanager
def as_client_errors() -> Iterator[None]:
    """Convert account problems. Raises: NotFound, Conflict, InvalidRequest."""
    try:
        yield
    except UnknownAccount as problem:
        raise NotFound(shown(problem.what), None) from None
    except AccountConflict as problem:
        raise Conflict(str(problem)) from None
    except AccountProblem as problem:
        raise InvalidRequest("request", str(problem)) from None


def tenant_object(tenant: Tenant) -> TenantObject:
    return TenantObject(
        id=tenant.id,
        name=tenant.name,
        available_micro_dollars=tenant.available,
        created_at=write_moment(tenant.created_at),
        limits=LimitsObject(**asdict(tenant.limits)),
        alerts_below_micro_dollars=list(tenant.alerts_below),
        **asdict(tenant.settings),
    )


def key_object(key: Key) -> KeyObject:
    stored = key.stored
    models = stored.caller.models
    return KeyObject(
        id=stored.caller.key_id,
        tenant=stored.caller.tenant,
        tenant_name=key.tenant_name,
        label=key.label,
        scopes=sorted(stored.caller.scopes),
        models=None if models is None else sorted(models),
        created_at=write_moment(key.created_at),
        expires_at=_perhaps(stored.expires_at),
        revoked_at=_perhaps(stored.revoked_at),
        last_used_at=_perhaps(key.last_used_at),
        replaces=key.replaces,
        limits=LimitsObject(**asdict(stored.caller.key_limits)),
    )


def new_key_object(key: Key, secret: str) -> NewKeyObject:
    return NewKeyObject(**key_object(key).model_dump(), secret=secret)


def calling_key_object(key: Key, of_key: LimitUse, of_tenant: LimitUse) -> CallingKeyObject:
    return CallingKeyObject(
        **key_object(key).model_dump(exclude={"limits"}),
        limits=LimitsObject(**asdict(of_key.limits)),
        used=_used(of_key),
        tenant_limits=LimitsObject(**asdict(of_tenant.limits)),
        tenant_used=_used(of_tenant),
    )


def credits_object(state: CreditState, grants: GrantList) -> CreditsObject:
    tenant = state.tenant
    return CreditsObject(
        tenant=tenant.id,
        tenant_name=tenant.name,
        available_micro_dollars=state.available,
        reserved_micro_dollars=state.reserved,
        month=month_name(state.month),
        month_spent_micro_dollars=state.month_spent,
        monthly_budget_micro_dollars=tenant.limits.monthly_budget_micro_dollars,
        alerts_below_micro_dollars=list(tenant.alerts_below),
        grants=grants,
    )


def grant_object(grant: Grant) -> GrantObject:
    return GrantObject.model_validate(
        {
            "id": grant.id,
            "tenant": grant.tenant,
            "kind": grant.kind,
            "amount_micro_dollars": grant.amount,
            "reason": grant.reason,
            "who": grant.who,
            "created_at": write_moment(grant.created_at),
            "request_id": grant.request_id,
        }
    )


def audit_entry_object(entry: AuditEntry) -> AuditEntryObject:
    return AuditEntryObject(
        id=entry.id,
        at=write_moment(entry.at),
        who=entry.who,
        action=entry.action,
        tenant=entry.tenant,
        subject=entry.subject,
        details=entry.details,
    )


def _used(use: LimitUse) -> LimitUseObject:
    return LimitUseObject(
        requests_per_minute=use.requests_per_minute,
        documents_per_minute=use.documents_per_minute,
        concurrent_requests=use.concurrent_requests,
        month_spent_micro_dollars=use.month_spent,
    )


def _perhaps(moment: Moment | None) -> str | None:
    return None if moment is None else write_moment(moment)
