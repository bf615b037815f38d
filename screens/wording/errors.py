"""Errors of core on a screen: what is wrong, and what to do."""

from __future__ import annotations

from rich.text import Text

from revector.core.errors import RevectorError
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD, CAUTION


def error_text(error: RevectorError) -> Text:
    """What is wrong, and what to do."""
    text = Text(f"✗ {printable(error.problem, lines=True)}", BAD)
    if error.remedy:
        text.append(f"\n→ {printable(error.remedy, lines=True)}", CAUTION)
    return text
