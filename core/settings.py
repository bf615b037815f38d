"""Settings, read from flags, the environment and `revector.toml`, in that order.

The file is in the working directory, or where REVECTOR_CONFIG points. Environment variables carry the prefix
REVECTOR_. The database is `dsn`, else DATABASE_URL, else libpq's PG* variables, else the embedded server (see
revector.core.embedded).

Checked by msgspec, since every start of the console reads them: pydantic-settings takes 70 ms longer to import,
a sixth of the time to the first frame.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from platformdirs import user_data_path, user_log_path

from revector.core.errors import UsageError, unknown_name

# One schema is one collection. Postgres cuts names at 63 bytes without an error, so a longer one is refused.
SchemaName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!pg_|information_schema\Z)[A-Za-z_][A-Za-z0-9_]{0,62}\Z",
        description="a name of at most 63 letters, digits and underscores that begins neither with a digit nor "
        "with pg_ and is not information_schema",
    ),
]
LogLevel = Literal["debug", "info", "warning", "error"]
MemorySize = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]+ ?(kB|MB|GB|TB)\Z", description="a size such as 512 MB or 2 GB")
]

_PREFIX = "REVECTOR_"
_LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")


@dataclass(frozen=True)
class Settings:
    """All settings with their defaults. Units are part of the names."""

    dsn: str | None = field(default=None, repr=False)  # may hold a password
    schema: SchemaName = "revector"
    read_only: bool = False
    home: Path = field(default_factory=lambda: user_data_path("revector"))
    log_level: LogLevel = "info"

    label: str = ""
    """A name for this database in the console's header, e.g. `prod-eu`."""
    production: bool = False
    """Production databases look different: a red header and the word PRODUCTION."""

    connect_timeout_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 5
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    """The statement timeout of every read the console makes."""
    refresh_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 1.0

    max_document_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 1024 * 1024
    chunk_characters: Annotated[int, msgspec.Meta(ge=64, le=100_000)] = 2_000

    batch_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """Texts encoded at a time; None adapts to the encoder's speed."""
    backfill: dict[str, Any] = field(default_factory=dict)
    """The settings that a new backfill begins with: see core.backfill.job.settings."""

    maintenance_work_mem: MemorySize = "1GB"
    """Set on the session of an index build. The graph must fit, or the build takes ten times as long."""
    index_workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2

    @property
    def logs(self) -> Path:
        """Where logs and crash reports are: the platform's folder for them, or a folder of `home` where that is set."""
        return user_log_path("revector") if self.home == user_data_path("revector") else self.home / "logs"


def load_settings(**flags: Any) -> Settings:
    """The settings in force; a flag that is None counts as not given.

    Raises UsageError for a setting that does not exist or whose value is out of its range.
    """
    names = {one.name for one in fields(Settings)}
    values: dict[str, Any] = {}
    for found in sources(**flags).values():
        values |= found
    for name in values:
        if name not in names:
            raise unknown_name("setting", name, names)
    kinds = get_type_hints(Settings, include_extras=True)
    return Settings(**{name: _checked(name, value, kinds[name]) for name, value in values.items()})


def sources(**flags: Any) -> dict[str, dict[str, Any]]:
    """The settings of each source, by its name; later sources win."""
    path = Path(os.environ.get(f"{_PREFIX}CONFIG") or "revector.toml")
    found = {one.name: os.environ.get(f"{_PREFIX}{one.name.upper()}") for one in fields(Settings)}
    return {
        str(path): _of_file(path),
        "environment": {name: value for name, value in found.items() if value},
        "command line": {name: value for name, value in flags.items() if value is not None},
    }


def checked_values(
    kind: type, what: str, words: Mapping[str, str], values: Mapping[str, object]
) -> dict[str, Any]:
    """Values, given as such or as text, converted to the types of a settings class; `words` describes each.

    Raises UsageError naming one that is unknown or out of range.
    """
    kinds = get_type_hints(kind, include_extras=True)
    found = {}
    for name, value in values.items():
        if name not in words:
            raise unknown_name(what, name, words)
        try:
            found[name] = msgspec.convert(value, kinds[name], strict=False)
        except msgspec.ValidationError:
            given = "none" if value is None else value
            problem = f"The setting {name} cannot be {given!r}; expected {_expected(kinds[name])}."
            raise UsageError(problem, words[name]) from None
    return found


def changed_fields(settings: Any) -> dict[str, Any]:
    """The settings that differ from the defaults; only these are stored."""
    defaults = asdict(type(settings)())
    return {name: value for name, value in asdict(settings).items() if value != defaults[name]}


def value_in_words(value: object) -> str:
    """A setting's value as text that can be given back."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
    return str(value)


def _of_file(path: Path) -> dict[str, Any]:
    try:
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # a TOMLDecodeError says line and column
        raise UsageError(f"{path} cannot be read: {error}") from None
    if os.environ.get(f"{_PREFIX}CONFIG"):
        raise UsageError(f"{_PREFIX}CONFIG names {path}, which is not a file.")
    return {}


def _checked(name: str, value: object, kind: Any) -> Any:
    """Check one by one, so that the error names the setting; the value may be a password and is not shown."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and isinstance(value, str):
        value = value.lower()
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError:
        raise UsageError(f"The setting {name!r} is not valid; expected {_expected(kind)}.") from None


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _expected(kind: Any) -> str:
    """What a setting takes, in words: `a whole number from 1 to 256`."""
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arms))}"
    if get_origin(kind) in (Union, UnionType):
        return f"{_expected(arms[0])}, or none"
    if get_origin(kind) is not Annotated:
        return _WORDS.get(kind, "another kind of value")
    base, limits = get_args(kind)
    if limits.description:
        return str(limits.description)
    text = _WORDS.get(base, "a value")
    if limits.gt is not None:
        text += f" above {limits.gt:g}"
    if limits.ge is not None:
        text += f" from {limits.ge:,g}" if limits.le is not None else f" of at least {limits.ge:,g}"
    if limits.le is not None:
        text += f" to {limits.le:,g}" if limits.ge is not None else f", at most {limits.le:,g}"
    return text


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, (str, Path)):
        try:
            return Path(value).expanduser()
        except RuntimeError:
            raise UsageError(f"The home folder in {str(value)!r} is unknown.", "Name an existing user.") from None
    raise TypeError(f"expected {kind}")


def configured_dsn(settings: Settings) -> str | None:
    """The connection string in force: '' for libpq's own variables, None for the embedded server."""
    if settings.dsn is not None:
        return settings.dsn
    if url := os.environ.get("DATABASE_URL"):
        return url
    if any(os.environ.get(name) for name in _LIBPQ_VARIABLES):
        return ""
    return None
