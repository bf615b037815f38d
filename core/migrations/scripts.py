"""A revision's SQL, in separate files in `sql/`: one for each concern."""

from __future__ import annotations

from pathlib import Path

from alembic import op
from psycopg import sql

TEXT_CONFIGURATION = "english"
"""The text search configuration of a collection's words, of its chunks and of queries alike."""
_FOLDER = Path(__file__).parent / "sql"


def run_sql(*concerns: str) -> None:
    """Run files of `sql/` in the revision's transaction.

    The files qualify every name outside pg_catalog, and nothing else is on the search path meanwhile. Placeholders
    are written as in psql: `:schema` is the collection's schema and `:pgvector` the extension's; `:'schema'` and
    `:'pgvector'` are the same names as strings. `:'configuration'` is TEXT_CONFIGURATION.
    """
    # Directly with psycopg: a file has several statements, and percent signs that are not placeholders.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101  (a checked-out connection has one)
    search_path, schema, pgvector = connection.execute(
        """
        SELECT current_setting('search_path'), current_schema(), n.nspname
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
        """
    ).fetchone()
    names = {
        ":'pgvector'": sql.Literal(pgvector),
        ":pgvector": sql.Identifier(pgvector),
        ":'schema'": sql.Literal(schema),
        ":schema": sql.Identifier(schema),
        ":'configuration'": sql.Literal(TEXT_CONFIGURATION),
    }
    connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    for concern in concerns:
        script = (_FOLDER / f"{concern}.sql").read_text(encoding="utf-8")
        for placeholder, name in names.items():
            script = script.replace(placeholder, name.as_string(connection))
        connection.execute(script)
    connection.execute("SELECT set_config('search_path', %s, true)", [search_path])
