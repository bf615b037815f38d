"""Registering versions, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from revector.core import registry
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import EncoderError, RefusedError, UsageError
from tests.encoders import Stub
from tests.versions import NUMBERS, SPEC, add, add_chunks, ready_version


class Liar(Stub):
    """States 64 dimensions and makes 32; stands for a provider that changed its model."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_documents(texts)[:, :32]

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return super().encode_query(text)[:32]


def test_a_version_is_registered_with_its_real_dimensions(connection: Connection) -> None:
    version = add(connection, "embed-v2026-03", "static:wordllama-128", metric="l2", storage="halfvec")
    assert (version.dimensions, version.distance_metric, version.storage) == (128, "l2", "halfvec")
    assert (version.state, version.active, version.encoder_spec) == ("registered", False, "static:wordllama-128")
    row = connection.execute(
        """
        SELECT format_type(atttypid, atttypmod), attstorage FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attname = 'embedding'
        """,
        [version.table_name],
    ).fetchone()
    assert row == ("halfvec(128)", "p")


def test_the_probe_finds_an_encoder_that_states_other_dimensions(connection: Connection) -> None:
    with pytest.raises(EncoderError, match="32"):
        registry.add_version(connection, "v1", Liar(), "liar:test")  # type: ignore[arg-type]
    assert registry.versions(connection) == []
    assert connection.execute("SELECT count(*) FROM chunk_embeddings").fetchone() == (0,)


@pytest.mark.parametrize("key", ["", " ", "-x", "a b", "a;b", "é", "x" * 64, "[red]", "a\n"])
def test_a_malformed_key_is_refused(connection: Connection, key: str) -> None:
    with pytest.raises(UsageError, match="version key"):
        add(connection, key)


def test_a_taken_key_an_unknown_metric_and_a_near_key(connection: Connection) -> None:
    add(connection, "embed-v2026-03")
    with pytest.raises(UsageError, match="taken"):
        add(connection, "embed-v2026-03")
    with pytest.raises(UsageError, match="cosine, l2, ip"):
        add(connection, "v2", metric="manhattan")
    with pytest.raises(UsageError, match="Did you mean embed-v2026-03"):
        registry.get_version(connection, "embed-v2026-30")


def test_vectors_that_fit_a_page_are_plain_and_larger_ones_external(connection: Connection) -> None:
    from revector.core.registry import create_table

    found = {}
    for dimensions, storage in ((2000, "vector"), (2001, "vector"), (4000, "halfvec"), (4001, "halfvec")):
        connection.execute(
            "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, "
            "distance_metric, storage) VALUES (%s, 'e', '1', %s, 'cosine', %s)",
            [f"v{dimensions}", dimensions, storage],
        )
        version = registry.get_version(connection, f"v{dimensions}")
        create_table(connection, version)
        vector = "[" + ",".join(["0.5"] * dimensions) + "]"
        connection.execute(f"INSERT INTO {version.table_name} VALUES (1, %s)", [vector])  # type: ignore[arg-type]  # noqa: S608
        row = connection.execute(
            "SELECT attstorage FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'",
            [version.table_name],
        ).fetchone()
        assert row is not None
        found[dimensions] = row[0]
    assert found == {2000: "p", 2001: "e", 4000: "p", 4001: "e"}


def test_a_version_inserted_by_sql_is_adopted(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric) "
        "VALUES ('v1', 'wordllama', '1', 64, 'cosine')"
    )
    with pytest.raises(RefusedError, match="256"):
        registry.adopt_version(connection, "v1", open_encoder("static:wordllama-256"), "static:wordllama-256")
    assert registry.adopt_version(connection, "v1", open_encoder(SPEC), SPEC).encoder_spec == SPEC
    with pytest.raises(RefusedError, match="already"):
        registry.adopt_version(connection, "v1", open_encoder(SPEC), SPEC)


def test_only_what_no_rollback_could_need_is_dropped(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = ready_version(database, connection, "v1")
    with pytest.raises(RefusedError, match="Retire it first"):
        registry.drop_version(connection, "v1")
    assert registry.retire_version(connection, "v1").state == "retired"
    registry.drop_version(connection, "v1")
    assert registry.versions(connection) == []
    assert connection.execute("SELECT to_regclass(%s)", [version.table_name]).fetchone() == (None,)
    assert connection.execute("SELECT count(*) FROM chunk_embeddings").fetchone() == (0,)


def test_the_active_version_is_not_retired(database: Database, connection: Connection) -> None:
    from revector.core import cutover

    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    cutover.run(connection, "v1", confirm="v1")
    with pytest.raises(RefusedError, match="active"):
        registry.retire_version(connection, "v1")
    with pytest.raises(RefusedError, match="Cut over to another version first"):
        registry.drop_version(connection, "v1")


def test_a_retired_version_is_brought_back_by_a_backfill(database: Database, connection: Connection) -> None:
    from tests.versions import backfill

    add_chunks(connection, NUMBERS)
    version = ready_version(database, connection, "v1")
    registry.retire_version(connection, "v1")
    add_chunks(connection, ["new"])
    backfill(database, version)
    status = registry.version_statuses(connection)[0]
    assert (status.embedded, status.missing) == (len(NUMBERS) + 1, 0)
    assert status.version.completed_at is not None
