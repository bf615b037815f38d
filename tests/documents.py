"""Writes the documents that are made from the code: `python -m tests.documents`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from revector.core.cutover.guards import GUARDS
from revector.core.cutover.policy import HELP, Policy, shown
from revector.core.database import Connection
from revector.core.roles.groups import groups_of

GUARDS_PAGE = Path(__file__).parent.parent / "docs" / "guards.md"


def guards_table() -> str:
    """Every guard: what it looks at, the policy's settings that it goes by with their defaults, and its rights."""
    rows = [
        (
            f"`{rule.name}`",
            rule.about,
            ", ".join(_setting(name) for name in rule.settings) or "–",
            ", ".join(f"`{name}`" for name in rule.after) or "–",
            "yes" if rule.in_flip else "no",
            "yes" if rule.waivable else "no",
        )
        for rule in GUARDS
    ]
    return _table(
        ("Guard", "Looks at", "Settings", "Not run while these fail", "Again in the flip", "Can be waived"), rows
    )


def policy_table() -> str:
    """Every setting of the policy, its default and what it means."""
    rows = [(f"`{name}`", f"`{shown(Policy(), name)}`", text) for name, text in HELP.items()]
    return _table(("Setting", "Default", "Meaning"), rows)


def guards_page() -> str:
    """The page docs/guards.md."""
    return f"""# Guards of a cutover

Made from the code (`core/cutover/checks`, `core/cutover/policy.py`) by `python -m tests.documents`.

`revector cutover check KEY` runs them all, in this order, and says of each the verdict (pass, fail or inconclusive),
the figure behind it and what to do. A cutover needs every one to pass or to be waived. Waiving takes the guard's name
and a reason (`--waive "NAME=REASON"`), and stays in the log for good. Those that are quick and liable to change run
again inside the flip's own transaction; the others never hold it. What a guard may not look at, or not in its time, is
inconclusive. Those that take longest ({", ".join(f"`{rule.name}`" for rule in GUARDS if rule.slow)}) come last.

{guards_table()}

`complete` and `encoder` look at a sample of a large version, drawn by pages whatever its ids, and say what damage they
would have seen and with which probability: n rows show damage to a share p of all rows with probability 1 − (1 − p)ⁿ.
When the vectors are not those that the encoder makes, `encoder` says what that looks like: another model, shuffled ids
(with the rows, and the file if all were loaded from one), or other lengths, which matter for `l2` and `ip`. Short of
time or money it is inconclusive. `recall` passes when its 95 % interval is above what is required, fails when it is
below, and is inconclusive when it would take more searches than allowed. Its remedy is the smallest `ef_search` that
would do.

## The policy

One for the whole collection. `revector cutover policy` shows it, `revector cutover policy NAME=VALUE … --reason TEXT`
changes it; every change is in the log. `default` goes back to the default, `none` lifts a limit that may be absent.

{policy_table()}
"""


def rights_table(connection: Connection, kinds: Sequence[str]) -> str:
    """Every object of the schema that somebody but the owner has a right on, from the catalogue."""
    groups = groups_of(connection)
    rows = connection.execute(
        """
        SELECT 'table', c.relname::text, g.kind, p,
               has_table_privilege(g.role, c.oid, p) AS whole, has_any_column_privilege(g.role, c.oid, p) AS some
        FROM pg_class c, unnest(%(kinds)s::text[], %(roles)s::text[]) AS g(kind, role),
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'v')
        UNION ALL
        SELECT 'table', c.relname::text, g.kind, p, has_table_privilege(g.role, c.oid, p), false
        FROM pg_class c, unnest(%(kinds)s::text[], %(roles)s::text[]) AS g(kind, role),
             unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS p
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'v')
        UNION ALL
        SELECT 'function', f.proname::text, g.kind, 'EXECUTE', has_function_privilege(g.role, f.oid, 'EXECUTE'), false
        FROM pg_proc f, unnest(%(kinds)s::text[], %(roles)s::text[]) AS g(kind, role)
        WHERE f.pronamespace = to_regnamespace(quote_ident(current_schema())) AND f.prosecdef
          AND f.prorettype <> 'trigger'::regtype
        """,
        {"kinds": list(kinds), "roles": [groups[kind] for kind in kinds]},  # type: ignore[index]
    ).fetchall()
    has: dict[tuple[str, str], dict[str, list[str]]] = {}
    for sort, name, kind, right, whole, some in rows:
        name = re.sub(r"^chunk_embeddings_\d+$", "chunk_embeddings_N", name)
        cell = has.setdefault((sort, name), {}).setdefault(kind, [])
        word = {"SELECT": "read", "EXECUTE": "call"}.get(right, right.lower())
        word = word if whole else f"{word} some columns"
        if (whole or some) and word not in cell:
            cell.append(word)
    return _table(
        ("Object", *kinds),
        [
            (f"`{name}`" + ("()" if sort == "function" else ""), *(", ".join(by[kind]) or "–" for kind in kinds))
            for (sort, name), by in sorted(has.items(), key=lambda one: (one[0][0] != "table", one[0]))
            if any(by.values())
        ],
    )


def _setting(name: str) -> str:
    return f"`{name}={shown(Policy(), name)}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    GUARDS_PAGE.write_text(guards_page(), encoding="utf-8")
