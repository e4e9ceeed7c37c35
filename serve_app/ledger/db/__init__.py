"""Database engines, tables, migrations' runner, audit log and backups."""
