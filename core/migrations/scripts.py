"""Runs a revision's SQL, which is in files of `sql/`: one for each concern."""

from __future__ import annotations

from alembic import op

from revector.core.migrations.sources import place_of, read


def run_sql(*concerns: str) -> None:
    """Run files of `sql/` in the revision's transaction, with nothing but pg_catalog on the search path."""
    # Directly with psycopg: a file has several statements, and percent signs that are not placeholders.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101  (a checked-out connection has one)
    place = place_of(connection)
    (search_path,) = connection.execute("SELECT current_setting('search_path')").fetchone()
    connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    for concern in concerns:
        connection.execute(place.fill(read(concern)))
    connection.execute("SELECT set_config('search_path', %s, true)", [search_path])
