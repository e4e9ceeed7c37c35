"""Database engines, tables, the runner of migrations, audit log and backups."""
