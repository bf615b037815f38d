"""The commands in what the database raises: each is there, and takes the words that it is given."""

from __future__ import annotations

import re
from typing import Any

from tests.docs.pages import ROOT, program, read_call

_SQL = ROOT / "core" / "migrations" / "sql"


def calls() -> list[str]:
    """`revector …` of hints and messages, with its placeholders: KEY, NAME=VALUE, %s."""
    found = []
    for path in sorted(_SQL.glob("*.sql")):
        text = re.sub(r"^\s*--.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
        text = re.sub(r"'\s*\n\s*'", "", text)
        found += re.findall(r"(?:: |\()(revector [^'.)(;]+)", text)
    return found


def test_the_commands_in_hints_are_there() -> None:
    found = calls()
    assert len(found) > 15
    for call in found:
        path, unknown = read_call(call)
        assert unknown is None, f"{call}: there is no {unknown}"
        command: Any = program()
        for word in path.split():
            command = command.commands[word]
        words = [word for word in call.split()[1 + len(path.split()) :] if not word.startswith("-")]
        given = [word for word in words if re.fullmatch(r"[A-Z]+(=[A-Z]+)?|%(\d\$)?s", word)]
        assert given == words, f"{call}: {path} takes values, in capitals"
        needed = sum(param.required and param.param_type_name == "argument" for param in command.params)
        assert len(given) >= needed, f"{call}: {path} takes {needed}"
