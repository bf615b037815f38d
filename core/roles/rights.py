"""The rights of a connection's role, read from Postgres, so that only what is allowed is offered."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated

import psycopg

from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError
from revector.core.roles.kinds import Need


@dataclass(frozen=True)
class Rights:
    """The rights of a connection's role on the collection, read from Postgres."""

    role: str
    view: Annotated[bool, "read and search"]
    operate: Annotated[bool, "everything but approve and administer"]
    approve: Annotated[bool, "approve what others request"]
    administer: Annotated[bool, "the schema, the policy of cutovers, and rights"]

    @property
    def word(self) -> str:
        """`viewer`, `operator` or `approver` for a role that may not do everything, else ''."""
        if self.operate:
            return "" if self.approve else "operator"
        return "approver" if self.approve else "viewer"

    @property
    def withdraw(self) -> bool:
        """Whether the role may end a request for a cutover."""
        return self.operate or self.approve

    def allow(self, need: Need | None) -> bool:
        """Whether the rights are enough for a need."""
        return need is None or bool(getattr(self, need))


EVERYTHING = Rights("", view=True, operate=True, approve=True, administer=True)


def read_rights(connection: Connection) -> Rights:
    """The rights of the connection's role: one query of the catalogue, whatever the size of the collection."""
    return Rights(
        *fetch_one(
            connection,
            """
            SELECT session_user::text,
                   coalesce(has_table_privilege(to_regclass('audit_log'), 'SELECT'), false),
                   coalesce(has_column_privilege(to_regclass('embedding_versions'), 'active', 'UPDATE'), false),
                   coalesce(has_column_privilege(to_regclass('cutover_approvals'), 'request_id', 'INSERT'), false),
                   coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace
                             WHERE oid = to_regnamespace(quote_ident(current_schema()))), false)
            """,
        )
    )


def require(connection: Connection, need: Need, action: str) -> None:
    """Raise RefusedError, and log it, when the role may not do `action`.

    An early, clear error; Postgres would refuse it anyway.
    """
    rights = read_rights(connection)
    if rights.allow(need):
        return
    kind = {"approve": "approver", "administer": "owner"}.get(need, "operator")
    with contextlib.suppress(psycopg.Error):
        connection.execute("SELECT record_refusal(%s, %s)", [action, kind])
    if need == "administer":
        refusal = RefusedError(
            f"The role {rights.role} may not do this, only the owner of the schema: nothing was changed.",
            "Connect as that role, or as a superuser.",
        )
    else:
        has = (
            f"It is {'an' if rights.word[0] in 'ao' else 'a'} {rights.word}. "
            if rights.view and rights.word
            else ""
        )
        refusal = RefusedError(
            f"The role {rights.role} may not do this: nothing was changed.",
            f"{has}The owner of the schema can give it the right: revector db grant {rights.role} {kind}",
        )
    refusal.recorded = True
    raise refusal
