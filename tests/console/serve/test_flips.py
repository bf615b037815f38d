"""Flips while requests run: every answer is wholly of the version that it names."""

from __future__ import annotations

import threading

import httpx

from revector.core.database import Connection, Database
from tests.console.cli.conftest import TEXTS
from tests.console.serve.conftest import TOKEN, StartServer

FLIPS = 100
CLIENTS = 3


def test_every_answer_is_of_the_version_it_names(
    two_versions: Database, connection: Connection, start_server: StartServer
) -> None:
    """No query's distances in one version are those in the other, so that a mixture could not hide."""
    server = start_server()

    def flip(key: str) -> None:
        connection.execute("UPDATE embedding_versions SET active = version_key = %s", [key])

    expected = {}
    for key in ("v2", "v1"):
        flip(key)
        expected[key] = {text: server.search(text, k=3).json()["hits"] for text in TEXTS}
    assert all(expected["v1"][text] != expected["v2"][text] for text in TEXTS)

    over = threading.Event()
    wrong: list[object] = []
    seen: list[str] = []

    def ask(number: int) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            turn = number
            while not over.is_set():
                turn += 1
                text = TEXTS[turn % len(TEXTS)]
                found = client.post("/search", json={"query": text, "k": 3})
                if found.status_code != 200:
                    wrong.append((found.status_code, found.text))
                    continue
                key = found.json()["version_key"]
                seen.append(key)
                if found.json()["hits"] != expected[key][text]:
                    wrong.append((key, text, found.json()["hits"]))

    askers = [threading.Thread(target=ask, args=[number * 4]) for number in range(CLIENTS)]
    for one in askers:
        one.start()
    try:
        for number in range(FLIPS):
            flip(("v2", "v1")[number % 2])
            before = len(seen)
            while len(seen) == before and not wrong:
                over.wait(0.001)
            # A flip that has been committed counts for every search that begins after it.
            key = ("v2", "v1")[number % 2]
            assert server.search(TEXTS[number % len(TEXTS)]).json()["version_key"] == key
    finally:
        over.set()
        for one in askers:
            one.join()
    assert wrong == []
    assert set(seen) == {"v1", "v2"}
    assert server.client.get("/versions").json()["active"] == "v1"
