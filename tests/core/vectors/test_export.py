"""Texts that a version lacks, written for encoding elsewhere; what comes back is loaded."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.encoders.again import Limits
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import get_version
from revector.core.vectors import export as exporting
from revector.core.vectors.export import export
from revector.core.vectors.files import find_files, open_vectors
from revector.core.vectors.load import load
from tests.protocol_server import ProtocolServer, embed
from tests.vector_files import new_chunks
from tests.versions import add, backfill


def test_a_batch_of_what_is_lacking_comes_back_as_vectors(
    database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_READ", 4)
    monkeypatch.setattr(exporting, "_MOST_REQUESTS", 7)
    _, keys = new_chunks(connection, 19)
    connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT encode(sha256('again'), 'hex'), document_id, 1, content, content_sha256
        FROM document_chunks WHERE content = 'text 1'
        """
    )
    with ProtocolServer() as provider:
        spec = f"openai:house-model?price=0&document_prefix=passage:+&base_url={provider.base_url}"
        version = add(connection, "v1", spec)
        found = export(connection, version, "openai-batch", tmp_path / "out")
        assert (found.texts, found.repeated, len(found.files)) == (19, 1, 3)
        requests = [json.loads(line) for path in find_files([tmp_path / "out"]) for line in path.open()]
        assert [one["custom_id"] for one in requests] == keys
        assert requests[1] == {
            "custom_id": keys[1], "method": "POST", "url": "/v1/embeddings",
            "body": {"model": "house-model", "input": "passage: text 2", "encoding_format": "float"},
        }  # fmt: skip
        with (tmp_path / "answers.jsonl").open("w") as file:
            for one in requests:
                vector = np.asarray(embed(one["body"]["input"], "house-model"), "<f4")
                body = {"data": [{"index": 0, "embedding": base64.b64encode(vector.tobytes()).decode()}]}
                file.write(json.dumps({"custom_id": one["custom_id"], "response": {"body": body}}) + "\n")
        report = load(database, version, [open_vectors(tmp_path / "answers.jsonl")], limits=Limits())
        assert (report.stored, report.missing, report.not_compared) == (19, 1, "")
        assert report.compared
        sent = len(provider.requests)
        backfill(database, version)
        assert [one for one in provider.requests[sent:] if "text 1" in str(one)] == []
    assert export(connection, get_version(connection, "v1"), "openai-batch", tmp_path / "again.jsonl").texts == 0
    assert (tmp_path / "again.jsonl").read_text() == ""


def test_a_table_with_a_column_of_vectors_loads(
    database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_READ", 7)
    ids, keys = new_chunks(connection, 20)
    version = add(connection, "v1", "static:wordllama-64?document_prefix=passage:+")
    path = tmp_path / "texts.parquet"
    assert export(connection, version, "parquet", path).files == (str(path),)
    table = pq.read_table(path)
    assert table.column("chunk_id").to_pylist() == ids.tolist()
    assert table.column("semantic_key").to_pylist() == keys
    texts = table.column("text").to_pylist()
    assert texts[:2] == ["passage: text 1", "passage: text 2"]
    vectors = open_encoder("static:wordllama-64").encode_documents(texts)
    embedding = pa.array(list(vectors), pa.list_(pa.float32()))
    pq.write_table(table.append_column("embedding", embedding), tmp_path / "made.parquet")
    report = load(database, version, [open_vectors(tmp_path / "made.parquet")], limits=Limits())
    assert (report.stored, report.missing) == (20, 0)
    assert report.compared


def test_what_an_export_refuses(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_MOST_ROWS", 7)
    new_chunks(connection, 20)
    version = add(connection, "v1")
    (tmp_path / "there.parquet").write_text("somebody's")
    with pytest.raises(RefusedError, match="exists"):
        export(connection, version, "parquet", tmp_path / "there.parquet")
    with pytest.raises(RefusedError, match="larger than one file may be"):
        export(connection, version, "parquet", tmp_path / "there.parquet", overwrite=True)
    with pytest.raises(UsageError, match="no OpenAI batch endpoint"):
        export(connection, version, "openai-batch", tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match="no format 'csv'"):
        export(connection, version, "csv", tmp_path / "x.csv")
    with pytest.raises(UsageError, match="cannot be written"):
        export(connection, version, "parquet", tmp_path / "there.parquet" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["there.parquet"]
    assert (tmp_path / "there.parquet").read_text() == "somebody's"
