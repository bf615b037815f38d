"""Roles: what a viewer, an operator, an approver and an application may do, as grants of Postgres.

A collection has one NOLOGIN role for each kind, made by the first `grant`; a role is given a right by membership in
it. Postgres enforces everything: what is read here is for offering only what would be allowed. The schema, the policy
of cutovers and these grants stay with the owner of the schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, LiteralString, get_args

from psycopg import errors as pg
from psycopg import sql

from core import audit
from core.database import Connection, fetch_one
from core.errors import RefusedError, UsageError, unknown_name

Kind = Literal["viewer", "operator", "approver", "application"]
Need = Literal["operate", "approve"]

KINDS: dict[Kind, str] = {
    "viewer": "reads everything and searches",
    "operator": "registers, ingests, backfills, evaluates, judges, shadows, requests cutovers, flips and rolls back",
    "approver": "reads everything, and approves what others request",
    "application": "searches, counts its searches and mirrors them to a shadow",
}
"""What each kind may do, in a line."""

_ALL = "INSERT, UPDATE, DELETE"
# The other columns of the log and of requests are the database's own: see revisions 0007 and 0008.
_LOG = "INSERT (action, version_key, outcome, reason, detail)"

# What a role may write, by table. A version's completed_at and proven_at are what its backfill says; active is the
# flip. activated_at and deactivated_at are written by triggers alone, and so is who made what when.
OPERATOR_WRITES: dict[str, LiteralString] = {
    "audit_log": _LOG,
    "document_chunks": "INSERT, UPDATE, DELETE, REFERENCES",
    "repeated_texts": _ALL,
    "embedding_versions": (
        "INSERT (version_key, encoder_name, encoder_revision, dimensions, distance_metric, encoder_spec, storage, "
        "index_settings, notes), "
        "UPDATE (version_key, active, state, encoder_spec, index_settings, notes, completed_at, proven_at), DELETE"
    ),
    "row_counts": _ALL,
    "chunk_outbox": _ALL,
    "dead_letters": _ALL,
    "backfill_jobs": _ALL,
    "backfill_ranges": _ALL,
    "backfill_workers": _ALL,
    "backfill_samples": _ALL,
    "backfill_proofs": _ALL,
    "backfill_transitions": "INSERT",
    "vector_loads": _ALL,
    "query_sets": _ALL,
    "queries": _ALL,
    "judges": _ALL,
    "judgements": _ALL,
    "evaluation_runs": _ALL,
    "evaluation_results": _ALL,
    "evaluations": _ALL,
    "search_counts": _ALL,
    "shadows": _ALL,
    "shadow_queries": _ALL,
    "shadow_counts": _ALL,
    "cutover_requests": (
        "INSERT (embedding_version_id, reason, expires_at, basis, waivers, guards), UPDATE (ended, ended_at, ended_why)"
    ),
    "cutovers": "UPDATE (watch_ended_at, watch_ended_why)",
}
APPROVER_WRITES: dict[str, LiteralString] = {
    "audit_log": _LOG,
    "cutover_approvals": "INSERT (request_id, comment)",
    "cutover_requests": "UPDATE (ended, ended_at, ended_why)",  # whoever does not agree ends it
}
APPLICATION_READS = (
    "alembic_version",
    "embedding_versions",
    "document_chunks",
    "chunk_embeddings",
    "shadows",
    "search_counts",
    "shadow_queries",
    "shadow_counts",
)
APPLICATION_WRITES: dict[str, LiteralString] = {
    "search_counts": _ALL,
    "shadow_queries": "INSERT, DELETE",
    "shadow_counts": _ALL,
}
ONLY_THE_OWNER_WRITES = ("alembic_version", "cutover_policy")

_LOCK = 0x7265766772616E74
"""Advisory lock of grants: two at once would change the same rows of the catalogue."""

_LONGEST_NAME = 63


@dataclass(frozen=True)
class Rights:
    """What the role of a connection may do to the collection, as Postgres says."""

    role: str
    view: bool
    operate: bool
    approve: bool
    administer: bool

    @property
    def word(self) -> str:
        """`viewer`, `operator` or `approver` for a role that may not do everything, else ''."""
        if self.operate:
            return "" if self.approve else "operator"
        return "approver" if self.approve else "viewer"

    def allow(self, need: Need | None) -> bool:
        """Whether they are enough."""
        return need is None or (self.operate if need == "operate" else self.approve)


EVERYTHING = Rights("", view=True, operate=True, approve=True, administer=True)


@dataclass(frozen=True)
class Granted:
    """A role and a right that it was given; `login` is false for a role that stands for others."""

    role: str
    kind: Kind | Literal["owner"]
    login: bool


def read_rights(connection: Connection) -> Rights:
    """The rights of the connection's role. One look into the catalogue, whatever the size of the collection."""
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


def require(connection: Connection, need: Need | None, action: str) -> None:
    """Raise RefusedError, and leave it in the log, when the role may not do `action`.

    Early, with a clear word; Postgres would refuse it all the same. Without `need` any right to change will do.
    """
    rights = read_rights(connection)
    if rights.allow(need) if need else rights.operate or rights.approve:
        return
    kind = "approver" if need == "approve" else "operator"
    if rights.view:  # whoever may read may leave that in the log
        connection.execute("SELECT record_refusal(%s, %s)", [action, kind])
    has = f"It is {'an' if rights.word[0] in 'ao' else 'a'} {rights.word}. " if rights.view and rights.word else ""
    raise RefusedError(
        f"The role {rights.role} may not do this: nothing was changed.",
        f"{has}The owner of the schema can give it the right: revector db grant {rights.role} {kind}",
    )


def granted(connection: Connection) -> list[Granted]:
    """Who was given what, and the owner of the schema. Members of a role that was given a right have it as well."""
    groups = _groups(connection)
    owner, login = fetch_one(
        connection,
        """
        SELECT rolname::text, rolcanlogin FROM pg_roles
        WHERE oid = (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
        """,
    )
    rows = connection.execute(
        """
        SELECT DISTINCT r.rolname::text, g.rolname::text, r.rolcanlogin
        FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
        WHERE g.rolname = ANY(%(groups)s) AND r.rolname <> ALL(%(groups)s) AND r.rolname <> %(owner)s
          -- not the one who made the group, who may give it and does not have it (from Postgres 16 on)
          AND coalesce((to_jsonb(m) ->> 'inherit_option')::boolean OR (to_jsonb(m) ->> 'set_option')::boolean, true)
        """,
        {"groups": list(groups.values()), "owner": owner},
    ).fetchall()
    kinds = {name: kind for kind, name in groups.items()}
    order = list(KINDS)
    members = [Granted(role, kinds[group], can_login) for role, group, can_login in rows]
    return [
        Granted(owner, "owner", login),
        *sorted(members, key=lambda one: (one.role, order.index(one.kind))),  # type: ignore[arg-type]
    ]


def grant(connection: Connection, role: str, kind: Kind) -> None:
    """Give a role a right in this collection. The first time makes the collection's own roles, and gives them theirs.

    That takes a short exclusive lock on each version's table, which they own from then on, so that what one operator
    made another one can index, load and drop. Raises UsageError for an unknown role or kind, RefusedError when the
    caller may not grant.
    """
    _check(connection, role, kind)
    with _granting(connection):
        _make_groups(connection)
        groups = _groups(connection)
        _apply(connection, groups)
        _give(connection, groups[kind], role)
        audit.record(connection, "db grant", None, detail={"role": role, "right": kind})


def revoke(connection: Connection, role: str, kind: Kind) -> None:
    """Take a right from a role; its open sessions lose it with their next statement.

    Raises UsageError for an unknown role or kind, RefusedError when the role was not given it, or the caller may not.
    """
    _check(connection, role, kind)
    with _granting(connection):
        group = _groups(connection).get(kind, "")
        if not any(one.role == role and one.kind == kind for one in granted(connection)):
            raise RefusedError(
                f"The role {role} was not given {kind}.", "See who was given what: revector db roles"
            )
        for grantor in _grantors(connection, group, role):
            statement = sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), sql.Identifier(role))
            if grantor:
                statement += sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor))
            connection.execute(statement)
        audit.record(connection, "db revoke", None, detail={"role": role, "right": kind})


def renew_grants(connection: Connection) -> None:
    """After an upgrade of the schema: give the collection's own roles their rights on what is there now."""
    groups = _set_up_groups(connection)
    if groups:
        _apply(connection, groups)


def share_version_table(connection: Connection, table: str) -> None:
    """Hand a version's table, just made, to all operators; without a `grant` so far it stays with who made it."""
    groups = _set_up_groups(connection)
    if groups:
        _share(connection, table, groups)


# -- the collection's own roles ------------------------------------------------------------------------------


def _groups(connection: Connection) -> dict[Kind, str]:
    """The roles of the collection that are there, by kind.

    Roles belong to the whole server, so that their names hold the database and the schema. No schema has a slash or
    a colon in its name, so that no two collections share one.
    """
    database, schema = fetch_one(connection, "SELECT current_database()::text, current_schema()::text")
    names = {kind: _group_name(database, schema, kind) for kind in KINDS}
    there = {
        row[0]
        for row in connection.execute(
            "SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)", [list(names.values())]
        ).fetchall()
    }
    return {kind: name for kind, name in names.items() if name in there}


def _set_up_groups(connection: Connection) -> dict[Kind, str]:
    """The same when they have their rights on this schema, else none."""
    groups = _groups(connection)
    return groups if len(groups) == len(KINDS) and _is_set_up(connection, groups["viewer"]) else {}


def _group_name(database: str, schema: str, kind: Kind) -> str:
    """`revector:prod/search:operator`, with a hash for a database and a schema that are too long."""
    place = f"{database}/{schema}"
    name = f"revector:{place}:{kind}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"revector:{hashlib.sha256(place.encode()).hexdigest()[:32]}:{kind}"
    return name


def _make_groups(connection: Connection) -> None:
    database, schema, owner, superuser = fetch_one(
        connection,
        """
        SELECT current_database()::text, current_schema()::text, rolname::text, rolsuper FROM pg_roles
        WHERE oid = (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
        """,
    )
    there = _groups(connection)
    set_up = "viewer" in there and _is_set_up(connection, there["viewer"])
    for kind in KINDS:
        name = _group_name(database, schema, kind)
        if kind in there:
            if not set_up:
                _refuse_members(connection, name)
            continue
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
        text = f"revector, database {database}, schema {schema}: {KINDS[kind]}"
        connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))
    groups = _groups(connection)
    for kind in ("operator", "approver"):
        _give(connection, groups["viewer"], groups[kind])
    if not superuser:
        _give(connection, groups["operator"], owner)


def _is_set_up(connection: Connection, viewer: str) -> bool:
    """Whether the roles have their rights on this schema; they may be left over from one of that name."""
    (found,) = fetch_one(
        connection,
        """
        SELECT EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
                       WHERE n.nspname = current_schema() AND r.rolname = %s)
        """,
        [viewer],
    )
    return bool(found)


def _refuse_members(connection: Connection, group: str) -> None:
    members = [
        row[0]
        for row in connection.execute(
            """
            SELECT m.member::regrole::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
            JOIN pg_roles member ON member.oid = m.member
            WHERE r.rolname = %s AND member.rolname NOT LIKE 'revector:%%' AND member.rolname <> current_user
              AND m.member <> (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
            """,
            [group],
        ).fetchall()
    ]
    if members:
        raise RefusedError(
            f"The role {group} is left over from a schema of this name, with members: {', '.join(members)}.",
            f'They would get rights that nobody gave them. Drop it first: DROP ROLE "{group}"',
        )


def _give(connection: Connection, group: str, role: str) -> None:
    """Make a role a member, with all that the group may do at once, whatever the role's own habit is."""
    statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role))
    if connection.info.server_version >= 160_000:
        statement += sql.SQL(" WITH INHERIT TRUE, SET TRUE")
    connection.execute(statement)


def _grantors(connection: Connection, group: str, role: str) -> list[str]:
    """Who gave it: from Postgres 16 on each of them has to be named. [''] before."""
    if connection.info.server_version < 160_000:
        return [""]
    return [
        row[0]
        for row in connection.execute(
            """
            SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.grantor
            WHERE m.roleid = (SELECT oid FROM pg_roles WHERE rolname = %s)
              AND m.member = (SELECT oid FROM pg_roles WHERE rolname = %s)
            """,
            [group, role],
        ).fetchall()
    ]


# -- what they own and may do --------------------------------------------------------------------------------


def _apply(connection: Connection, groups: dict[Kind, str]) -> None:
    tables = [
        row[0]
        for row in connection.execute(
            r"""
            SELECT relname::text FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'v', 'p')
              AND relname !~ '^chunk_embeddings_\d+$'
            """
        ).fetchall()
    ]
    schema = sql.Identifier(fetch_one(connection, "SELECT current_schema()")[0])
    names = {kind: sql.Identifier(name) for kind, name in groups.items()}
    everyone = sql.SQL(", ").join(names.values())
    everything = sql.SQL(", ").join(map(sql.Identifier, tables))
    connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(everything, everyone))
    connection.execute(sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA {} FROM {}").format(schema, everyone))
    connection.execute(
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}, {}").format(schema, names["viewer"], names["application"])
    )
    # Postgres asks for this right of whoever makes an index, also of the owner of the table.
    connection.execute(sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(schema, names["operator"]))
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(everything, names["viewer"]))
    for table in APPLICATION_READS:
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(table), names["application"]))
    writes: tuple[tuple[Kind, dict[str, LiteralString]], ...] = (
        ("operator", OPERATOR_WRITES),
        ("approver", APPROVER_WRITES),
        ("application", APPLICATION_WRITES),
    )
    for kind, rights in writes:
        for table, right in rights.items():
            _grant_table(connection, table, right, names[kind])
    connection.execute(
        sql.SQL("GRANT EXECUTE ON FUNCTION record_refusal(text, text) TO {}").format(names["viewer"])
    )
    connection.execute(
        sql.SQL("GRANT EXECUTE ON FUNCTION rebuild_chunk_embeddings(bigint) TO {}").format(names["operator"])
    )
    for table in _version_tables(connection):
        _share(connection, table, groups)


def _version_tables(connection: Connection) -> list[str]:
    return [
        row[0]
        for row in connection.execute(
            """
            SELECT c.relname::text FROM embedding_versions v JOIN pg_class c ON c.relname = 'chunk_embeddings_' || v.id
            WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind = 'r' ORDER BY v.id
            """
        ).fetchall()
    ]


def _share(connection: Connection, table: str, groups: dict[Kind, str]) -> None:
    owner, mine = fetch_one(
        connection,
        """
        SELECT (SELECT rolname FROM pg_roles WHERE oid = (SELECT nspowner FROM pg_namespace
                                                          WHERE nspname = current_schema()))::text,
               (SELECT relowner = (SELECT oid FROM pg_roles WHERE rolname = %s)
                FROM pg_class WHERE oid = to_regclass(%s))
        """,
        [groups["operator"], table],
    )
    name = sql.Identifier(table)
    if not mine:
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(name, sql.Identifier(groups["operator"])))
    connection.execute(sql.SQL("GRANT ALL ON {} TO {}").format(name, sql.Identifier(owner)))
    connection.execute(
        sql.SQL("GRANT SELECT ON {} TO {}, {}").format(
            name, sql.Identifier(groups["viewer"]), sql.Identifier(groups["application"])
        )
    )


def _grant_table(connection: Connection, table: str, rights: LiteralString, group: sql.Identifier) -> None:
    connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(rights), sql.Identifier(table), group))
    for (sequence,) in connection.execute(
        """
        SELECT s.relname::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.refobjid = to_regclass(%s) AND d.deptype IN ('a', 'i')
        """,
        [table],
    ).fetchall():
        connection.execute(sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(sql.Identifier(sequence), group))


# -- granting ------------------------------------------------------------------------------------------------


def _check(connection: Connection, role: str, kind: str) -> None:
    if kind not in get_args(Kind):
        raise unknown_name("right", kind, get_args(Kind))
    roles = {
        row[0]
        for row in connection.execute("SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_'").fetchall()
    }
    if role not in roles:
        raise unknown_name("role", role, (name for name in roles if not name.startswith("revector:")))
    if role in _groups(connection).values():
        raise UsageError(f"The role {role} stands for a right itself.", "Name the role that is to have it.")


@contextmanager
def _granting(connection: Connection) -> Iterator[None]:
    if not read_rights(connection).administer:
        raise RefusedError(
            "Only the owner of the schema gives and takes rights.", "Connect as that role, or as a superuser."
        )
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            yield
    except pg.LockNotAvailable:
        raise RefusedError(
            "Another session holds a lock on a version's table: nothing was changed.", "Try again in a moment."
        ) from None
    except pg.InsufficientPrivilege as error:
        raise RefusedError(
            f"Postgres refuses this to the current role: {error.diag.message_primary}.",
            "Rights are roles of the server: the owner of the schema needs CREATEROLE (ALTER ROLE … CREATEROLE), or "
            "have a superuser do it.",
        ) from None
