"""The columns of a version: none is missing, and each is shown once."""

from __future__ import annotations

import datetime
from dataclasses import fields, replace

import pytest

from revector.core.registry import Version, VersionStatus
from revector.screens.wording.version import COLUMNS, cells, facts_of
from tests.screens.frozen import OVERVIEW

STATUS = OVERVIEW.versions[1]
CONTRACT = {"version_key", "encoder", "revision", "dimensions", "metric", "state", "active", "embedded", "missing"}
"""The keys of `versions list --json` (design, chapter 10)."""


def other(value: object) -> object:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case dict():
            return {**value, "m": 24}
        case str():
            return f"{value}x"
    return datetime.datetime(2026, 5, 6, tzinfo=datetime.UTC)


@pytest.mark.parametrize("name", [field.name for field in fields(Version) if field.name != "encoder_hosts"])
def test_a_column_of_the_table_is_listed(name: str) -> None:
    changed = replace(STATUS, version=replace(STATUS.version, **{name: other(getattr(STATUS.version, name))}))
    if name != "id":
        assert [column.value(changed) for column in COLUMNS.values()] != [
            column.value(STATUS) for column in COLUMNS.values()
        ]
    if name != "active":  # which the state says
        assert facts_of(changed) != facts_of(STATUS)


def test_the_keys_of_the_contract_are_among_them() -> None:
    assert set(COLUMNS) >= CONTRACT
    labels = [label for label, _ in facts_of(STATUS)]
    assert len(set(labels)) == len(labels)


def test_words_long_and_short() -> None:
    made = replace(STATUS.version, dimensions=1536, encoder_spec="", encoder_name="by-hand", completed_at=None)
    status = VersionStatus(made, 12_345, 0, 2)
    assert cells(status, "encoder", "dimensions", "embedded", "notes") == ["by-hand", "1,536", "12,345", "—"]
    assert cells(status, "index_settings", "deactivated_at") == ["the defaults", "—"]
    assert facts_of(status, "encoder", "storage", "proven_at") == [
        ("encoder", "by-hand (by name only: revector versions adopt)"),
        ("storage", f"vector, table chunk_embeddings_{made.id}"),
        ("proven", "no: no backfill has finished"),
    ]
