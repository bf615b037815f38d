"""Settings and connections: where the database is, what is said when it is not there, and no secret anywhere."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from revector.core import index
from revector.core.connection_strings import without_secrets
from revector.core.database import Connection, Database, readable_errors, require_schema, server_info
from revector.core.doctor import examine
from revector.core.embedded import EmbeddedServer
from revector.core.errors import RefusedError, UnreachableError, UsageError
from revector.core.migrations import upgrade
from revector.core.registry import Version
from revector.core.retrieval import EncoderCache, VersionSearcher
from revector.core.settings import configured_dsn, load_settings
from tests.versions import NUMBERS, add_chunks, ready_version


def test_flags_win_over_the_environment_and_that_over_the_file(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean_environment / "revector.toml").write_text('schema = "of_file"\nbatch_size = 7\nlabel = "prod"\n')
    monkeypatch.setenv("REVECTOR_SCHEMA", "of_environment")
    settings = load_settings()
    assert (settings.schema, settings.batch_size, settings.label) == ("of_environment", 7, "prod")
    assert load_settings(schema="of_flag", dsn=None).schema == "of_flag"


def test_a_setting_that_is_wrong_is_named(clean_environment: Path) -> None:
    file = clean_environment / "revector.toml"
    for text, message in (
        ("batch_sise = 1", "Did you mean batch_size"),
        ("batch_size = 0", "batch_size"),
        ('schema = "a b"', "schema"),
        ("label = \nx", "line 1"),
        ('maintenance_work_mem = "1; DROP"', "maintenance_work_mem"),
        ('maintenance_work_mem = "1GB\\n"', "maintenance_work_mem"),
        ('schema = "demo\\n"', "schema"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_settings()


def test_the_database_is_found_in_the_order_of_the_design(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured_dsn(load_settings()) is None
    monkeypatch.setenv("PGHOST", "somewhere")
    assert configured_dsn(load_settings()) == ""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u@h/d")
    assert configured_dsn(load_settings()) == "postgresql+psycopg://u@h/d"
    monkeypatch.setenv("REVECTOR_DSN", "host=a")
    assert configured_dsn(load_settings()) == "host=a"
    assert configured_dsn(load_settings(dsn="host=b")) == "host=b"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:sesame@host:5432/db?sslpassword=sesame&connect_timeout=3",
        "host=h user=me password=sesame dbname=db",
        "postgresql://me:sesame@h1:1,h2:2/db",
        "sesame",
        "postgresql://me:sesame@[bad/db",
        "postgresql://me:pa#sesame@127.0.0.1:1/db",
        "postgresql://me:sesame?x@127.0.0.1:1/db",
        "postgresql://me:sesame/x@127.0.0.1:1/db",
        "postgresql://me:1/sesame@127.0.0.1:1/db",
        "postgresql://me:pa@sesame@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&PASSWORD=sesame",
        "postgresql://127.0.0.1:1/db?user=me;password=sesame",
        "postgresql://127.0.0.1:1/db#password=sesame",
        "postgresql://me:sesame",
        "host=127.0.0.1 port=1 dbname=postgresql://me:sesame@h/db",
    ],
)
def test_no_password_is_shown(dsn: str) -> None:
    database = Database(dsn, "s", connect_timeout_s=1)
    assert "sesame" not in without_secrets(dsn) + database.name
    assert "sesame" not in str(load_settings(dsn=dsn)) + repr(load_settings(dsn=dsn))
    with pytest.raises((UnreachableError, UsageError)) as caught:
        database.connect("test")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:pa#ss?@h:1/db", "postgresql://me@h:1/db"),
        ("postgres://a%40b:c@h/%64%20b?sslmode=require", "postgresql://a%40b@h/d%20b?sslmode=require"),
        ("postgresql://me@h1:1,h2:2/db", "postgresql://me@/db?host=h1%2Ch2&port=1%2C2"),
        ("postgresql://me@/db?host=/tmp/a%20b&port=3", "postgresql://me@/db?host=/tmp/a%20b&port=3"),
    ],
)
def test_a_shown_dsn_means_the_same_but_for_the_password(dsn: str, shown: str) -> None:
    assert without_secrets(dsn) == shown
    assert conninfo_to_dict(shown) == {k: v for k, v in conninfo_to_dict(dsn).items() if k != "password"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgresql+psycopg://me:x@h/db", "postgresql://me:x@h/db"),
        ("postgres://me@h/db?pgbouncer=true&connection_limit=1&schema=public", "postgresql://me@h/db"),
        ("postgresql+asyncpg://me:a?b@h/db?ssl=require", "postgresql://me:a?b@h/db?sslmode=require"),
        (
            "postgresql://me@h?ssl=verify-full&sslrootcert=system",
            "host=h user=me sslmode=verify-full sslrootcert=system",
        ),
        ("postgresql://me@h/db?sslmode=require&supa=base-pooler.x", "postgresql://me@h/db?sslmode=require"),
    ],
)
def test_what_platforms_put_into_a_url_is_taken(given: str, read: str) -> None:
    options = Database(given, "s").connect_options("test")
    assert conninfo_to_dict(read).items() <= conninfo_to_dict(options["conninfo"]).items()
    assert "pgbouncer" not in options["conninfo"]
    assert conninfo_to_dict(without_secrets(given)).items() <= conninfo_to_dict(read).items()


@pytest.mark.parametrize("dsn", ["postgresql://h/db?retries=3", "host=h retries=3"])
def test_a_parameter_that_nobody_knows_is_named(dsn: str) -> None:
    with pytest.raises(UsageError, match="'retries', which libpq does not know"):
        Database(dsn, "s").connect("test")


@pytest.mark.parametrize("dsn", ["postgresql://h/db?password=a&sesame=b", "host=h password=pa sesame=b"])
def test_a_part_of_a_password_is_not_taken_for_a_parameter(dsn: str) -> None:
    with pytest.raises(UsageError, match="malformed") as caught:
        Database(dsn, "s").connect("test")
    assert "sesame" not in str(caught.value)


def test_a_dsn_without_a_password_is_still_usable(database: Database) -> None:
    with Database(database.public_dsn, database.schema).connect("test") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_no_server_and_no_database_are_named(database: Database) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1/x: "):
        Database("host=127.0.0.1 port=1 dbname=x", "s").connect("test")
    with pytest.raises(UnreachableError, match='"nowhere" does not exist'):
        Database(make_conninfo(database.dsn, dbname="nowhere"), "s").connect("test")


def connect_until_refused(database: Database) -> None:
    """The postmaster applies new rules at some later moment, without notice."""
    while True:
        database.connect("test").close()


def test_a_wrong_password_is_named(database: Database, tmp_path: Path) -> None:
    """The server's own rules ask for a password of one role on the socket."""
    with database.connect("test") as connection:
        row = connection.execute("SELECT current_setting('hba_file')").fetchone()
        assert row is not None
        rules = Path(row[0])
        before = rules.read_text()
        connection.execute("DROP ROLE IF EXISTS guarded")
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        try:
            rules.write_text(f"local all guarded scram-sha-256\n{before}")
            connection.execute("SELECT pg_reload_conf()")
            dsn = database.dsn.replace("postgres@", "guarded:wrong@")
            with pytest.raises(UnreachableError, match="Check the user and the password") as caught:
                connect_until_refused(Database(dsn, database.schema))
            assert "wrong" not in str(caught.value)
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE guarded")


def test_pgvector_missing_or_too_old_is_named(database: Database) -> None:
    with database.connect("test") as connection, connection.transaction(force_rollback=True):
        # What the catalogue of a server with an older pgvector says.
        connection.execute("UPDATE pg_extension SET extversion = '0.6.2' WHERE extname = 'vector'")
        with pytest.raises(UnreachableError, match=r"needs 0\.7\.0"):
            require_schema(connection, database.schema)
        connection.execute("UPDATE pg_extension SET extname = 'hidden' WHERE extname = 'vector'")
        with pytest.raises(UnreachableError, match="no pgvector"):
            require_schema(connection, database.schema)


def test_a_statement_timeout_and_a_lost_server_are_readable(database: Database) -> None:
    with database.connect("test", statement_timeout_s=0.05) as connection:
        with (
            pytest.raises(RefusedError, match=r"stored value cannot be read: .*infinity"),
            readable_errors(database),
        ):
            connection.execute("SELECT 'infinity'::timestamptz").fetchone()
        with pytest.raises(UnreachableError, match="timeout"), readable_errors(database):
            connection.execute("SELECT pg_sleep(60)")
        pid = connection.info.backend_pid
        with database.connect("test") as other:
            other.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
        with pytest.raises(UnreachableError, match="Cannot reach"), readable_errors(database):
            connection.execute("SELECT 1")


ODD = "Größe \\ 'ẞ'"


def first_hit(connection: Connection, version: Version) -> str:
    return VersionSearcher(connection, EncoderCache()).search("seven", 3, version=version).hits[0].content


def test_settings_of_a_role_or_a_database_change_nothing(database: Database) -> None:
    name = conninfo_to_dict(database.dsn)["dbname"]
    with database.connect("test") as connection:
        for setting in (
            "datestyle = 'German'", "intervalstyle = 'sql_standard'", "standard_conforming_strings = off",
            "default_transaction_isolation = 'serializable'", "bytea_output = 'escape'", "client_encoding = 'LATIN1'",
            "timezone = 'Asia/Kathmandu'",
        ):  # fmt: skip
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    with database.session("test") as connection:
        add_chunks(connection, [ODD, *NUMBERS])
        assert first_hit(connection, ready_version(database, connection, "v1")) == "seven"
        assert connection.execute("SELECT min(content) FROM document_chunks WHERE id = 1").fetchone() == (ODD,)
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    assert examine(database, load_settings()).ok


def test_a_brake_on_writing_is_respected(database: Database) -> None:
    name = conninfo_to_dict(database.dsn)["dbname"]
    with database.connect("test") as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with database.session("test") as connection:
        assert server_info(connection, database.schema).read_only
        with pytest.raises(RefusedError, match="read-only"), readable_errors(database):
            add_chunks(connection, NUMBERS)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_used_or_refused(server: EmbeddedServer, encoding: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            database = Database(make_conninfo(server.dsn, dbname=encoding.lower()), "docs")
            if encoding == "LATIN1":
                with pytest.raises(RefusedError, match="encoding is LATIN1"):
                    upgrade(database)
                return
            upgrade(database)
            with database.session("test") as own:
                add_chunks(own, [ODD, *NUMBERS])
                assert first_hit(own, ready_version(database, own, "v1")) == "seven"
                assert own.execute("SELECT min(content) FROM document_chunks WHERE id = 1").fetchone() == (ODD,)
        finally:
            connection.execute(f"DROP DATABASE {encoding} WITH (FORCE)")


def test_others_see_who_is_connected(database: Database) -> None:
    with database.connect("console") as connection:
        row = connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
        assert row == ("revector console",)
        assert server_info(connection, database.schema).user == "postgres"


def test_the_doctor_names_what_is_wrong(database: Database, empty_database: Database) -> None:
    settings = load_settings()
    empty = examine(empty_database, settings)
    assert not empty.ok
    assert [(f.check, f.object) for f in empty.findings if f.severity == "error"] == [
        ("schema", empty_database.schema)
    ]
    with database.session("test") as connection:
        add_chunks(connection, NUMBERS)
        version = ready_version(database, connection, "v1")
        healthy = examine(database, settings)
        assert healthy.ok
        assert ("ok", "version", "v1") in [(f.severity, f.check, f.object) for f in healthy.findings]
        add_chunks(connection, ["new"])
        index.drop(connection, version)
    found = examine(database, settings)
    assert found.ok, "a version that is not active may wait"
    assert [(f.check, f.object, f.detail) for f in found.findings if f.severity == "warning"][1:] == [
        ("chunks", "v1", "v1 lacks 1 chunk"),
        ("index", f"chunk_embeddings_{version.id}_hnsw", "v1 has no index"),
    ]


def test_the_doctors_sql_mends_the_index_from_any_session(database: Database) -> None:
    settings = load_settings()
    with database.session("test") as connection:
        add_chunks(connection, NUMBERS)
        version = ready_version(database, connection, "v1")

        def mend() -> str:
            (finding,) = [f for f in examine(database, settings).findings if f.check == "index"]
            with psycopg.connect(database.dsn, autocommit=True) as elsewhere:
                elsewhere.execute(finding.sql.encode())
            assert index.inspect(connection, version).valid
            assert not [f for f in examine(database, settings).findings if f.check == "index"]
            return finding.detail

        index.drop(connection, version)
        assert mend() == "v1 has no index"
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
            [index.index_name(version)],
        )
        assert mend() == "the index of v1 is invalid"
