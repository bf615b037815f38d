"""A picture of the console: the real app, run where a notebook's event loop is already running."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from IPython.core.formatters import DisplayFormatter

from revector.console.notebook import Console
from revector.core.database import Database
from revector.core.errors import RefusedError, UnreachableError, UsageError
from tests.versions import add_chunks, ready_version


def texts(svg: str) -> str:
    """What the picture says; it is well-formed and loads nothing."""
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")
    root = ET.fromstring(svg)  # noqa: S314  (ours)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    return " ".join(" ".join(lines).replace("\xa0", " ").split())


@pytest.mark.parametrize(
    ("tab", "says"),
    [
        ("Versions", "static:wordllama-256"),
        ("backfill", "s settings"),
        ("compare", "candidate demo-256"),
        ("CUTOVER", "13 of 13 pass"),
        ("log", "versions add"),
    ],
)
async def test_every_tab(console: Console, tab: str, says: str) -> None:
    picture = console.snapshot(tab)
    found = texts(picture.svg)
    assert says in found
    assert "active demo-64" in found
    assert picture.tab == tab.capitalize().title()
    assert repr(picture) == f"revector: {picture.tab}, 120×40"
    html = DisplayFormatter().format(picture)[0]["text/html"]
    assert html.startswith(f'<img alt="revector: {picture.tab}, 120×40" ')
    assert 'src="data:image/svg+xml;base64,' in html


async def test_a_query_and_a_candidate(own_console: Console, own_library: Database) -> None:
    with own_library.session("test") as connection:
        ready_version(own_library, connection, "another")
    picture = own_console.snapshot("compare", (100, 30), query="rotate a key", candidate="demo-256")
    found = texts(picture.svg)
    assert "rotate a key" in found
    assert "overlap@10" in found
    assert "candidate demo-256" in found
    assert "candidate another" in texts(own_console.snapshot("compare").svg)


async def test_what_cannot_be_drawn(console: Console, database: Database) -> None:
    with pytest.raises(UsageError, match="Did you mean compare"):
        console.snapshot("compar")
    with pytest.raises(UsageError, match="20×5"):
        console.snapshot(size=(20, 5))
    with pytest.raises(UsageError, match="shows no query"):
        console.snapshot("log", query="x")
    with pytest.raises(UsageError, match="Did you mean demo-256"):
        console.snapshot(candidate="demo-265")
    with database.session("test") as connection:
        add_chunks(connection, ["one"])
        ready_version(database, connection, "only")
    with pytest.raises(RefusedError, match="A comparison needs two versions with vectors"):
        Console(database.dsn, database.schema).snapshot(query="x")
    with pytest.raises(UnreachableError):
        Console("postgresql://localhost:1/nowhere").snapshot()
