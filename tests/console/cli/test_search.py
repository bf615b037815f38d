"""`revector search` with all its options, and `revector serving`."""

from __future__ import annotations

import json
import os

import pytest

from revector.core.database import Connection, Database
from revector.core.retrieval import Retriever
from revector.core.serving import served_name, serving
from tests.console.cli.program import Revector
from tests.core.retrieval.collections import flip, two_versions
from tests.faults.watch import wait_until
from tests.versions import NUMBERS


@pytest.fixture
def numbers(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    connection.execute(
        """
        UPDATE document_chunks
        SET metadata = jsonb_build_object('even', id % 2 = 0, 'name', content, 'tags', jsonb_build_array('a=b', id))
        """
    )


@pytest.mark.usefixtures("numbers")
def test_search_takes_filters_and_words(revector: Revector) -> None:
    found = revector.call("search", "seven", "--filter", "even=true", "-k", "20", "--json").document
    assert len(found["hits"]) == 8
    assert found["where"] == {"even": True}
    assert found["active"] is True
    one = revector.call("search", "six", "--filter", "name=seven", "--hybrid", "--json").document
    assert [hit["content"] for hit in one["hits"]] == ["seven"]
    assert one["hybrid"] is True
    assert "without spaces for one word" in revector.call("search", "如何轮换密钥", "--hybrid").err
    assert revector.call("search", "如何轮换密钥").err == ""
    listed = revector.call("search", "six", "--filter", 'tags=["a=b"]', "--version", "v2", "--json").document
    assert (listed["version_key"], listed["active"], len(listed["hits"])) == ("v2", False, 10)
    assert "No results." in revector.call("search", "six", "--filter", "name=6").out
    two = revector.call("search", "six", "--filter", 'name={"$in": ["six", "seven"]}', "--json").document
    assert len(two["hits"]) == 2
    assert "$prefix" in revector.call("search", "six", "--filter", 'name={"$like": "s%"}', status=2).err
    assert "is not JSON" in revector.call("search", "six", "--filter", 'name={"$in" ["six"]}', status=2).err
    assert "is not a filter" in revector.call("search", "six", "--filter", "name", status=2).err
    assert "given twice" in revector.call("search", "six", "--filter", "a=1", "--filter", "a=2", status=2).err
    assert "no kind of reranker" in revector.call("search", "six", "--rerank", "static:x", status=2).err


@pytest.mark.usefixtures("numbers")
def test_serving_shows_who_serves_what_and_fails_for_who_is_late(
    revector: Revector, database: Database, connection: Connection
) -> None:
    assert "No search service" in revector.call("serving").out
    with Retriever(database, program="shop"):

        def seen() -> list[dict[str, object]]:
            return json.loads(revector.call("serving", "--json").out)["processes"]  # type: ignore[no-any-return]

        wait_until("it says so", lambda: [one["version_key"] for one in seen()] == ["v1"])
        assert (seen()[0]["program"], seen()[0]["pid"], seen()[0]["late"]) == ("shop", os.getpid(), False)
        assert f":{os.getpid()}" in revector.call("serving").out
    with database.connect("test") as stuck:
        oid, version = connection.execute(
            "SELECT n.oid::bigint, v.id FROM pg_namespace n, embedding_versions v "
            "WHERE nspname = current_schema() AND version_key = 'v1'"
        ).fetchone()  # type: ignore[misc]
        stuck.execute(
            "SELECT set_config('application_name', %s, false)", [served_name("shop", version, oid, pinned=False)]
        )
        flip(connection, "v2")
        connection.execute("UPDATE embedding_versions SET activated_at = now() - interval '6 s' WHERE active")
        wait_until("it is seen", lambda: any(one.late for one in serving(connection)))
        assert "behind for" in revector.call("serving", status=1).out
    with Retriever(database, pinned="gone", program="shop"):
        wait_until("it is seen", lambda: any(one.gone for one in serving(connection)))
        shown = revector.call("serving", status=1).out
        assert "pinned to gone, which does not exist" in shown
        assert f":{os.getpid()}" in shown
