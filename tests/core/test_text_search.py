"""The text search configuration of a collection: chosen when it is set up, or changed later."""

from __future__ import annotations

import pytest

from revector.core import migrations
from revector.core.audit import entries
from revector.core.database import Connection, Database, fetch_column, fetch_one
from revector.core.errors import UsageError
from revector.core.migrations.drift import differences
from revector.core.retrieval.query_text import is_unspaced
from tests.versions import add_chunks

GERMAN = "Alte Häuser stehen an den Straßen."


def by_words(connection: Connection, text: str) -> list[str]:
    """The chunks that a search by words finds."""
    return fetch_column(
        connection,
        "SELECT content FROM chunks_by_words(%s, 10, NULL, NULL) w JOIN document_chunks c ON c.id = w.chunk_id",
        [text],
    )


def test_a_collection_is_set_up_in_german(bare: Database) -> None:
    migrations.upgrade(bare, text_search="german")
    with bare.session("test") as connection:
        add_chunks(connection, [GERMAN, "The houses stand."])
        assert by_words(connection, "Haus") == [GERMAN]
        assert by_words(connection, "den") == []  # a stop word there
        assert by_words(connection, "the houses") == ["The houses stand."]
        assert differences(connection) == []
    migrations.upgrade(bare)
    assert migrations.repair(bare) == []
    with bare.session("test") as connection:
        assert by_words(connection, "Haus") == [GERMAN]


def test_a_configuration_is_changed_later(database: Database, connection: Connection) -> None:
    add_chunks(connection, [GERMAN, *(f"Zeile {number}" for number in range(1_500))])
    assert by_words(connection, "Haus") == []
    before = fetch_one(connection, "SELECT max(id) FROM word_statistics")[0]
    migrations.upgrade(database, text_search="german")
    assert by_words(connection, "Haus") == [GERMAN]
    assert differences(connection) == []
    counted = "SELECT chunks FROM word_counts WHERE word = 'zeil' AND statistics_id > %s"
    assert fetch_one(connection, counted, [before or 0])[0] >= 1_400
    assert entries(connection, limit=1)[0].detail == {"text_search": "german", "before": "english"}
    migrations.upgrade(database, text_search="german")
    assert len(entries(connection, limit=5)) == 1


def test_a_configuration_of_others_and_an_unknown_one(bare: Database) -> None:
    with bare.connect("test") as connection:
        connection.execute('CREATE TEXT SEARCH CONFIGURATION "Own words" (COPY = simple)')
    with pytest.raises(UsageError, match="no text search configuration 'klingon'") as refusal:
        migrations.upgrade(bare, text_search="klingon")
    assert "german" in refusal.value.remedy
    migrations.upgrade(bare, text_search="Own words")
    with bare.session("test") as connection:
        add_chunks(connection, ["The houses stand."])
        assert by_words(connection, "houses") == ["The houses stand."]
        assert by_words(connection, "the") == ["The houses stand."]
        assert by_words(connection, "house") == []
        assert differences(connection) == []


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        ("如何轮换密钥", True),
        ("วิธีหมุนเวียนคีย์", True),
        ("カタカナ", True),
        ("Häuser, дома", False),
        ("한국어 문장", False),
    ],
)
def test_scripts_without_spaces(text: str, unspaced: bool) -> None:
    assert is_unspaced(text) is unspaced
