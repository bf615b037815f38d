"""The console's colours: dark, calm, high contrast. Nothing is expressed by colour alone."""

from __future__ import annotations

from textual.theme import Theme

from revector.screens.wording.text import MARKS

THEME = Theme(
    name="revector",
    primary="#7aa2d6",
    secondary="#9aa5b1",
    accent="#e0b35a",
    foreground="#d8dee6",
    background="#11151a",
    surface="#161b21",
    panel="#202730",
    success="#8fc98f",
    warning="#e0b35a",
    error="#f07a72",
    dark=True,
    variables={
        "border": "#5b6875",
        "border-blurred": "#3a444f",
        "footer-background": "#161b21",
        "block-cursor-background": "#2f4763",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": "#232c36",
        "block-cursor-blurred-foreground": "#d8dee6",
        "scrollbar": "#3a444f",
        "scrollbar-hover": "#5b6875",
        "scrollbar-active": "#7aa2d6",
        "scrollbar-background": "#161b21",
        "scrollbar-background-hover": "#161b21",
        "scrollbar-background-active": "#161b21",
        "input-cursor-background": "#d8dee6",
        "input-cursor-foreground": "#11151a",
        "input-selection-background": "#2f4763",
    },
)

GOOD = "#8fc98f"
BAD = "#f07a72"
CAUTION = "#e0b35a"
FAINT = "#9aa5b1"
TITLE = "bold #7aa2d6"
"""The theme's colours for text that is composed span by span."""

SIGNS: dict[str | None, tuple[str, str]] = {
    "pass": (MARKS["pass"], GOOD), "fail": (MARKS["fail"], BAD), "inconclusive": (MARKS["inconclusive"], CAUTION),
    "warn": (MARKS["warn"], CAUTION), None: ("·", FAINT),
}  # fmt: skip
"""A verdict's sign and colour; None when there is no verdict, or not yet."""
