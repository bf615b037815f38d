"""The columns of an embedding version: each with its JSON name, its label and its text.

Used by the command line, the Versions tab and the notebook.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from revector.core.registry import VersionStatus
from revector.screens.wording.text import date_and_time


@dataclass(frozen=True)
class VersionColumn:
    """One column. `words` is a longer text for where there is room; lists of facts leave out columns without a
    label."""

    key: str
    label: str
    value: Callable[[VersionStatus], object]
    words: Callable[[VersionStatus], str] | None = None


COLUMNS = {
    column.key: column
    for column in (
        VersionColumn("version_key", "version", lambda s: s.version.version_key),
        VersionColumn("active", "", lambda s: s.version.active),
        VersionColumn("state", "state", lambda s: s.version.state),
        VersionColumn(
            "encoder", "encoder", lambda s: s.version.encoder_spec or s.version.encoder_name,
            lambda s: s.version.encoder_spec or f"{s.version.encoder_name} (by name only: revector versions adopt)",
        ),
        VersionColumn("encoder_name", "name", lambda s: s.version.encoder_name),
        VersionColumn("revision", "revision", lambda s: s.version.encoder_revision),
        VersionColumn("dimensions", "dimensions", lambda s: s.version.dimensions),
        VersionColumn("metric", "metric", lambda s: s.version.distance_metric),
        VersionColumn(
            "storage", "storage", lambda s: s.version.storage,
            lambda s: f"{s.version.storage}, table {s.version.table_name}",
        ),
        VersionColumn("index_settings", "index settings", lambda s: s.version.index_settings),
        VersionColumn("embedded", "embedded", lambda s: s.embedded),
        VersionColumn("missing", "missing", lambda s: s.missing),
        VersionColumn("failed", "failed", lambda s: s.failed),
        VersionColumn(
            "created_at", "created", lambda s: s.version.created_at,
            lambda s: f"{date_and_time(s.version.created_at)} by {s.version.created_by}",
        ),
        VersionColumn("created_by", "", lambda s: s.version.created_by),
        VersionColumn("completed_at", "", lambda s: s.version.completed_at),
        VersionColumn(
            "proven_at", "proven", lambda s: s.version.proven_at,
            lambda s: f"{date_and_time(s.version.proven_at)}   complete since {date_and_time(s.version.completed_at)}"
            if s.version.completed_at else "no: no backfill has finished",
        ),
        VersionColumn("activated_at", "activated", lambda s: s.version.activated_at),
        VersionColumn("deactivated_at", "deactivated", lambda s: s.version.deactivated_at),
        VersionColumn("notes", "notes", lambda s: s.version.notes),
    )
}  # fmt: skip


def cells(status: VersionStatus, *keys: str) -> list[str]:
    """Columns of a version as short texts: `1,234`, `2026-03-01 14:02`, `m 16, ef_construction 64`."""
    return [_short(COLUMNS[key].value(status)) for key in keys]


def facts_of(status: VersionStatus, *keys: str) -> list[tuple[str, str]]:
    """Label and text of those columns, or of all by default."""
    columns = [COLUMNS[key] for key in keys or COLUMNS]
    return [
        (column.label, column.words(status) if column.words else _short(column.value(status)))
        for column in columns
        if column.label
    ]


def _short(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case datetime.datetime():
            return date_and_time(value)
        case dict():
            return ", ".join(f"{name} {one}" for name, one in value.items()) or "the defaults"
    return str(value or "—")
