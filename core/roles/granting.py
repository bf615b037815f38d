"""Grants and revokes rights, and lists them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from psycopg import errors as pg
from psycopg import sql

from revector.core import audit
from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import RefusedError, UsageError, unknown_name
from revector.core.locks import name_holders
from revector.core.roles.groups import give, grantors, groups_of, make_groups, set_up_groups
from revector.core.roles.kinds import KINDS, Kind
from revector.core.roles.privileges import apply
from revector.core.roles.rights import require


@dataclass(frozen=True)
class Granted:
    """A role and a right that it has; `login` is false for a group role."""

    role: Annotated[str, "the role of Postgres"]
    right: Annotated[Kind | Literal["owner"], "owner, viewer, operator, approver or application"]
    login: Annotated[bool, "whether it may log in"]


def granted(connection: Connection) -> list[Granted]:
    """The granted rights, and the owner of the schema. Members of a role with a right have it too."""
    groups = groups_of(connection)
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
        *sorted(members, key=lambda one: (one.role, order.index(one.right))),  # type: ignore[arg-type]
    ]


def grant(connection: Connection, role: str, kind: Kind) -> None:
    """Grant a role a right in this collection. The first grant creates the collection's own roles and their
    rights.

    Raises UsageError for an unknown role or kind, RefusedError when the caller may not grant.
    """
    _check(connection, role, kind)
    if found := foreign_creators(connection):
        raise RefusedError(
            "Every session of revector finds functions and operators in schema "
            f"{', '.join(f'{schema}, where {role} may create some' for schema, role in found)}: a role with any right "
            "here could have its code run by others.",
            f"Close it: REVOKE CREATE ON SCHEMA {found[0][0]} FROM {found[0][1]}",
        )
    with _granting(connection, "db grant"):
        make_groups(connection)
        groups = groups_of(connection)
        apply(connection, groups)
        give(connection, groups[kind], role)
        audit.record(connection, "db grant", None, detail={"role": role, "right": kind})


def foreign_creators(connection: Connection) -> list[tuple[str, str]]:
    """Schemas of the search path in which another role than their owners may create, each with that role, quoted."""
    return connection.execute(
        """
        SELECT quote_ident(n.nspname), coalesce(quote_ident(r.rolname), 'PUBLIC')
        FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) AS a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE n.nspname = ANY(current_schemas(false)) AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
          AND a.grantee <> (SELECT nspowner FROM pg_namespace WHERE nspname = current_schema())
          AND r.rolsuper IS NOT TRUE
        ORDER BY 1, 2
        """
    ).fetchall()


def revoke(connection: Connection, role: str, kind: Kind) -> None:
    """Revoke a right from a role; its open sessions lose it with their next statement.

    Raises UsageError for an unknown role or kind, RefusedError when the role does not have it, or the caller may
    not revoke it.
    """
    _check(connection, role, kind)
    with _granting(connection, "db revoke"):
        group = groups_of(connection).get(kind, "")
        if not any(one.role == role and one.right == kind for one in granted(connection)):
            raise RefusedError(
                f"The role {role} was not given {kind}.", "See who was given what: revector db roles"
            )
        for grantor in grantors(connection, group, role):
            statement = sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), sql.Identifier(role))
            if grantor:
                statement += sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor))
            connection.execute(statement)
        audit.record(connection, "db revoke", None, detail={"role": role, "right": kind})


def renew_grants(connection: Connection) -> None:
    """Renew the rights of the collection's own roles after an upgrade of the schema."""
    groups = set_up_groups(connection)
    if groups:
        apply(connection, groups)


def _check(connection: Connection, role: str, kind: str) -> None:
    if kind not in get_args(Kind):
        raise unknown_name("right", kind, get_args(Kind))
    roles = fetch_column(connection, "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_'")
    if role not in roles:
        raise unknown_name("role", role, (name for name in roles if not name.startswith("revector:")))
    if role in groups_of(connection).values():
        raise UsageError(f"The role {role} stands for a right itself.", "Name the role that is to have it.")


@contextmanager
def _granting(connection: Connection, action: str) -> Iterator[None]:
    require(connection, "administer", action)
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '5s'")
            # Two at once would change the same rows of the catalogue.
            connection.execute("SELECT FROM locks WHERE name = 'rights' FOR UPDATE")
            yield
    except pg.LockNotAvailable:
        tables = fetch_column(
            connection,
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema()",
        )
        held, remedy = name_holders(
            connection, {**dict.fromkeys(tables, "AccessExclusiveLock"), "locks": "RowShareLock"}
        )
        raise RefusedError(f"There was no lock for it within 5 s, {held}: nothing was changed.", remedy) from None
    except pg.InsufficientPrivilege as error:
        raise RefusedError(
            f"The current role may not do this: {error.diag.message_primary}.",
            "Rights are roles of the server: the owner of the schema needs CREATEROLE (ALTER ROLE … CREATEROLE), or "
            "have a superuser do it.",
        ) from None
