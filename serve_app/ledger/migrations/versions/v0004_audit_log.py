"""Rename the table `admin_acts` to `audit_log`, and its column `act` to `action`."""

from alembic import op

revision = "v0004"
down_revision = "v0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        op.execute("DROP TRIGGER admin_acts_no_update")
        op.execute("DROP TRIGGER admin_acts_no_delete")
    else:
        op.execute("DROP TRIGGER admin_acts_no_change ON admin_acts")
        op.execute("DROP FUNCTION admin_acts_only_added_to()")
        op.execute("ALTER TABLE admin_acts RENAME CONSTRAINT admin_acts_pkey TO audit_log_pkey")
        op.execute("ALTER SEQUENCE admin_acts_id_seq RENAME TO audit_log_id_seq")
    op.drop_index("admin_acts_by_tenant", "admin_acts")
    op.rename_table("admin_acts", "audit_log")
    op.execute("ALTER TABLE audit_log RENAME COLUMN act TO action")
    op.create_index("audit_log_by_tenant", "audit_log", ["tenant_id", "id"])
    if sqlite:
        _append_only_sqlite()
    else:
        _append_only_postgresql()


def _append_only_sqlite() -> None:
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_log_no_{verb.lower()} BEFORE {verb} ON audit_log "
            "BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
        )


def _append_only_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION audit_log_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'audit_log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_append_only()"
    )
