"""Bad input: one or two lines that name the thing and the remedy, the right exit status, nothing half written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql

from revector.core.database import Connection, Database
from revector.core.registry import chunk_count, versions
from revector.core.revisions import HEAD, REVISIONS
from tests.console.cli.conftest import TEXTS, on, write_corpus
from tests.console.cli.program import SECRET, Revector
from tests.databases import as_of_development
from tests.protocol_server import ProtocolServer, embed
from tests.versions import add, add_chunks, ready_version

NOWHERE = "host=127.0.0.1 port=1 dbname=x"


def brief(text: str) -> str:
    """The text, which must be an error of one or two lines."""
    assert 1 <= text.count("\n") <= 2, text
    return text


def test_values_that_somebody_wrote_by_sql_are_said(
    revector: Revector, database: Database, connection: Connection
) -> None:
    add_chunks(connection, TEXTS[:2])
    ready_version(database, connection, "v1")
    for kind in ("times", "amounts"):  # of a table that was made by hand
        connection.execute(f"ALTER TABLE backfill_jobs DROP CONSTRAINT backfill_jobs_{kind}_check".encode())
    connection.execute("UPDATE backfill_jobs SET spent_usd = 'infinity'")
    found = revector.call("backfill", "status", "v1", "--json", status=1).error
    assert (found["problem"].split(":")[0], found["kind"]) == ("A stored figure is no number", "refused")
    connection.execute("UPDATE backfill_jobs SET started_at = 'infinity'")
    assert "A stored value cannot be read" in brief(revector.call("backfill", "status", "v1", status=1).err)


# -- the database --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["db status", "db upgrade", "doctor", "versions list", "search x", "ingest .", "demo --headless"]
)
def test_no_database(tmp_path: Path, command: str) -> None:
    revector = Revector(tmp_path, ("--dsn", f"postgresql://me:{SECRET}@127.0.0.1:1/x"))
    result = revector.call(*command.split(), "--json", status=4)
    assert result.error["kind"] == "unreachable"
    assert result.error["problem"] in result.err
    assert "Cannot reach the database 127.0.0.1:1/x" in brief(result.err)
    assert "Check --dsn" in result.err


@pytest.mark.parametrize(
    "dsn", [f"me:{SECRET}", f"postgresql://me:{SECRET}@[bad/db", f"host=h password={SECRET} nonsense"]
)
def test_a_malformed_dsn(tmp_path: Path, dsn: str) -> None:
    for command in ("db status", "versions list"):
        result = Revector(tmp_path, ("--dsn", dsn)).call(*command.split(), status=2)
        assert "The connection string is malformed." in brief(result.err)
        assert "Expected postgresql://user@host:port/database" in result.err


@contextmanager
def role(database: Database, name: str, password: str | None = None) -> Iterator[None]:
    """A temporary role; with a password, the server's rules require it."""
    with database.connect("test") as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        rules = Path(str(connection.execute("SHOW hba_file").fetchone()[0]))  # type: ignore[index]
        before = rules.read_text()
        try:
            if password is not None:
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
                )
                rules.write_text(f"local all {name} scram-sha-256\n{before}")
                connection.execute("SELECT pg_reload_conf()")
                while not _asks_for_password(database, name):
                    pass
            yield
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _asks_for_password(database: Database, name: str) -> bool:
    try:
        psycopg.connect(as_role(database, name)).close()
    except psycopg.OperationalError:
        return True
    return False


def as_role(database: Database, name: str) -> str:
    return database.dsn.replace("postgres@", f"{name}@")


def test_a_wrong_password(database: Database, tmp_path: Path) -> None:
    with role(database, "cli_guarded", "right"):
        wrong = Database(as_role(database, f"cli_guarded:{SECRET}"), database.schema)
        for command in ("db status", "versions list", "doctor"):
            result = on(wrong, tmp_path).call(*command.split(), status=4)
            assert 'password authentication failed for user "cli_guarded"' in brief(result.err)
            assert "Check the user and the password" in result.err


def test_the_password_is_nowhere(database: Database, tmp_path: Path, connection: Connection) -> None:
    """Neither in output nor in storage."""
    dsn = as_role(database, f"postgres:{SECRET}").replace("?", f"?sslpassword={SECRET}&", 1)
    revector = on(Database(dsn, database.schema), tmp_path)
    revector.call("versions", "add", "v1", "--encoder", "static:wordllama-64")
    for command in ("db status", "db status --json", "doctor", "log --json", "versions show v1 --json"):
        revector.call(*command.split())  # each output is searched for it
    shown = revector.call("db", "status", "--json").document["dsn"]
    assert shown.startswith("postgresql://postgres@")
    assert Revector(tmp_path, ("--dsn", shown, "--schema", database.schema)).call("versions", "list").out


def test_the_dsn_of_libpqs_own_variables(database: Database, tmp_path: Path) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(database.dsn)
    variables = {
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGDATABASE": str(parts["dbname"]),
        "PGUSER": "postgres",
        "PGPASSWORD": SECRET,
    }
    revector = Revector(tmp_path).with_options("--schema", database.schema, **variables)
    status = revector.call("db", "status", "--json").document
    assert f"host={parts['host']}" in status["dsn"]
    assert status["embedded"] is False


def test_no_pgvector(bare: Database, tmp_path: Path) -> None:
    revector = on(bare, tmp_path)
    for command in ("versions list", "search x", "ingest ."):
        result = revector.call(*command.split(), status=4)
        assert "This database has no pgvector extension." in brief(result.err)
        assert "revector db upgrade" in result.err
    status = revector.call("db", "status", "--json").document
    assert (status["pgvector"], status["schema_revision"]) == (None, None)
    assert re.search(r"pgvector +—", revector.call("db", "status").out)
    doctor = revector.call("doctor", status=1).out
    assert "✗  pgvector  not installed in this database" in doctor
    assert "revector db upgrade" in doctor

    with role(bare, "cli_plain"):
        plain = on(Database(as_role(bare, "cli_plain"), bare.schema), tmp_path)
        refused = plain.call("db", "upgrade", status=4)
        assert "may not create the vector extension" in brief(refused.err)
        assert "CREATE EXTENSION vector" in refused.err
        assert revector.call("db", "status", "--json").document == status

        assert revector.call("db", "upgrade", "--json").document["schema_revision"]
        for command in ("versions list", "search x", "log"):
            refused = plain.call(*command.split(), status=1)
            assert "The current role may not do this: permission denied for schema" in brief(refused.err)
        for command in ("db status", "doctor", "db upgrade"):
            assert "permission denied" in brief(plain.call(*command.split(), status=1).err)


def test_a_pgvector_that_is_too_old(bare: Database, tmp_path: Path) -> None:
    revector = on(bare, tmp_path)
    revector.call("db", "upgrade")
    with bare.connect("test") as connection:
        # What the catalogue of a server with an older pgvector says.
        connection.execute("UPDATE pg_extension SET extversion = '0.6.2' WHERE extname = 'vector'")
        for command in ("versions list", "db upgrade"):
            result = revector.call(*command.split(), status=4)
            assert "pgvector is at 0.6.2; revector needs 0.7.0 or newer" in brief(result.err)
            assert "ALTER EXTENSION vector UPDATE" in result.err
        assert "✗  pgvector" in revector.call("doctor", status=1).out
        connection.execute("UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'")
        assert "vacuum can damage HNSW indexes before 0.8.4" in revector.call("doctor").out


def test_a_role_that_may_only_look(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    """It may read; changes are refused, and nothing is done."""
    add_chunks(connection, TEXTS)
    add(connection, "v1")
    with role(database, "cli_reader"):
        reader = sql.Identifier("cli_reader")
        schema = sql.Identifier(database.schema)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, reader))
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, reader))
        plain = on(Database(as_role(database, "cli_reader"), database.schema), tmp_path)
        assert plain.call("versions", "list", "--json").out == revector.call("versions", "list", "--json").out
        (tmp_path / "new.txt").write_text("new")
        for command in (
            "versions add v2 --encoder static:wordllama-64",
            "versions retire v1 --confirm v1",
            "backfill run v1",
            "ingest new.txt",
        ):
            refused = plain.call(*command.split(), status=1)
            assert "may not do this" in brief(refused.err)
        assert [(v.version_key, v.state) for v in versions(connection)] == [("v1", "registered")]
        assert chunk_count(connection) == len(TEXTS)


@pytest.mark.parametrize("name", ["demo\n", "pg_x", "pg_catalog", "information_schema", "1a", "a" * 64])
def test_a_name_that_no_schema_can_have(database: Database, tmp_path: Path, name: str) -> None:
    result = Revector(tmp_path, ("--dsn", database.dsn, "--schema", name)).call(
        "db", "upgrade", "--json", status=2
    )
    assert result.error["kind"] == "usage"
    assert "'schema' is not valid" in brief(result.err)
    assert "expected a name of at most 63 letters" in result.err


def test_a_table_of_another_program_in_the_way(bare: Database, tmp_path: Path) -> None:
    with bare.connect("test") as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(bare.schema)))
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE revector_revision (n int)")
    for command in ("db upgrade", "db status", "versions list", "doctor"):
        result = on(bare, tmp_path).call(*command.split(), "--json", status=1)
        assert result.error["kind"] == "refused"
        assert "revector_revision" in brief(result.err)


def test_a_schema_that_is_not_set_up(empty_database: Database, tmp_path: Path) -> None:
    revector = on(empty_database, tmp_path)
    for command in ("versions list", "search x", "ingest .", "backfill run v1", "rollback"):
        result = revector.call(*command.split(), status=4)
        assert f"The schema {empty_database.schema!r} has not been set up" in brief(result.err)
        assert f"revector --schema {empty_database.schema} db upgrade" in brief(result.err)
    assert "has not been set up" in revector.call("doctor", status=1).out
    status = revector.call("db", "status")
    assert re.search(r"schema revision +—", status.out)
    assert f"Set it up: revector --schema {empty_database.schema} db upgrade" in brief(status.err)
    with empty_database.connect("test") as connection:
        found = connection.execute("SELECT to_regnamespace(%s)", [empty_database.schema]).fetchone()
    assert found == (None,)


def test_a_schema_behind_or_ahead(
    revector: Revector, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # What a program of a later release knows.
        patch.setattr("revector.core.database.HEAD", "0777")
        patch.setattr("revector.core.database.REVISIONS", (*REVISIONS, "0777"))
        behind = revector.call("versions", "list", status=4)
        assert f"is at revision {HEAD}; this program needs 0777" in brief(behind.err)
        assert "revector db upgrade" in behind.err
    connection.execute("UPDATE revector_revision SET version_num = '9999'")
    for command in ("versions list", "db upgrade", "ingest ."):
        ahead = revector.call(*command.split(), status=4)
        assert "is at revision 9999, which this program" in brief(ahead.err)
        assert "a newer one" in ahead.err
    assert revector.call("db", "status", "--json").document["schema_revision"] == "9999"
    doctor = revector.call("doctor", status=1).out
    assert "revision 9999" in doctor
    assert "a newer one" in doctor
    assert "db upgrade" not in doctor


def test_a_schema_of_a_development_version(revector: Revector, connection: Connection) -> None:
    """It is named as such everywhere, nothing in it is changed, and the demo replaces only its own."""
    add_chunks(connection, TEXTS)
    as_of_development(connection, "0005")
    for command in ("versions list", "db upgrade", "ingest .", "demo --headless"):
        refused = revector.call(*command.split(), status=4)
        assert "was made by a development version of revector (revision 0005)" in brief(refused.err)
        assert "revector --schema NAME db upgrade" in brief(refused.err)
    doctor = revector.call("doctor", status=1).out
    assert "was made by a development version of revector (revision 0005)" in doctor
    assert "DROP SCHEMA" in doctor
    status = revector.call("db", "status", "--json")
    assert status.document["schema_revision"] == "0005"
    assert "DROP SCHEMA" in status.err
    assert chunk_count(connection) == len(TEXTS)


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REVECTOR_BATCH_SIZE", "many", "The setting 'batch_size' is not valid"),
        ("REVECTOR_BATCH_SIZE", "0", "The setting 'batch_size' is not valid"),
        ("REVECTOR_SCHEMA", "no;name", "The setting 'schema' is not valid"),
        ("REVECTOR_READ_ONLY", "perhaps", "The setting 'read_only' is not valid"),
        ("REVECTOR_MAINTENANCE_WORK_MEM", "a lot", "The setting 'maintenance_work_mem' is not valid"),
        ("REVECTOR_CONFIG", "nowhere.toml", "REVECTOR_CONFIG names nowhere.toml, which is not a file."),
        ("REVECTOR_CONFIG", "x" * 300, "xxx cannot be read: [Errno 36] File name too long"),
        ("REVECTOR_HOME", "~nobody-at-all/x", "The home folder in '~nobody-at-all/x' is unknown"),
        ("REVECTOR_HOME", "x" * 300, "/logs cannot be read: File name too long"),
    ],
)
def test_bad_settings(tmp_path: Path, name: str, value: str, message: str) -> None:
    revector = Revector(tmp_path, ("--dsn", NOWHERE), ((name, value),))
    result = revector.call("info", "--json", status=2)
    assert message in brief(result.err)
    assert result.error["kind"] == "usage"


def test_a_bad_settings_file_and_a_bad_schema(tmp_path: Path) -> None:
    revector = Revector(tmp_path, ("--dsn", NOWHERE))
    (tmp_path / "revector.toml").write_text("batchsize = 3\n")
    assert "Did you mean batch_size" in brief(revector.call("versions", "list", status=2).err)
    (tmp_path / "revector.toml").write_text("batch_size = \n")
    assert "revector.toml cannot be read" in brief(revector.call("versions", "list", status=2).err)
    (tmp_path / "revector.toml").unlink()
    for schema in ("a b", "x" * 64, "schöma", ""):
        result = revector.with_options("--schema", schema).call("versions", "list", status=2)
        assert "The setting 'schema' is not valid" in brief(result.err)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unchanged(library: Revector) -> Iterator[None]:
    """The test leaves the shared collection as it was."""
    before = library.call("versions", "list", "--json").out + library.call("log", "--json").out
    yield
    assert library.call("versions", "list", "--json").out + library.call("log", "--json").out == before


@pytest.mark.parametrize(
    "command",
    [
        "versions show", "versions retire", "versions drop", "versions adopt --encoder static:wordllama-64",
        "backfill run", "backfill resume", "backfill status", "backfill pause", "backfill cancel",
        "backfill failures", "index plan", "index build", "index check", "index drop", "index set", "cutover check",
        "cutover run", "search x --version", "compare x --candidate", "compare x --primary",
    ],
)  # fmt: skip
def test_an_unknown_version_key(library: Revector, unchanged: None, command: str) -> None:
    result = library.call(*command.split(), "v11", status=2)
    assert brief(result.err) == "There is no embedding version 'v11'.\nDid you mean v1?\n"
    assert result.out == ""


def test_no_version_at_all(revector: Revector) -> None:
    assert revector.call("log").out == "The log is empty.\n"
    assert "none is registered yet" in brief(revector.call("versions", "show", "v1", status=2).err)
    assert "There is no version to roll back to." in brief(revector.call("rollback", status=1).err)
    assert "No embedding version is active yet." in brief(revector.call("search", "x", status=1).err)
    assert revector.call("versions", "list", "--json").document == {"versions": []}
    first, second = revector.call("evaluations", "list", "--candidate", "v1").out.splitlines()
    assert first == "No evaluation of v1 is stored yet."
    assert second == "Make one: revector evaluate QUERY-SET --candidate KEY"
    assert revector.call("evaluations", "list").out.startswith("No evaluation is stored yet.\n")
    assert revector.call("evaluations", "runs").out.startswith("No run is stored yet.\nAn evaluation makes them:")


def test_a_folder_without_documents(revector: Revector) -> None:
    (revector.folder / "empty").mkdir()
    (revector.folder / "other.png").touch()
    kinds = (
        ".csv, .docx, .htm, .html, .ipynb, .json, .jsonl, .markdown, .md, .ndjson, .ods, .pdf, .pptx, .rst, .tsv, "
        ".txt, .xhtml, .xls, .xlsm, .xlsx"
    )
    for arguments in (["empty"], [".", "--json"]):
        found = revector.call("ingest", *(str(revector.folder / name) for name in arguments[:1]), *arguments[1:])
        assert found.err == f"No document was found. In a folder, these files are read: {kinds}.\n"
    (revector.folder / "empty" / "a.txt").write_text("a text")
    assert revector.call("ingest", str(revector.folder / "empty")).err == ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wordllama", "is not an encoder spec"),
        ("statc:wordllama-64", "Did you mean static?"),
        ("static:wordlama-64", "Did you mean wordllama-64"),
        ("openai:text-embedding-3-small?dimension=64", "Did you mean dimensions"),
        ("openai:text-embedding-3-small?dimensions=lots", "Expected: a whole number of at least 1"),
        (f"openai:text-embedding-3-small?key={SECRET}", "looks like a secret"),
        (f"openai:text-embedding-3-small?key_env={SECRET}", "cannot be used"),
        (f"openai:house-model?base_url=http://me:{SECRET}@127.0.0.1/v1", "with a user or password in it"),
    ],
)
def test_an_unknown_encoder(library: Revector, unchanged: None, spec: str, message: str) -> None:
    result = library.call("versions", "add", "v9", "--encoder", spec, status=2)
    assert message in brief(result.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bad key"], "'bad key' cannot be a version key"),
        (["\x1b[31mred"], "cannot be a version key"),
        (["-"], "cannot be a version key"),
        (["v9", "--metric", "cosin"], "There is no metric 'cosin'"),
        (["v9", "--storage", "bits"], "There is no storage 'bits'"),
        (["v9", "--m", "1"], "m is 1; pgvector takes 2 to 100"),
        (["v9", "--m", "40"], "at least twice m (80)"),
        (["v1"], "The version key 'v1' is taken."),
    ],
)
def test_a_version_that_cannot_be(library: Revector, unchanged: None, arguments: list[str], message: str) -> None:
    key, *options = arguments
    result = library.call("versions", "add", "--encoder", "static:wordllama-64", *options, "--", key, status=2)
    assert message in brief(result.err)


def test_states_that_do_not_allow_it(library: Revector) -> None:
    for command, message in (
        ("cutover run v1 --confirm v1", "Version v1 is already active."),
        ("cutover run v1", "Version v1 is already active."),
        ("versions retire v1 --confirm v1", "Version v1 is active: it cannot be retired."),
        ("versions drop v2 --confirm v2", "only a retired version can be dropped"),
        ("index drop v1", "Version v1 is active"),
        ("backfill pause v2", "The backfill is done; it cannot become pausing."),
        ("search x --version v3", "has no encoder"),
    ):
        assert message in brief(library.call(*command.split(), status=1).err)
    for command, message in (
        ("backfill status v3", "Version v3 has no backfill yet."),
        ("backfill failures v2 --waive 1", "A waiver needs a reason."),
        ("backfill failures v2 --waive 1 --reason x", "Chunk 1 is not a dead letter of version v2."),
    ):
        assert message in brief(library.call(*command.split(), status=2).err)


def test_arguments_that_are_no_utf8(library: Revector) -> None:
    """What a shell passes for the byte 0xff."""
    assert library.run("search", "rotate \udcff key", "--json").document["query"] == "rotate  key"
    assert library.call("compare", "rotate \udcff key", "--json").document["query"] == "rotate  key"
    for command in ("versions show", "cutover run", "search x --version"):
        assert "'v\\udcff' is not UTF-8" in brief(library.call(*command.split(), "v\udcff", status=2).err)
    assert "The query is empty." in library.call("search", " \udcff ", status=2).err


# -- documents -----------------------------------------------------------------------------------------------


def test_what_cannot_be_taken_is_rejected_with_its_line(
    revector: Revector, connection: Connection, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "\n".join(
            [
                '{"id": "a", "text": "first"}',
                '{"id": "b", "text": "second"',
                '{"id": "c", "text": "third"}',
                '{"id": "a", "text": "again"}',
                '{"id": "", "text": "no id"}',
                '{"id": "d"}',
                '{"id": "e", "text": "sixth", "score": NaN}',
                '["no object"]',
            ]
        )
    )
    result = revector.call("ingest", str(corpus), "--json", status=1)
    report = result.document
    assert (report["documents"], report["inserted"], report["rejected"]) == (2, 2, 6)
    lines = result.err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"rejected {corpus}:{n}" for n in (2, 4, 5, 6, 7, 8)]
    problems = [
        "This is not JSON",
        "The id 'a' appeared before",
        "The id is empty",
        "The text is missing",
        "",
        "not a list",
    ]
    assert all(problem in line for problem, line in zip(problems, lines, strict=True))
    assert chunk_count(connection) == 2
    pruned = revector.call("ingest", str(corpus), "--prune", status=1)
    assert "Nothing was pruned: 6 documents were rejected" in pruned.err
    assert f"rejected {corpus}:2" in pruned.err
    assert chunk_count(connection) == 2


def test_many_rejections_are_counted(revector: Revector, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("{\n" * 50)
    result = revector.call("ingest", str(corpus), "--json", status=1)
    assert result.document["rejected"] == 50
    assert result.err.count("\n") == 21
    assert result.err.endswith("… and 30 more were rejected: --all-rejections shows them\n")
    assert revector.call("ingest", str(corpus), "--all-rejections", status=1).err.count("\n") == 50


def test_left_out_files_are_counted_by_kind(revector: Revector, tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "LICENSE", "c.txt"):
        (tmp_path / name).write_text("text")
    result = revector.call("ingest", str(tmp_path), "--json")
    assert (result.document["left_out"], result.document["left_out_kinds"]) == (3, {".py": 2, "": 1})
    told = revector.call("ingest", str(tmp_path)).out
    assert "3 files of other types skipped: 2 .py, 1 without an ending." in told


def test_stdin_and_the_names_of_columns(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    result = revector.call("ingest", "-", "--format", "tgz", status=2)
    assert "'tgz' is not one of csv, docx," in result.err
    path = tmp_path / "rows.data"
    path.write_text("key,body\n1,A\n")
    revector.call("ingest", str(path), "--format", "csv", "--id", "key", "--text", "body", "--prefix", "kb/")
    assert connection.execute("SELECT source_id, content FROM document_chunks").fetchall() == [("kb/1", "A")]


def test_a_missing_path_stores_nothing(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    result = revector.call("ingest", str(corpus), str(tmp_path / "nowhere"), status=2)
    assert f"There is no file or folder '{tmp_path / 'nowhere'}'" in brief(result.err)
    assert chunk_count(connection) == 0


def test_nul_and_surrogates_are_left_out_and_counted(
    revector: Revector, connection: Connection, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    documents = [
        {"id": "n\0ul", "text": "a\0b"},
        {"id": "surrogate", "text": "c\ud800d", "note": "\udfff"},
        {"id": "sound", "text": "😄"},
    ]
    corpus.write_text("\n".join(map(json.dumps, documents)))
    assert revector.call("ingest", str(corpus), "--json").document["cleaned"] == 2
    assert "2 documents had NUL characters or lone surrogates" in revector.call("ingest", str(corpus)).out
    rows = connection.execute("SELECT source_id, content FROM document_chunks ORDER BY id").fetchall()
    assert rows == [("nul", "ab"), ("surrogate", "cd"), ("sound", "😄")]


def test_empty_and_large_documents(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "empty.txt").write_text("")
    (folder / "blank.md").write_text(" \n\n\t ")
    (folder / "large.txt").write_text("One line of a rather long document.\n" * 290_000)
    assert (folder / "large.txt").stat().st_size > 10_000_000
    small = revector.with_options(REVECTOR_MAX_DOCUMENT_BYTES="1000")
    rejected = small.call("ingest", str(folder), "--json", status=1)
    assert (rejected.document["rejected"], rejected.document["empty"]) == (1, 2)
    assert "large.txt: This is larger than 1,000 bytes (max_document_bytes)." in rejected.err
    assert chunk_count(connection) == 0
    taken = revector.call("ingest", str(folder), "--json").document
    assert (taken["documents"], taken["empty"], taken["rejected"]) == (3, 2, 0)
    assert chunk_count(connection) == taken["inserted"] > 5_000


def test_a_file_that_is_no_text(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe")
    result = revector.call("ingest", str(tmp_path / "picture.txt"), status=1)
    assert "picture.txt:1: This is not UTF-8" in result.err
    assert chunk_count(connection) == 0


NASTY = "[red]markup[/red] [link=x]y \x1b[31mescape\x1b[0m \x07bell \u202eright to left :smile: back\\"
SHOWN = "[red]markup[/red] [link=x]y ␛[31mescape␛[0m ␇bell ‹202E›right to left :smile: back\\"


def test_markup_and_escapes_are_shown_as_they_are(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    documents = [{"id": f"{NASTY}.md", "text": f"{NASTY} text"}, {"id": "other", "text": "something else"}]
    corpus.write_text("\n".join(map(json.dumps, [*documents, documents[0]])))
    rejected = revector.call("ingest", str(corpus), status=1)
    assert "[red]markup[/red]" in rejected.err
    ready_version(database, connection, "v1")
    ready_version(database, connection, "v2")
    revector.call("cutover", "run", "v1", "--confirm", "v1", "--reason", NASTY)
    assert SHOWN in revector.call("log").out
    found = revector.call("search", NASTY).out
    assert f"{SHOWN}.md  {SHOWN} text"[:150] in found
    assert f"{SHOWN}.md" in revector.call("compare", NASTY).out
    for command in ("search", "compare"):
        document = revector.call(command, NASTY, "--json").document
        assert document["query"] == NASTY
        hits = document.get("hits") or document["primary"]["hits"]
        assert f"{NASTY}.md" in {hit["source_id"] for hit in hits}
    refused = revector.call("search", "x", "--version", NASTY, status=2)
    assert "[red]markup" in refused.err
    assert "[red]" in revector.call("ingest", f"{tmp_path}/[red]\x1b[31m", status=2).err


def test_a_key_of_plain_sql_is_shown_as_it_is(revector: Revector, connection: Connection) -> None:
    """The database refuses such a key. One that was there before the rule is shown, and can be dropped."""
    connection.execute("ALTER TABLE embedding_versions DROP CONSTRAINT embedding_versions_version_key_check")
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES (%s, %s, '1', 64, 'cosine')
        """,
        [NASTY, NASTY],
    )
    assert SHOWN in revector.call("versions", "list").out
    assert SHOWN in revector.call("versions", "show", NASTY).out
    assert "no encoder" in revector.call("backfill", "run", NASTY, status=1).err
    assert SHOWN in revector.call("cutover", "check", NASTY, status=1).out
    assert f"{SHOWN} is retired" in revector.call("versions", "retire", NASTY, "--confirm", NASTY).out
    assert f"{SHOWN} was deleted" in revector.call("versions", "drop", NASTY, "--confirm", NASTY).out


# -- encoders ------------------------------------------------------------------------------------------------


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer() as server:
        yield server


def spec(provider: ProtocolServer, model: str = "house-model", settings: str = "&max_retries=0") -> str:
    return f"openai:{model}?base_url={provider.base_url}{settings}"


def test_an_encoder_that_answers_with_other_dimensions(
    revector: Revector, connection: Connection, provider: ProtocolServer
) -> None:
    provider.spoil("other dimensions", 4)  # each request is made twice
    small = spec(provider, "text-embedding-3-small")
    result = revector.call("versions", "add", "v1", "--encoder", small, status=1)
    assert "should have 1536 dimensions but returned 1535" in brief(result.err)
    assert versions(connection) == []

    revector.call("versions", "add", "v1", "--encoder", small)
    add_chunks(connection, TEXTS)
    provider.spoil("other dimensions", 2)
    result = revector.call("backfill", "run", "v1", status=1)
    assert "1535" in brief(result.err)
    assert "not the encoder the version was registered with" in result.err
    status = revector.call("backfill", "status", "v1", "--json").document
    assert (status["state"], status["done"]) == ("interrupted", 0)
    assert revector.call("backfill", "run", "v1", "--json").document["done"] == len(TEXTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0])
def test_vectors_that_must_not_be_stored(
    revector: Revector, connection: Connection, provider: ProtocolServer, bad: float
) -> None:
    """The bad text becomes a dead letter with its reason; the rest is stored, and a cutover waits for it."""

    def poisoned(text: str, *arguments: Any) -> NDArray[np.float32]:
        vector = embed(text, *arguments)
        if "poison" in text:
            vector[:] = 0 if bad == 0 else vector
            vector[1] = bad
        return vector

    provider.embed = poisoned
    ids = add_chunks(connection, [*TEXTS, "poison"])
    revector.call("versions", "add", "v1", "--encoder", spec(provider))
    ran = revector.call("backfill", "run", "v1", status=1)
    assert "1 failed" in ran.out
    assert ran.err == "See them: revector backfill failures v1\n"
    (failure,) = revector.call("backfill", "failures", "v1", "--json").document["failures"]
    assert failure["chunk_id"] == ids[-1]
    assert ("all zeros" if bad == 0 else str(bad)) in failure["error"]
    assert "doc-poison" in revector.call("backfill", "failures", "v1").out
    assert (
        "revector backfill failures v1" in revector.call("cutover", "run", "v1", "--confirm", "v1", status=1).err
    )
    assert _vectors(connection) == len(TEXTS)

    provider.embed = embed
    assert "1 chunk queued again" in revector.call("backfill", "failures", "v1", "--retry").out
    assert revector.call("backfill", "run", "v1", "--json").document["state"] == "done"
    assert _vectors(connection) == len(TEXTS) + 1


def test_a_probe_that_must_not_be_stored(
    revector: Revector, connection: Connection, provider: ProtocolServer
) -> None:
    for how, status, message in (
        ("nan", 1, "nan"),
        ("zero", 1, "all zeros"),
        ("html", 4, "does not answer as an"),
    ):
        provider.spoil(how, 1)  # type: ignore[arg-type]
        result = revector.call("versions", "add", "v1", "--encoder", spec(provider), status=status)
        assert message in brief(result.err)
    assert versions(connection) == []


def test_a_variable_that_is_not_set_is_no_folder(revector: Revector, connection: Connection) -> None:
    (revector.folder / "here.txt").write_text("of the working directory")
    add_chunks(connection, TEXTS)
    gates = (["evaluate", "numbers", "--gates", ""], ["evaluate", "numbers", "--gates="])
    for command in (["ingest", "", "--prune"], ["ingest", "here.txt", ""], *gates):
        assert "the path is empty." in revector.run(*command, status=2).err
    assert connection.execute("SELECT count(*) FROM document_chunks").fetchone() == (len(TEXTS),)


def test_an_encoder_that_is_down(revector: Revector, database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer(api_key=SECRET) as provider:
        down = spec(provider)
        asking = revector.with_options(OPENAI_API_KEY=SECRET)
        asking.call("versions", "add", "v1", "--encoder", down)
        asking.call("backfill", "run", "v1")
        asking.call("cutover", "run", "v1", "--confirm", "v1")
        wrong = revector.with_options(OPENAI_API_KEY="other").call("search", "x", status=4)
        assert "answered 401" in brief(wrong.err)
        assert "Check the key in the environment variable OPENAI_API_KEY." in wrong.err
        provider.fail(500)
        assert "did not answer in 1 attempt;" in brief(asking.call("search", "x", status=4).err)
        assert asking.call("search", "x").out
    add_chunks(connection, ["one more"])
    for command in ("search x", "compare x --candidate v1", "backfill run v1"):
        result = asking.call(*command.split(), status=4)
        assert f"openai:house-model at {provider.base_url} did not answer" in brief(result.err)
        assert "Try again later" in result.err
    result = asking.call("versions", "add", "v2", "--encoder", down, status=4)
    assert "did not answer" in brief(result.err)
    status = asking.call("backfill", "status", "v1", "--json").document
    assert (status["state"], status["pending"]) == ("interrupted", 1)
    assert [v.version_key for v in versions(connection)] == ["v1"]
    assert asking.call("log", "--json").out  # the key is in no row either


def test_an_encoder_without_its_key(revector: Revector) -> None:
    result = revector.call("versions", "add", "v1", "--encoder", "openai:text-embedding-3-small", status=4)
    assert "needs an API key" in brief(result.err)
    assert "OPENAI_API_KEY" in result.err


def _vectors(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM chunk_embeddings").fetchone()
    assert row is not None
    return int(row[0])
