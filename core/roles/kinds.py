"""The kinds of rights, and what each may read and write, table by table."""

from __future__ import annotations

from typing import Literal, LiteralString

Kind = Literal["viewer", "operator", "approver", "application"]
Need = Literal["operate", "approve", "withdraw", "administer"]

KINDS: dict[Kind, str] = {
    "viewer": "reads everything and searches",
    "operator": "registers, ingests, backfills, evaluates, judges, shadows, requests cutovers, flips and rolls back",
    "approver": "reads everything, and approves what others request",
    "application": "searches, counts its searches and mirrors them to a shadow",
}
"""What each kind may do, in one line."""

_ALL = "INSERT, UPDATE, DELETE"
# Triggers fill the other columns of the log and of requests (core/migrations/sql).
_LOG = "INSERT (action, version_key, outcome, reason, detail)"
# Who may delete rows of a table, or update whole ones, may lock it (LOCK TABLE). Who may update columns may not.
_COUNTS = "INSERT, UPDATE (searches, empty, errors, latencies, cached_latencies, first_error, last_error)"

# What a role may write, by table. A version's active is the flip. When it was proven, activated or deactivated is
# written by functions and triggers alone, and so is who made what when.
OPERATOR_WRITES: dict[str, LiteralString] = {
    "audit_log": _LOG,
    # No id: the database gives it, so that no vector is another chunk's and no sample of rows is led astray.
    "document_chunks": (
        "INSERT (semantic_key, document_id, chunk_no, content, content_sha256, source_id, metadata, "
        "origin_id), UPDATE (source_id, metadata), DELETE"
    ),
    "ingest_origins": "INSERT (given, path, prefix)",
    "repeated_texts": _ALL,
    "embedding_versions": (
        "INSERT (version_key, encoder_name, encoder_revision, dimensions, distance_metric, encoder_spec, storage, "
        "index_settings, notes), "
        "UPDATE (active, encoder_spec, index_settings, notes)"
    ),
    "row_counts": _ALL,
    "chunk_outbox": "INSERT, UPDATE (leased_until, lease_worker), DELETE",
    "dead_letters": "INSERT, UPDATE (error, attempts, failed_at, waived_by, waived_reason), DELETE",
    "backfill_jobs": _ALL,
    "backfill_ranges": _ALL,
    "backfill_workers": _ALL,
    "backfill_samples": _ALL,
    "backfill_transitions": "INSERT",
    "vector_loads": _ALL,
    "query_sets": _ALL,
    "queries": _ALL,
    "judges": _ALL,
    "judgements": _ALL,
    "evaluation_runs": _ALL,  # a finished one never changes
    "evaluation_results": "INSERT",
    "evaluations": "INSERT",
    "search_counts": _COUNTS,
    "shadows": _ALL,
    "cutover_requests": "INSERT (embedding_version_id, reason, expires_at, basis, waivers, guards)",
}
APPROVER_WRITES: dict[str, LiteralString] = {
    "audit_log": _LOG,
    "cutover_approvals": "INSERT (request_id, comment)",
}
VIEWER_CALLS: tuple[LiteralString, ...] = ("record_refusal(text, text)", "next_versions()")
_UPKEEP: tuple[LiteralString, ...] = ("forget_search_counts()", "forget_shadow_queries(int)")
APPLICATION_CALLS: tuple[LiteralString, ...] = (*VIEWER_CALLS, *_UPKEEP, "hash_query(bytea)")
APPROVER_CALLS: tuple[LiteralString, ...] = ("withdraw_request(bigint, text)",)
OPERATOR_CALLS: tuple[LiteralString, ...] = (
    *_UPKEEP,
    "lock_ingest()",
    "lock_flip()",
    "withdraw_request(bigint, text)",
    "create_version_table(bigint)",
    "begin_filling(bigint)",
    "delete_orphans(bigint, bigint[])",
    "prove_version(bigint)",
    "key_version_table(bigint)",
    "validate_version_table(bigint)",
    "unkey_version_table(bigint)",
    "build_index(bigint, text, int)",
    "drop_index(bigint)",
    "note_index(bigint)",
    "retire_version(text, text, boolean)",
    "drop_version(text, text, boolean)",
)
"""Functions with the owner's rights: what an operator does to a version beside inserting rows."""
OWNER_READS = ("query_key",)
"""Tables that nobody but the owner reads."""
APPLICATION_READS = (
    "revector_revision",
    "encoder_hosts",
    "embedding_versions",
    "document_chunks",
    "word_statistics",
    "word_counts",
    "chunk_embeddings",
    "shadows",
    "search_counts",
    "shadow_queries",
    "shadow_counts",
)
APPLICATION_WRITES: dict[str, LiteralString] = {
    "search_counts": _COUNTS,
    "shadow_queries": "INSERT",
    "shadow_counts": "INSERT, UPDATE (seen, drawn, done, dropped, failed, open_since, error, updated_at)",
}
