"""Where the database is, and every limit: read from flags, the environment and `revector.toml`, in that order.

The file is looked for in the working directory, or where REVECTOR_CONFIG points. Environment variables carry
the prefix REVECTOR_. The database is `dsn`, else DATABASE_URL, else libpq's own PG* variables, else the
embedded server (see core.embedded).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_data_path
from pydantic import Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.errors import UsageError, unknown_name

# One schema is one collection. Postgres cuts names at 63 bytes without an error, so a longer one is refused.
SchemaName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]

# The field cannot be called schema (pydantic's own method is), so every source names it as the environment does.
_SCHEMA = "REVECTOR_SCHEMA"

_LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")


class Settings(BaseSettings):
    """Every setting with its default. Seconds and bytes are named in the field."""

    model_config = SettingsConfigDict(env_prefix="REVECTOR_", extra="forbid", populate_by_name=True)

    dsn: SecretStr | None = None
    schema_name: SchemaName = Field("revector", validation_alias=_SCHEMA)
    read_only: bool = False
    home: Path = Field(default_factory=lambda: user_data_path("revector"))

    label: str = ""
    """A name for this database in the console's header, e.g. `prod-eu`."""
    production: bool = False
    """Production databases look different: a red header and the word PRODUCTION."""

    connect_timeout_s: Annotated[int, Field(ge=1, le=600)] = 5
    read_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """The statement timeout of every read the console makes."""
    refresh_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0

    max_document_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    chunk_characters: Annotated[int, Field(ge=64, le=100_000)] = 2_000

    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 256
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0

    maintenance_work_mem: Annotated[str, StringConstraints(pattern=r"^\d+\s?(kB|MB|GB|TB)$")] = "1GB"
    """For index builds only, set on their session. The graph has to fit, or the build slows tenfold."""
    index_workers: Annotated[int, Field(ge=0, le=64)] = 2

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the file."""
        return init_settings, env_settings, _TomlFile(settings_cls)


class _TomlFile(TomlConfigSettingsSource):
    """`revector.toml`, in which the collection is called `schema` as on the command line."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, toml_file=os.environ.get("REVECTOR_CONFIG", "revector.toml"))

    def __call__(self) -> dict[str, Any]:
        values = dict(super().__call__())
        if "schema" in values:
            values[_SCHEMA] = values.pop("schema")
        return values


def load_settings(**flags: Any) -> Settings:
    """The settings in force; a flag that is None does not count as given.

    Raises UsageError for a setting that does not exist or whose value is out of its range.
    """
    config = os.environ.get("REVECTOR_CONFIG")
    if config and not Path(config).is_file():
        raise UsageError(f"REVECTOR_CONFIG names {config}, which is not a file.")
    given = {
        _SCHEMA if name == "schema_name" else name: value for name, value in flags.items() if value is not None
    }
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _readable(error) from None
    except ValueError as error:  # tomllib.TOMLDecodeError says line and column
        raise UsageError(f"{config or 'revector.toml'} cannot be read: {error}") from None


def _readable(error: ValidationError) -> UsageError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    name = "schema" if name == _SCHEMA else name
    if first["type"] == "extra_forbidden":
        return unknown_name("setting", name, {*Settings.model_fields, "schema"} - {"schema_name"})
    # The input is left out of the message: it may be a connection string with a password in it.
    return UsageError(f"The setting {name!r} is not valid: {first['msg']}.")


def configured_dsn(settings: Settings) -> str | None:
    """The connection string in force: '' for libpq's own variables, None for the embedded server."""
    if settings.dsn is not None:
        return _plain_url(settings.dsn.get_secret_value())
    if url := os.environ.get("DATABASE_URL"):
        return _plain_url(url)
    if any(os.environ.get(name) for name in _LIBPQ_VARIABLES):
        return ""
    return None


def _plain_url(dsn: str) -> str:
    """Drop SQLAlchemy's driver name (`postgresql+psycopg://`), which libpq refuses."""
    scheme, separator, rest = dsn.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}" if separator else dsn
