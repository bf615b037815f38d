"""`revector compare` of a judged query."""

from __future__ import annotations

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.evaluation.judged_sets.query_sets import Query
from tests.console.cli.conftest import TEXTS
from tests.console.cli.program import Revector
from tests.evaluations import judged_set
from tests.versions import add_chunks, ready_version


def test_judgements_stand_beside_the_hits(revector: Revector, database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    ready_version(database, connection, "v1")
    ready_version(database, connection, "v2", "static:wordllama-256")
    cutover.run(connection, "v1", confirm="v1")
    query = "rotate an api key"
    plain = revector.call("compare", query, "--json").document
    assert plain["judged"] is None
    hits = plain["primary"]["hits"]
    assert {hit["grade"] for hit in hits} == {None}
    grades = {hits[0]["semantic_key"]: 2, hits[1]["semantic_key"]: 0}
    judged_set(connection, "help", [Query("k1", query)], {"k1": grades}, kind="chunk")

    document = revector.call("compare", query, "--json").document
    assert document["judged"].items() >= {
        "query_set": "help", "query_id": "k1", "level": "chunk", "judges": ["ada"], "relevant": 1,
    }.items()  # fmt: skip
    assert document["judged"]["ndcg"].items() >= {"k": 10, "primary": 1.0}.items()
    assert [hit["grade"] for hit in document["primary"]["hits"][:3]] == [2, 0, None]
    out = revector.call("compare", query).out
    assert f"★2 {hits[0]['source_id']}"[:20] in out
    assert "✗  " in out
    assert "nDCG@10 1.00 → " in out
    assert "(1 relevant chunk known, query k1 of help)" in out
    assert "nDCG" not in revector.call("compare", query + "s").out
