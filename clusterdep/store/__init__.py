"""SQLite: schema, migrations, named queries, the one writer."""
