"""Attempts to go round a request for a cutover: what leaves or comes after the approval, how it ends, what it waives.

`v1` is active and `v2` ready, and a cutover takes one approval.
"""

from __future__ import annotations

import json
from typing import LiteralString

import pytest

from revector.core import cutover
from revector.core.cutover.guards import GUARDS
from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError
from tests.core.test_insider_attacks import CHECK, FLIP, RIGHT, RULE, changed, collection, refused_flip, requested
from tests.core.test_roles import Collection
from tests.versions import add

__all__ = ["collection"]


REQUEST: LiteralString = (
    "INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis, waivers) "
    "SELECT id, %s, now(), '{}', %s FROM embedding_versions WHERE version_key = %s"
)


REPLACED: tuple[LiteralString, ...] = (
    "CREATE TEMP TABLE kept AS SELECT * FROM document_chunks WHERE id <= 4",
    "DELETE FROM document_chunks WHERE id IN (SELECT id FROM kept)",
    "INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256) "
    "SELECT semantic_key, document_id, chunk_no, content, content_sha256 FROM kept",
    "INSERT INTO chunk_embeddings_2 SELECT c.id, (SELECT embedding FROM chunk_embeddings_2 LIMIT 1) "
    "FROM document_chunks c JOIN kept USING (semantic_key)",
    "DELETE FROM chunk_outbox WHERE embedding_version_id = 2",
)
"""Chunks that come back as others, with vectors that nobody has approved."""


@pytest.mark.parametrize("before", ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"])
def test_a_deletion_that_no_request_is_seen_by_is_counted(collection: Collection, before: LiteralString) -> None:
    """One that is open while the request is made, or that looks at a time before."""
    early = 2 if before == "BEGIN" else 1
    with collection.as_role("operator") as other:
        other.execute(before)
        for statement in REPLACED[:early]:
            other.execute(statement)
        requested(collection)
        for statement in REPLACED[early:]:
            other.execute(statement)
        other.execute("COMMIT")
    refused_flip(collection, "more than 5% of its vectors left")


def test_a_loss_is_kept_as_long_as_a_request_needs_it(collection: Collection, connection: Connection) -> None:
    def losses() -> int:
        return fetch_one(connection, "SELECT count(*) FROM vector_losses WHERE embedding_version_id = 2")[0]  # type: ignore[no-any-return]

    connection.execute("DELETE FROM document_chunks WHERE id = 1")
    with collection.as_role("operator") as operator:
        for attempt in ("UPDATE vector_losses SET vectors = 0", "DELETE FROM vector_losses"):
            with pytest.raises(RIGHT):
                operator.execute(attempt)
        assert losses() == 1
        requested(collection)
        assert losses() == 0  # left before the request
        connection.execute("DELETE FROM document_chunks WHERE id = 2")
        connection.execute("SELECT forget_losses()")
        assert losses() == 1
        cutover.withdraw(operator, "v2")
    assert losses() == 0


def test_losses_are_forgotten_without_any_request(collection: Collection, connection: Connection) -> None:
    """No request is made for years: the table stays small by the deletions themselves."""
    connection.execute("SELECT setval(pg_get_serial_sequence('vector_losses', 'id'), 999)")
    connection.execute("DELETE FROM document_chunks WHERE id = 1")
    connection.execute("DELETE FROM document_chunks WHERE id = 2")
    connection.execute("SELECT setval(pg_get_serial_sequence('vector_losses', 'id'), 1999)")
    connection.execute("DELETE FROM document_chunks WHERE id = 3")
    assert fetch_one(connection, "SELECT count(*) FROM vector_losses")[0] <= 2


def test_what_has_no_vector_is_nothing_to_approve(collection: Collection, connection: Connection) -> None:
    """Waived or not: it could get any vector after the approval."""
    with collection.as_role("operator") as operator:
        version = add(operator, "v3")
        operator.execute("SELECT begin_filling(%s)", [version.id])
        operator.execute(
            "INSERT INTO dead_letters (embedding_version_id, chunk_id, error, waived_reason) "
            "SELECT %s, id, '', 'none is needed' FROM document_chunks",
            [version.id],
        )
        assert fetch_one(operator, "SELECT missing FROM prove_version(%s)", [version.id]) == (0,)
        with pytest.raises(RULE, match="has vectors of 0 of 16 chunks: there is nothing to approve yet"):
            operator.execute(
                "INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis) "
                "VALUES (%s, 'better', now(), '{}')",
                [version.id],
            )


def test_a_request_ends_as_it_did(collection: Collection, connection: Connection) -> None:
    """By functions of the owner alone: nobody else changes or locks its row, and the database says why it ended."""
    requested(collection)
    for role in ("operator", "approver"):
        with collection.as_role(role) as session:
            for attempt in (
                "UPDATE cutover_requests SET ended = 'void', ended_why = 'the policy changed'",
                "SELECT FROM cutover_requests FOR UPDATE",
                "SELECT FROM cutover_requests FOR KEY SHARE",
            ):
                with pytest.raises(RIGHT):
                    session.execute(attempt)  # type: ignore[arg-type]
    connection.execute(changed("v2", "index_settings", """'{"ef_search": 7}'""").encode())
    with collection.as_role("operator") as operator, collection.as_role("approver") as approver:
        made = cutover.request(operator, "v2", reason="as it is now")
        with pytest.raises(RULE, match=r"has already requested a cutover to v2"):
            operator.execute(REQUEST, ["once more", "{}", "v2"])
        cutover.approve(approver, "v2")
        ended = (
            "SELECT action, actor, reason, detail FROM audit_log WHERE action ~ 'void|withdraw' ORDER BY id DESC"
        )
        assert connection.execute(ended).fetchone() == (
            "cutover void", collection.names["operator"], "index settings ef_search changed from none to 7",
            {"request": made.id - 1},
        )  # fmt: skip
        operator.execute(FLIP)
        with pytest.raises(RULE, match="There is no open request"):
            approver.execute("SELECT withdraw_request(%s, 'no')", [made.id])


def test_a_reason_is_more_than_space(collection: Collection, connection: Connection) -> None:
    with collection.as_role("operator") as operator:
        for reason in ("", " ", "\t\n"):
            with pytest.raises(RULE, match="needs a reason"):
                operator.execute(REQUEST, [reason, "{}", "v2"])
            with pytest.raises(RULE, match="gives a reason"):
                operator.execute(REQUEST, ["better", json.dumps({"recall": reason}), "v2"])
            with pytest.raises(CHECK):
                operator.execute(
                    "INSERT INTO dead_letters (embedding_version_id, chunk_id, error, waived_reason) "
                    "VALUES (2, 1, '', %s)",
                    [reason],
                )
    with pytest.raises(RULE, match="To force it takes a reason"):
        connection.execute("SELECT drop_version('v1', E'\\t\\n', true)")


def test_what_cannot_be_waived_is_not_by_sql(collection: Collection) -> None:
    with collection.as_role("operator") as operator:
        for rule in GUARDS:
            waived = ["better", json.dumps({rule.name: "because"}), "v2"]
            if rule.waivable:
                with operator.transaction(force_rollback=True):
                    operator.execute(REQUEST, waived)
            else:
                with pytest.raises(RULE, match=f"without the guard {rule.name} cannot be requested"):
                    operator.execute(REQUEST, waived)


def test_a_rollback_waits_for_no_request(collection: Collection, connection: Connection) -> None:
    """Somebody is just ending it, and does not come to an end."""
    requested(collection)
    with collection.as_role("operator") as operator, collection.as_role("approver") as approver:
        operator.execute(FLIP)
        made = cutover.request(operator, "v1", reason="on second thoughts")
        approver.execute("BEGIN")
        approver.execute("SELECT withdraw_request(%s, '')", [made.id])
        operator.execute("SET lock_timeout = '1s'")
        assert cutover.rollback(operator, confirm="v1").changed
        approver.execute("ROLLBACK")
        assert cutover.requests(connection)[0].void_because == "the version became active after the request"


def test_a_waiver_of_what_is_no_guard_is_said_to_be_the_request_s(collection: Collection) -> None:
    with collection.as_role("operator") as operator:
        operator.execute(REQUEST, ["better", json.dumps({"recal": "because"}), "v2"])
        number = cutover.requests(operator)[0].id
        with pytest.raises(
            RefusedError, match=rf"Request {number} of .* has a waiver that does not count\. .*recal"
        ):
            cutover.run(operator, "v2", confirm="v2")
