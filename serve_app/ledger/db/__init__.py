"""Database engines, tables, audit log and backups."""
