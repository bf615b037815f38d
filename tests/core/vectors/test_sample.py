"""Files beside the encoder: a sample of each is compared before it is loaded, and vectors are scaled as it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from revector.core.chunks import document_uuid
from revector.core.database import Connection, Database, fetch_column
from revector.core.encoders import open_encoder
from revector.core.encoders.again import Limits
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, create_table, get_version
from revector.core.vectors.files import find_files, open_vectors
from revector.core.vectors.load import load
from revector.core.vectors.report import LoadReport
from tests.vector_files import stored
from tests.versions import add, add_chunks

SPEC = "static:wordllama-64"
TEXTS = [f"chapter {n} of the book of {n * n} pages about number {n}" for n in range(200)]
PARTS = 20


@pytest.fixture(scope="module")
def made() -> NDArray[np.float32]:
    """What the encoder makes of the texts."""
    return open_encoder(SPEC).encode_documents(TEXTS)


def write_parts(folder: Path, ids: Sequence[int], vectors: NDArray[np.floating]) -> Path:
    """The rows in twenty files."""
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(ids)), PARTS)):
        np.save(folder / f"part-{number:02}.npy", vectors[rows])
        np.save(folder / f"part-{number:02}.ids.npy", np.array(ids)[rows])
    return folder


def loaded(database: Database, version: Version, *paths: Path, limits: Limits | None = None) -> LoadReport:
    files = [open_vectors(path) for path in find_files(paths)]
    return load(database, version, files, limits=limits or Limits())


def refused(database: Database, version: Version, *paths: Path) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        loaded(database, version, *paths)
    assert "Nothing of it was loaded." in caught.value.remedy
    return caught.value


def test_the_files_of_a_folder_are_loaded_and_each_is_compared(
    database: Database, connection: Connection, tmp_path: Path, made: NDArray[np.float32]
) -> None:
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "v1", SPEC)
    report = loaded(database, version, write_parts(tmp_path / "out", ids, made))
    assert (report.source, report.rows, report.stored, report.missing) == ("20 files", 200, 200, 0)
    assert len(report.files) == PARTS
    assert all(3 <= one.compared <= 10 for one in report.files)
    assert (report.compared, report.not_compared) == (sum(one.compared for one in report.files), "")
    assert set(stored(connection, version)) == set(ids)


def test_one_shuffled_part_in_twenty_is_found_at_the_load_by_name(
    database: Database, connection: Connection, tmp_path: Path, made: NDArray[np.float32]
) -> None:
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "v1", SPEC)
    folder = write_parts(tmp_path / "out", ids, made)
    path = folder / "part-13.npy"
    np.save(path, np.roll(np.load(path), 1, axis=0))
    error = refused(database, version, folder)
    assert error.problem.startswith(f"{path}: the ids look shuffled: ")
    assert "Write vectors and ids in the same order." in error.remedy
    create_table(connection, version)
    assert stored(connection, version) == {}


def test_another_models_vectors_are_refused(
    database: Database, connection: Connection, tmp_path: Path, made: NDArray[np.float32]
) -> None:
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "v1", SPEC)
    others = np.random.default_rng(0).standard_normal(made.shape)
    error = refused(database, version, write_parts(tmp_path / "out", ids, others))
    assert "look like another model's" in error.remedy
    assert f"part-00.npy: {10} of {10} rows compared are not what {SPEC} makes" in error.problem


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_vectors_are_scaled_to_length_one_where_the_spec_says_so(
    database: Database, connection: Connection, tmp_path: Path, made: NDArray[np.float32], storage: str
) -> None:
    """As those that the encoder returns: an inner product would rank the longest first."""
    ids = add_chunks(connection, TEXTS)
    lengths = np.random.default_rng(0).uniform(0.1, 90_000, (len(made), 1))
    folder = write_parts(tmp_path / "out", ids, made.astype(np.float64) * lengths)
    version = add(connection, "v1", SPEC, metric="ip", storage=storage)
    assert loaded(database, version, folder).stored == len(TEXTS)
    kind = ">f4" if storage == "vector" else ">f2"
    found = {
        one: np.frombuffer(data, kind).astype(np.float32) for one, data in stored(connection, version).items()
    }
    assert np.allclose([found[one] for one in ids], made, atol=1e-6 if storage == "vector" else 1e-3)
    plain = add(connection, "v2", f"{SPEC}?normalise=false", metric="cosine")
    loaded(database, plain, folder)
    lengths_now = [np.linalg.norm(np.frombuffer(data, ">f4")) for data in stored(connection, plain).values()]
    assert max(lengths_now) > 1_000


def test_lengths_that_the_encoder_does_not_make_are_refused_for_an_inner_product(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "v1", f"{SPEC}?normalise=false", metric="ip")
    vectors = 3 * open_encoder(version.encoder_spec).encode_documents(TEXTS)
    error = refused(database, version, write_parts(tmp_path / "out", ids, vectors))
    assert "vectors are 3 to 3 times as long" in error.problem


@pytest.mark.parametrize(
    ("spec", "limits", "why"),
    [
        ("openai:m?dimensions=64&price=0&base_url=http://127.0.0.1:9/v1", Limits(), "cannot be reached"),
        (SPEC, Limits(timeout_s=0.0), "no text within 0 s"),
    ],
)
def test_an_encoder_that_cannot_be_asked_is_no_reason_to_refuse_and_is_said(
    database: Database,
    connection: Connection,
    tmp_path: Path,
    made: NDArray[np.float32],
    spec: str,
    limits: Limits,
    why: str,
) -> None:
    ids = add_chunks(connection, TEXTS)
    connection.execute("INSERT INTO encoder_hosts (host) VALUES ('127.0.0.1:9') ON CONFLICT DO NOTHING")
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric,
                                        encoder_spec)
        VALUES ('v1', 'elsewhere', '1', 64, 'cosine', %s)
        """,
        [spec],
    )
    report = loaded(
        database, get_version(connection, "v1"), write_parts(tmp_path / "out", ids, made), limits=limits
    )
    assert (report.stored, report.compared) == (200, 0)
    assert why in report.not_compared


def test_documents_of_one_chunk_may_be_named_by_their_own_ids(
    database: Database, connection: Connection, tmp_path: Path, made: NDArray[np.float32]
) -> None:
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "v1", SPEC)
    names = [f"book {n}" for n in range(len(ids))]
    for chunk_id, name in zip(ids, names, strict=True):
        connection.execute(
            "UPDATE document_chunks SET source_id = %s, document_id = %s WHERE id = %s",
            [name, document_uuid(name), chunk_id],
        )
    np.save(tmp_path / "v.npy", made)
    (tmp_path / "own.txt").write_text("\n".join([*names[:-1], "nobody's"]))
    file = open_vectors(tmp_path / "v.npy", ids=tmp_path / "own.txt", ids_are="source_id")
    report = load(database, version, [file], limits=Limits())
    assert (report.stored, report.unknown) == (199, 1)
    assert set(stored(connection, version)) == set(ids[:-1])
    second = document_uuid(names[0])
    connection.execute("UPDATE document_chunks SET document_id = %s, chunk_no = 1 WHERE id = %s", [second, ids[1]])
    with pytest.raises(UsageError, match="The document 'book 0' has several chunks"):
        load(database, add(connection, "v2", SPEC), [file])
    assert fetch_column(connection, "SELECT count(*) FROM vector_loads") == [2]
