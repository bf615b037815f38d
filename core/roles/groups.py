"""The collection's own roles: one NOLOGIN role for each kind, whose members have the right."""

from __future__ import annotations

import hashlib

from psycopg import sql

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import RefusedError
from revector.core.roles.kinds import KINDS, Kind

_LONGEST_NAME = 63


def groups_of(connection: Connection) -> dict[Kind, str]:
    """The existing roles of the collection, by kind.

    Roles belong to the whole server, so their names contain the database and the schema. No schema name has a
    slash or a colon, so the names are unique.
    """
    database, schema = fetch_one(connection, "SELECT current_database()::text, current_schema()::text")
    names = {kind: group_name(database, schema, kind) for kind in KINDS}
    query = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)"
    there = fetch_column(connection, query, [list(names.values())])
    return {kind: name for kind, name in names.items() if name in there}


def set_up_groups(connection: Connection) -> dict[Kind, str]:
    """The same if they have their rights on this schema, else none."""
    groups = groups_of(connection)
    return groups if len(groups) == len(KINDS) and _is_set_up(connection, groups["viewer"]) else {}


def group_name(database: str, schema: str, kind: Kind) -> str:
    """`revector:prod/search:operator`, with a hash if database and schema are too long."""
    place = f"{database}/{schema}"
    name = f"revector:{place}:{kind}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"revector:{hashlib.sha256(place.encode()).hexdigest()[:32]}:{kind}"
    return name


def make_groups(connection: Connection) -> None:
    """Create the missing ones. Raises RefusedError when one with members is left over from a dropped schema."""
    database, schema, owner, superuser = fetch_one(
        connection,
        """
        SELECT current_database()::text, current_schema()::text, rolname::text, rolsuper FROM pg_roles
        WHERE oid = (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
        """,
    )
    there = groups_of(connection)
    set_up = "viewer" in there and _is_set_up(connection, there["viewer"])
    for kind in KINDS:
        name = group_name(database, schema, kind)
        if kind in there:
            if not set_up:
                _refuse_members(connection, name)
            continue
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
        text = f"revector, database {database}, schema {schema}: {KINDS[kind]}"
        connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))
    groups = groups_of(connection)
    for kind in ("operator", "approver"):
        give(connection, groups["viewer"], groups[kind])
    if not superuser:
        give(connection, groups["operator"], owner)


def _is_set_up(connection: Connection, viewer: str) -> bool:
    """Whether the roles have their rights on this schema; they may be left over from an older one of that name."""
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
    members = fetch_column(
        connection,
        """
        SELECT m.member::regrole::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
        JOIN pg_roles member ON member.oid = m.member
        WHERE r.rolname = %s AND member.rolname NOT LIKE 'revector:%%' AND member.rolname <> current_user
          AND m.member <> (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
        """,
        [group],
    )
    if members:
        raise RefusedError(
            f"The role {group} is left over from a schema of this name, with members: {', '.join(members)}.",
            f'They would get rights that nobody gave them. Drop it first: DROP ROLE "{group}"',
        )


def give(connection: Connection, group: str, role: str) -> None:
    """Make a role a member that inherits the group's rights, even if the role is NOINHERIT."""
    statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role))
    if connection.info.server_version >= 160_000:
        statement += sql.SQL(" WITH INHERIT TRUE, SET TRUE")
    connection.execute(statement)


def grantors(connection: Connection, group: str, role: str) -> list[str]:
    """The grantors of a membership: from Postgres 16 on each must be named. [''] before."""
    if connection.info.server_version < 160_000:
        return [""]
    return fetch_column(
        connection,
        """
        SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.grantor
        WHERE m.roleid = (SELECT oid FROM pg_roles WHERE rolname = %s)
          AND m.member = (SELECT oid FROM pg_roles WHERE rolname = %s)
        """,
        [group, role],
    )
