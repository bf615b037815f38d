"""The hosts that encoders may send texts to, by commands."""

from __future__ import annotations

from tests.console.cli.program import Revector


def test_the_list_by_commands(revector: Revector) -> None:
    assert (
        revector.call("encoders", "allow", "E.example:8443", "--key", "E_KEY", "--json").document["allowed"]
        is True
    )
    assert revector.call("encoders", "allow", "E.example:8443", "--key", "E_KEY").out.startswith(
        "Encoders may send"
    )
    found = revector.call("encoders", "list", "--json").document["hosts"]
    assert ("e.example:8443", "E_KEY") in [(one["host"], one["key_env"]) for one in found]
    assert "e.example:8443" in revector.call("encoders", "list").out
    assert (
        revector.call("encoders", "deny", "e.example:8443", "--key", "E_KEY", "--json").document["allowed"]
        is False
    )
    assert "is no host" in revector.call("encoders", "allow", "http://e.example", status=2).err
    added = revector.call("versions", "add", "v1", "--encoder", "openai:m?base_url=http://e.example/v1", status=1)
    assert "The owner of the schema can allow it: revector encoders allow e.example" in added.err
