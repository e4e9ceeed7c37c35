"""Tests of tenant accounts."""

import pytest
from sqlalchemy import Engine

from serve_app.domain.units import Credits, KeyId, ModelId, Moment, TenantId
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.accounts.tenant_accounts import AccountProblem
from serve_app.ledger.accounts.tenant_keys import NewKey
from serve_app.ledger.db.audit_log import AuditContext
from tests.support.ledger import AUDIT, a_tenant


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "nul\0", "x" * 129])
def test_a_name_that_cannot_be_printed_on_one_line_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(AccountProblem), engine.begin() as connection:
        tenant_accounts.create_tenant(connection, name, AUDIT)


def test_a_name_is_used_once_and_the_refusal_leaves_the_transaction_usable(engine: Engine) -> None:
    with engine.begin() as connection:
        first = tenant_accounts.create_tenant(connection, "acme", AUDIT)
        with pytest.raises(AccountProblem, match="already"):
            tenant_accounts.create_tenant(connection, "acme", AUDIT)
        second = tenant_accounts.create_tenant(connection, "bolt", AUDIT)

        assert tenant_accounts.list_tenants(connection) == [first, second]


def test_a_tenant_is_found_by_name_and_by_id_without_confusion(engine: Engine) -> None:
    with engine.begin() as connection:
        first = tenant_accounts.create_tenant(connection, "acme", AUDIT)
        tenant_accounts.create_tenant(connection, first.id, AUDIT)

        assert tenant_accounts.find_tenant(connection, "acme") == first
        assert tenant_accounts.find_tenant(connection, first.id) == first
        with pytest.raises(AccountProblem, match="no tenant 'bolt'"):
            tenant_accounts.find_tenant(connection, "bolt")


def test_the_weight_of_a_tenant_is_returned_with_its_keys(engine: Engine) -> None:
    new = NewKey(KeyId("k1"), b"\1" * 32, "label", {"rerank"}, None, None)
    with engine.begin() as connection:
        tenant = tenant_accounts.create_tenant(connection, "acme", AUDIT)
        tenant_keys.create_key(connection, tenant.id, new, AUDIT)
        weights = []
        for weight in (1, 3):
            tenant_accounts.change_settings(connection, tenant.id, {"weight": weight}, AUDIT)
            found = tenant_keys.find_keys(connection, [KeyId("k1")]).get(KeyId("k1"))
            assert found is not None
            weights.append(found.caller.tenant_settings.weight)

        assert weights == [1, 3]
        for weight in (0, -1, 1_001):
            with pytest.raises(AccountProblem):
                tenant_accounts.change_settings(connection, tenant.id, {"weight": weight}, AUDIT)
        with pytest.raises(AccountProblem):
            tenant_accounts.change_settings(connection, TenantId("tn_x"), {"weight": 2}, AUDIT)


def test_a_grant_to_an_unknown_tenant_is_refused(engine: Engine) -> None:
    with pytest.raises(AccountProblem), engine.begin() as connection:
        credit_grants.grant(connection, TenantId("tn_x"), Credits(1), "why", AUDIT)


def test_a_key_is_found_as_it_was_stored(engine: Engine) -> None:
    new = NewKey(KeyId("k1"), b"\1" * 32, "label", {"rerank"}, {ModelId("small")}, Moment(9))
    with engine.begin() as connection:
        tenant = tenant_accounts.create_tenant(connection, "acme", AUDIT)
        tenant_keys.create_key(connection, tenant.id, new, AUDIT)
        found = tenant_keys.find_keys(connection, [KeyId("k1")]).get(KeyId("k1"))

        assert found is not None
        assert (found.caller.tenant, found.secret_sha256) == (tenant.id, b"\1" * 32)
        assert found.caller.scopes == {"rerank"}
        assert found.caller.models == frozenset({ModelId("small")})
        assert (found.expires_at, found.revoked_at) == (9, None)


def test_a_revoked_key_keeps_the_date_of_its_first_revocation(
    engine: Engine, database_url: str
) -> None:
    caller = a_tenant(database_url, 0)
    with engine.begin() as connection:
        tenant_keys.revoke_key(connection, caller.key_id, AuditContext("tester", Moment(5)))
        tenant_keys.revoke_key(connection, caller.key_id, AuditContext("tester", Moment(6)))

        (key,) = tenant_keys.list_keys(connection, caller.tenant)
        assert key.stored.revoked_at == 5
        with pytest.raises(AccountProblem):
            tenant_keys.revoke_key(connection, KeyId("nobody"), AUDIT)
