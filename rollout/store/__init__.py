"""The only SQL: tables, guarded updates, leases, queries, migrations."""
