"""The SQL that makes a schema, in files of `sql/`, one for each concern, and the functions and triggers in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from revector.core.database import Connection, fetch_one

TEXT_CONFIGURATION = "english"
"""The text search configuration of a collection that names no other: of its chunks and of queries alike."""

_FOLDER = Path(__file__).parent / "sql"
_FUNCTION = re.compile(
    r"^CREATE FUNCTION :schema\.(?P<name>\w+)(?P<head>(?:(?!\$\$).)*?)(?:AS \$\$(?P<body>.*?)\$\$)?;", re.M | re.S
)
_SETTING = re.compile(r"\bSET ([\w.]+) = ('[^']*'|.+?)(?=\s+SET |\s*$)", re.S)
_TRIGGER = re.compile(
    r"^CREATE TRIGGER (?P<name>\w+)\s(?P<when>BEFORE|AFTER) (?P<events>.*?) ON :schema\.(?P<table>\w+)\s"
    r"(?P<how>.*?)EXECUTE FUNCTION :schema\.(?P<function>\w+)\([^;]*;",
    re.M | re.S,
)
_PRIVATE = re.compile(r"^REVOKE EXECUTE ON FUNCTION (.*?)\s+FROM PUBLIC;", re.M | re.S)
_TRIGGER_BITS = {"BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}


@dataclass(frozen=True)
class Function:
    """A function of the schema, as it should be: what pg_proc says of it, and the statement that makes it so."""

    name: str
    body: str
    definer: bool
    volatility: str
    settings: frozenset[str]
    statement: str


@dataclass(frozen=True)
class Trigger:
    """A trigger of the schema, as it should be. `kind` is pg_trigger's tgtype."""

    name: str
    table: str
    kind: int
    conditional: bool
    function: str
    statement: str


@dataclass(frozen=True)
class Sources:
    """What the SQL files make, apart from tables. `private` has the signature of functions that PUBLIC may not call."""

    functions: tuple[Function, ...]
    triggers: tuple[Trigger, ...]
    private: dict[str, str]


@dataclass(frozen=True)
class Place:
    """The schema of a collection, the one that pgvector is in, and the text search configuration."""

    schema: str
    pgvector: str
    configuration: str = TEXT_CONFIGURATION

    def fill(self, text: str) -> str:
        """SQL of a file for this place.

        The files qualify every name outside pg_catalog. Placeholders are written as in psql: `:schema` and `:pgvector`
        are the schemas; `:'schema'` and `:'pgvector'` are the same names as strings. `:'configuration'` is
        the text search configuration.
        """
        names: dict[str, sql.Composable] = {
            ":'pgvector'": sql.Literal(self.pgvector),
            ":pgvector": sql.Identifier(self.pgvector),
            ":'schema'": sql.Literal(self.schema),
            ":schema": sql.Identifier(self.schema),
            ":'configuration'": sql.Literal(self.configuration),
        }
        for placeholder, name in names.items():
            text = text.replace(placeholder, name.as_string())
        return text


def place_of(connection: Connection) -> Place:
    """Where the session's collection is. There has to be a pgvector.

    Its text search configuration is that of its chunks, or of `revector.text_search` before there are any.
    """
    return Place(
        *fetch_one(
            connection,
            """
            SELECT current_schema()::text, n.nspname::text,
                   coalesce((
                       SELECT CASE s.nspname WHEN 'pg_catalog' THEN quote_ident(cfgname)
                                             ELSE quote_ident(s.nspname) || '.' || quote_ident(cfgname) END
                       FROM pg_attrdef d JOIN pg_attribute a ON (attrelid, attnum) = (adrelid, adnum)
                       JOIN pg_ts_config c ON c.oid = substring(
                           pg_get_expr(adbin, adrelid) FROM 'to_tsvector[(]''(.+)''::regconfig')::regconfig
                       JOIN pg_namespace s ON s.oid = cfgnamespace
                       WHERE attname = 'content_tsv'
                         AND adrelid = to_regclass(quote_ident(current_schema()) || '.document_chunks')),
                       nullif(current_setting('revector.text_search', true), ''), 'english')
            FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
            """,
        )
    )


def read(concern: str) -> str:
    """A file of `sql/`, with its placeholders."""
    return (_FOLDER / f"{concern}.sql").read_text(encoding="utf-8")


def read_sources(place: Place) -> Sources:
    """The functions and triggers of all files."""
    text = "\n".join(read(path.stem) for path in sorted(_FOLDER.glob("*.sql")))
    private = {
        call.partition("(")[0]: call
        for revoked in _PRIVATE.findall(text)
        for call in re.findall(r":schema\.(\w+\([^)]*\))", revoked)
    }
    return Sources(
        tuple(_function(found, place) for found in _FUNCTION.finditer(text)),
        tuple(_trigger(found, place) for found in _TRIGGER.finditer(text)),
        private,
    )


def _function(found: re.Match[str], place: Place) -> Function:
    head = found["head"]
    volatility = re.search(r"\b(STABLE|IMMUTABLE)\b", head)
    return Function(
        found["name"],
        place.fill(found["body"] or ""),
        "SECURITY DEFINER" in head,
        volatility[1][0].lower() if volatility else "v",
        frozenset(f"{name}={value.strip(chr(39))}" for name, value in _SETTING.findall(head)),
        place.fill(found[0].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)),
    )


def _trigger(found: re.Match[str], place: Place) -> Trigger:
    events = (word for word in (found["when"], *found["events"].split()) if word in _TRIGGER_BITS)
    drop = f"DROP TRIGGER IF EXISTS {found['name']} ON :schema.{found['table']};\n"
    return Trigger(
        found["name"],
        found["table"],
        sum(_TRIGGER_BITS[word] for word in events) + ("FOR EACH ROW" in found["how"]),
        "WHEN (" in found["how"],
        found["function"],
        place.fill(drop + found[0]),
    )
