"""What all models share: types, constraint names, the current time."""

from __future__ import annotations

import datetime

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, MetaData, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase

Timestamp = TIMESTAMP(timezone=True)
NOW = text("now()")
CLIENT = text("COALESCE(current_setting('revector.client'::text, true), ''::text)")


def readable_time(column: str) -> str:
    """The check of a column that applications or operators write: clients cannot read 'infinity' or the year 10000."""
    return f"{column} BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'"


def sane_times(*columns: str) -> CheckConstraint:
    """A check that these times of a row, which operators write, can be read."""
    least, greatest = _ends(columns)
    return CheckConstraint(
        f"{least} >= '2000-01-01 00:00+00' AND {greatest} <= '3000-01-01 00:00+00'", name="times"
    )


def sane_amounts(*columns: str) -> CheckConstraint:
    """A check that these amounts of a row, which operators write, are finite numbers."""
    least, greatest = _ends(columns)
    return CheckConstraint(f"{least} >= -1000000000000 AND {greatest} <= 1000000000000", name="amounts")


def _ends(columns: tuple[str, ...]) -> tuple[str, str]:
    named = ", ".join(columns)
    return (f"least({named})", f"greatest({named})") if len(columns) > 1 else (named, named)


class Base(DeclarativeBase):
    """Base class of the fixed tables. They have no schema name: the search path selects the collection."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {str: Text, int: BigInteger, datetime.datetime: Timestamp, bytes: LargeBinary}  # noqa: RUF012
