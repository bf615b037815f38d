"""The documents are true: their commands run, what they name is there, and their messages are the product's own."""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

import pytest

from revector.console.context import Context
from revector.console.demo import story
from revector.core import embedded
from revector.core.encoders.remote import RemoteEncoder
from revector.core.settings import Settings
from revector.screens.actions import label_of
from revector.screens.judging.screen import JudgingScreen
from revector.screens.tabs import BY_ID, TABS
from tests.docs.pages import DOCS, PAGES, ROOT, Page, leaf_commands, product_texts, read_call
from tests.docs.reader import Reader

RUN = [page for page in PAGES if any(block.language != "text" for block in page.blocks)]


def name_of(page: Page) -> str:
    """`docs/operate.md`."""
    return str(page.path.relative_to(ROOT))


@pytest.fixture(scope="module")
def demo() -> Iterator[Path]:
    """A home with the demo as `make demo` shows it first; its server is stopped, so that it can be copied."""
    # Not in pytest's folder: under root, every new run of pytest closes it to the server's user.
    with tempfile.TemporaryDirectory(prefix="revector-docs-") as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder) / "home"
        patch.setenv("REVECTOR_HOME", str(home))
        try:
            story.prepare(Context())
        finally:
            embedded.stop(home)
        yield home


@pytest.fixture
def reader(demo: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader with a demo of their own."""
    with tempfile.TemporaryDirectory(prefix="revector-docs-") as folder, socket.socket() as free:
        home = Path(folder) / "home"
        subprocess.run(["cp", "-a", demo, home], check=True)  # with its owner, who need not be this user
        free.bind(("127.0.0.1", 0))
        found = Reader(home, clean_environment, free.getsockname()[1], monkeypatch)
        free.close()
        try:
            yield found
        finally:
            found.close()


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_what_a_page_says_can_be_done(page: Page, reader: Reader) -> None:
    for block in page.blocks:
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_paths_and_links_are_there(page: Page) -> None:
    assert not {call: unknown for call in page.calls if (unknown := read_call(call)[1])}
    folders = ("core/", "screens/", "console/", "tests/", "docs/")
    paths = [code for code in page.codes if code.startswith(folders) and not any(c in code for c in "*…<{ ")]
    assert not [path for path in paths if not (ROOT / path.partition(":")[0]).exists()]
    for link in page.links:
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), link
        assert not anchor or anchor in Page(path).anchors, link


def test_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert {name for page in PAGES for name in re.findall(r"revector\[([\w-]+)\]", page.text)} == set(extras)


def test_every_setting_is_on_the_reference_page() -> None:
    page = Page(DOCS / "reference.md")
    settings = {field.name for field in fields(Settings)} - {
        "dsn",
        "home",
        "batch_size",
    }  # the page has them as variables
    written = tomllib.loads(next(block.text for block in page.blocks if block.file == "revector.toml"))
    assert settings == set(written)
    assert not set(RemoteEncoder.settings) - set(page.codes)


def test_every_command_is_on_a_page() -> None:
    assert not leaf_commands() - {read_call(call)[0] for page in PAGES for call in page.calls}


KEYS = {
    "README.md": {
        ("2", "r"): "run", ("3", "/"): "query", ("4", "r"): "evaluate", ("6", "u"): "cut-over", ("6", "R"): "roll-back",
        ("1", "b"): "to-backfill",
    },
    "docs/cut-over.md": {("6", "u"): "cut-over", ("6", "R"): "roll-back"},
    "docs/evaluate.md": {
        ("3", "/"): "query", ("3", "Enter"): "open-hit", ("3", "n"): "next-disagreement", ("3", "x"): "explain",
        ("4", "J"): "judge",
    },
}  # fmt: skip
"""What each page says that a key does on a tab: the id of the action."""
JUDGING = {("4", "0"): "grade(0)", ("4", "3"): "grade(3)", ("4", "u"): "undo"}
"""What docs/evaluate.md says of the screen that `J` opens."""


def test_the_keys_that_pages_name_do_what_they_say() -> None:
    """Each key that a page names is in the table above, and the action there has that key on that tab."""
    names = {tab.name: tab.key for tab in TABS}
    named = {name_of(page): dict.fromkeys(page.keys) for page in PAGES}
    for keys in named.values():
        for tab, name in [one for one in keys if len(one[1]) > 1 and one[1] != "Enter"]:
            assert names[name] == tab
            del keys[tab, name]
        keys.pop(("1", "↓"), None)  # the cursor of any list
    assert {page: set(keys) for page, keys in named.items() if keys} == {
        page: {*keys, *(JUDGING if page == "docs/evaluate.md" else ())} for page, keys in KEYS.items()
    }
    for keys in KEYS.values():
        for (tab, key), action_id in keys.items():
            action = BY_ID[action_id]
            assert key.replace("Enter", "↵") in map(label_of, action.keys), action_id
            assert action.tab in (tab, None), action_id
    judging = {(key, binding.action) for binding in JudgingScreen.BINDINGS for key in binding.key.split(",")}  # type: ignore[union-attr]
    assert {(key, action) for (_, key), action in JUDGING.items()} <= judging


def test_the_messages_in_troubleshooting_are_the_products_own() -> None:
    """Each heading is a message, `…` standing for what is filled in; one that was reworded is reworded there too."""
    messages = [text.strip("`") for tag, text in Page(DOCS / "troubleshooting.md").headings if tag == "h3"]
    texts = product_texts()
    gone = [message for message in messages if not any(message in text for text in texts)]
    short = [text for text in texts if len(text) < 200]
    assert not {message: get_close_matches(message, short, n=1, cutoff=0.3) for message in gone}
    assert len(messages) > 30


def test_what_a_block_may_need_is_said_in_one_place() -> None:
    said = Page(DOCS / "index.md").codes
    needs = {block.needs for page in PAGES for block in page.blocks if block.needs}
    assert not {need for need in needs if f"# {need}." not in said}
