"""A dump, restored by the roles that people have: everything is there, or the doctor says what is not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from revector.core import cutover
from revector.core.database import Database
from revector.core.doctor import examine
from revector.core.embedded.programs import binary
from revector.core.migrations import repair, upgrade
from revector.core.migrations.drift import differences
from revector.core.roles import granting
from revector.core.settings import Settings
from tests.core.test_drift import picture
from tests.databases import bare_database
from tests.roles import login_roles
from tests.versions import NUMBERS, add_chunks, ready_version


@contextmanager
def database_of(server: Database, role: str) -> Iterator[Database]:
    """An empty database that a plain role owns, with pgvector, as managed services give it, as that role sees it."""
    with bare_database(server.dsn.replace(f"/{conninfo_to_dict(server.dsn)['dbname']}?", "/postgres?")) as found:
        with psycopg.connect(found.dsn, autocommit=True) as admin:
            name = sql.Identifier(admin.info.dbname)
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(role)))
            admin.execute("CREATE EXTENSION vector")
        yield replace(found, dsn=make_conninfo(found.dsn, user=role), schema="docs")


def dumped(database: Database, folder: Path) -> Path:
    file = folder / "collection.dump"
    subprocess.run([binary("pg_dump"), "-Fc", "-f", file, "-d", database.dsn], check=True)
    return file


def restored(database: Database, file: Path, *options: str) -> list[str]:
    """Restore a dump; returns the errors, but for the comment of an extension, which only its owner may write."""
    program = [binary("pg_restore"), *options, "-d", database.dsn, file]
    said = subprocess.run(program, capture_output=True, text=True, check=False).stderr
    errors = [line for line in said.splitlines() if "ERROR" in line]
    return [line for line in errors if "must be owner of extension vector" not in line]


def brackets_apart(found: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Without brackets, of which Postgres shows fewer in a check that was restored."""
    return {tuple(re.sub("[()]", "", part or "") for part in one) for one in found}


SEARCH = "SELECT content FROM search_chunks((SELECT embedding FROM chunk_embeddings WHERE chunk_id = 8), 3, 'v1')"


@pytest.mark.parametrize("options", [(), ("--no-owner",), ("--no-owner", "--no-privileges")], ids=" ".join)
@pytest.mark.parametrize("by", ["the plain role", "a superuser"])
def test_nothing_is_lost_by_a_dump_and_a_restore(
    template: Database, tmp_path: Path, by: str, options: tuple[str, ...]
) -> None:
    with (
        login_roles(replace(template, schema="docs"), "plain", "reader") as names,
        database_of(template, names["plain"]) as source,
        database_of(template, names["plain"]) as target,
    ):
        with psycopg.connect(template.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(names["plain"])))
        upgrade(source)
        if by == "a superuser":
            target = replace(target, dsn=make_conninfo(target.dsn, user="postgres"))
        with source.session("test") as connection:
            add_chunks(connection, NUMBERS)
            ready_version(source, connection, "v1")
            cutover.run(connection, "v1", confirm="v1")
            granting.grant(connection, names["reader"], "operator")
            before, found = brackets_apart(picture(connection)), connection.execute(SEARCH).fetchall()
        assert restored(target, dumped(source, tmp_path), *options) == []
        with target.session("test") as connection:
            assert connection.execute(SEARCH).fetchall() == found
            if not options:
                assert brackets_apart(picture(connection)) == before
            repair(target)
            left = differences(connection)
            assert {one.severity for one in left} == (set() if "--no-privileges" in options else {"warning"})
            assert all("a role of another collection" in one.detail for one in left)
            for one in left:
                connection.execute(one.statement.encode())
            assert differences(connection) == []
            granting.grant(connection, names["reader"], "operator")
        assert examine(target, Settings()).ok
        with replace(target, dsn=make_conninfo(target.dsn, user=names["reader"])).session("test") as reader:
            assert reader.execute(SEARCH).fetchall() == found
