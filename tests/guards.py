"""The guards as tests ask for them."""

from __future__ import annotations

from revector.core import cutover
from revector.core.cutover.guard import Guard, Subject
from revector.core.cutover.guards import GUARDS
from revector.core.cutover.policy import read_policy
from revector.core.database import Connection
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache
from tests.protocol_server import ProtocolServer


def guards(connection: Connection, key: str = "v2", **options: object) -> dict[str, Guard]:
    return {guard.name: guard for guard in cutover.check(connection, key, **options).guards}  # type: ignore[arg-type]


def verdict(
    connection: Connection, name: str, expected: str, text: str, key: str = "v2", **options: object
) -> None:
    """The guard of that name says so, with these words; whatever does not pass says what to do."""
    guard = guards(connection, key, **options)[name]
    assert (guard.verdict, text in guard.detail) == (expected, True), guard
    assert guard.verdict == "pass" or guard.remedy


def only(connection: Connection, name: str, key: str, encoders: EncoderCache) -> Guard:
    """That guard alone: none before it has read anything."""
    (rule,) = (rule for rule in GUARDS if rule.name == name)
    return rule.run(Subject(connection, get_version(connection, key), read_policy(connection), encoders))


def served(provider: ProtocolServer) -> str:
    """The spec of its model m; the key is in TEST_KEY."""
    return f"openai:m?base_url={provider.base_url}&key_env=TEST_KEY&max_retries=0&timeout_s=20"
