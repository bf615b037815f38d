"""Writes the documents that are made from the code: `python -m tests.documents`."""

from __future__ import annotations

from pathlib import Path

from revector.core.cutover.documentation import guards_page

GUARDS_PAGE = Path(__file__).parent.parent / "docs" / "guards.md"

if __name__ == "__main__":
    GUARDS_PAGE.write_text(guards_page(), encoding="utf-8")
