"""An operator that works on a service's ledger in this process, without starting commands."""

from dataclasses import dataclass

from serve_app.access import api_keys
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import UNLIMITED, RateLimits
from serve_app.domain.units import Credits, KeyId, Seconds, TenantId
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import transaction

DATABASE_TIMEOUT_S = Seconds(30.0)


@dataclass(frozen=True, slots=True)
class Key:
    """One API key and the tenant that pays for it."""

    tenant: str
    key_id: str
    secret: str


class Office:
    """The operator: creates tenants and keys, grants credit, revokes keys."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    def tenant(self, name: str, credit: Credits) -> str:
        audit = _audit()
        with transaction(self._database_url, DATABASE_TIMEOUT_S) as connection:
            tenant = tenant_accounts.create_tenant(connection, name, audit).id
            if credit:
                credit_grants.grant(connection, tenant, credit, "first", audit)
        return tenant

    def key(
        self, tenant: str, limits: RateLimits = UNLIMITED, scope: str = api_keys.SCOPE_RERANK
    ) -> Key:
        made = api_keys.generate()
        new = tenant_keys.NewKey(
            made.key_id, made.secret_sha256, "tests", {scope}, None, None, limits
        )
        with transaction(self._database_url, DATABASE_TIMEOUT_S) as connection:
            tenant_keys.create_key(connection, TenantId(tenant), new, _audit())
        return Key(tenant, made.key_id, made.reveal())

    def top_up(self, tenant: str, credit: Credits) -> None:
        with transaction(self._database_url, DATABASE_TIMEOUT_S) as connection:
            credit_grants.grant(connection, TenantId(tenant), credit, "more", _audit())

    def revoke(self, key: Key) -> None:
        with transaction(self._database_url, DATABASE_TIMEOUT_S) as connection:
            tenant_keys.revoke_key(connection, KeyId(key.key_id), _audit())


def _audit() -> AuditContext:
    return AuditContext("tests", SystemClock().moment())
