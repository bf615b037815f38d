"""Where encoders may send texts: the owner's list, held against what a version's row says."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest

from revector.core import audit, hosts
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import RefusedError, UsageError
from revector.core.hosts import missing_entry
from revector.core.registry import add_version, change_encoder, get_version
from revector.core.retrieval import EncoderCache, open_version_encoder
from tests.core.cutover.test_requests import flip_by_hand
from tests.protocol_server import ProtocolServer
from tests.roles import login_roles
from tests.versions import NUMBERS, add_chunks, ready_version


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ("static:wordllama-64", None),
        ("openai:m", None),
        ("openai:m?base_url=http://127.0.0.1:8080/v1", None),
        ("openai:m?base_url=http://[::1]:8080/v1", None),
        ("openai:m?base_url=http://localhost/v1", None),
        ("openai:m?base_url=http://127.0.0.1:8080/v1&key_env=OTHER", ("127.0.0.1:8080", "OTHER")),
        ("openai:m?key_env=OTHER", ("openai", "OTHER")),
        ("openai:m?base_url=https://evil.example/v1", ("evil.example", "")),
        ("openai:m?base_url=https://127.0.0.1.evil.example/v1", ("127.0.0.1.evil.example", "")),
        ("openai:m?base_url=https://good.example/v1", None),
        ("openai:m?base_url=https://GOOD.example:8443/v1", None),
        ("openai:m?base_url=https://good.example/v1&key_env=OTHER", ("good.example", "OTHER")),
        ("openai:m?base_url=https://good.example/v1&key_env=GOOD_KEY", ("good.example", "GOOD_KEY")),
        ("openai:m?base_url=https://good.example:444/v1&key_env=GOOD_KEY", None),
        ("openai:m?base_url=http%3A%2F%2Fevil.example%2Fv1", ("evil.example", "")),
    ],
)
def test_what_a_spec_needs_on_the_list(spec: str, missing: tuple[str, str] | None) -> None:
    assert missing_entry(spec, ["good.example ", "good.example:444 GOOD_KEY"]) == missing


@pytest.mark.parametrize("url", ["http://a:99999", "http://a:b", "http://[::1", "http://a／b", "http://a＃b"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(UsageError, match=r"openai:m has the address .*, which is none") as error:
        missing_entry(f"openai:m?dimensions=3&base_url={quote(url, safe='')}", [])
    assert repr(url) in error.value.problem
    with pytest.raises(UsageError, match="base_url"):
        open_encoder(f"openai:m?dimensions=3&base_url={quote(url, safe='')}")


@pytest.mark.parametrize("host", ["", "http://h", "h/v1", "a b", "me@h", "h:0", "h:x"])
def test_what_is_no_host_is_refused(connection: Connection, host: str) -> None:
    with pytest.raises(UsageError, match="is no host"):
        hosts.allow(connection, host)


def test_a_row_sends_nothing_where_the_owner_has_not_allowed_it(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVECTOR_SERVE_TOKEN", "sesame")
    with ProtocolServer(models={"m": 8}) as evil, login_roles(database, "ada") as names:
        spec = f"openai:m?base_url={evil.base_url}&key_env=REVECTOR_SERVE_TOKEN"
        with pytest.raises(RefusedError, match="revector encoders allow") as refused:
            add_version(connection, "v1", open_encoder(spec), spec)
        assert refused.value.remedy.endswith("--key REVECTOR_SERVE_TOKEN")
        # By SQL the row can be written; no process follows it.
        connection.execute(
            "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric, "
            "encoder_spec) VALUES ('v1', 'm', 'm', 8, 'cosine', %s)",
            [spec],
        )
        version = get_version(connection, "v1")
        for opens in (lambda: EncoderCache().encoder(version), lambda: open_version_encoder(version)):
            with pytest.raises(RefusedError, match="not on the owner's list"):
                opens()
        assert evil.requests == []
        port = evil.base_url.split(":")[2].partition("/")[0]
        hosts.allow(connection, f"127.0.0.1:{port}", "REVECTOR_SERVE_TOKEN", reason="it is ours")
        cache = EncoderCache()
        assert cache.encoder(get_version(connection, "v1")).encode_query("x").shape == (8,)
        hosts.deny(connection, f"127.0.0.1:{port}", "REVECTOR_SERVE_TOKEN")
        with pytest.raises(RefusedError, match="not on the owner's list"):
            cache.encoder(get_version(connection, "v1"))  # open already
        found = [(one.action, one.reason, one.detail["host"]) for one in audit.entries(connection, limit=2)]
        assert found == [
            ("encoders deny", "", f"127.0.0.1:{port}"),
            ("encoders allow", "it is ours", f"127.0.0.1:{port}"),
        ]
        with pytest.raises(UsageError, match="is not on the list") as unknown:
            hosts.deny(connection, "127.0.0.1:9")
        assert "127.0.0.1 with the key in TEST_KEY" in unknown.value.remedy
        assert names


def test_only_the_way_to_an_encoder_changes_and_voids_an_approval(
    database: Database, connection: Connection
) -> None:
    with ProtocolServer(models={"m": 8}) as one, ProtocolServer(models={"m": 8}) as other:
        add_chunks(connection, NUMBERS)
        ready_version(database, connection, "v1", f"openai:m?base_url={one.base_url}&query_prefix=q")
        for spec in (
            f"openai:m?base_url={other.base_url}&query_prefix=other",
            f"openai:m?base_url={other.base_url}",
            f"openai:n?base_url={other.base_url}&query_prefix=q",
            f"openai:m?base_url={other.base_url}&query_prefix=q&normalise=false",
            "static:wordllama-64",
        ):
            with pytest.raises(RefusedError, match="its encoder cannot change"):
                change_encoder(connection, "v1", spec)
        with pytest.raises(psycopg.errors.RaiseException, match="its encoder cannot change"):
            connection.execute("UPDATE embedding_versions SET encoder_spec = ''")
        moved = f"openai:m?base_url={other.base_url}&query_prefix=q&parallel=2"
        assert change_encoder(connection, "v1", moved, reason="it moved").encoder_spec == moved
        (entry,) = audit.entries(connection, limit=1)
        assert (entry.action, entry.reason, entry.detail["to"]) == ("versions change", "it moved", moved)
        with pytest.raises(RefusedError, match="not on the owner's list"):
            change_encoder(connection, "v1", "openai:m?base_url=http://e.example/v1&query_prefix=q")
        flip_by_hand(connection, "v1")


def test_a_key_goes_nowhere_but_where_the_spec_and_the_owner_send_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is allowed without a key gets none, whatever the environment holds."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-service")
    hosts.allow(connection, "192.0.2.2:80")
    spec = "openai:x?base_url=http://192.0.2.2:80/v1&dimensions=8"
    allowed = hosts.read_allowed(connection)
    assert hosts.missing_entry(spec, allowed) is None
    assert open_encoder(spec)._key == ""  # type: ignore[attr-defined]
    named = f"{spec}&key_env=OPENAI_API_KEY"
    assert hosts.missing_entry(named, allowed) == ("192.0.2.2:80", "OPENAI_API_KEY")
    for address in ("http://127.0.0.1:80/v1", "http://localhost/v1", "http://[::1]:80/v1"):
        own = open_encoder(f"openai:x?base_url={address}&dimensions=8")
        assert own._key == "sk-of-the-service"  # type: ignore[attr-defined]
