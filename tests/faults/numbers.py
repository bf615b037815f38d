"""How often each fault comes: a short form for every run of the tests, a long one for `make chaos`.

Only numbers differ between the two. Whatever is random is drawn from SEED and the test's name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

LONG = os.environ.get("REVECTOR_CHAOS", "") not in ("", "0")
SEED = os.environ.get("REVECTOR_CHAOS_SEED", "2026")


@dataclass(frozen=True)
class Numbers:
    """Times each fault is made to happen, and chunks of the corpora it happens to."""

    kills: int = 4
    kills_chunks: int = 8_000
    kills_with_writers: int = 3
    run_kills: int = 2
    rounds: int = 1
    written: int = 1_000
    restarts: int = 2
    freezes: int = 1
    resets: int = 15
    cuts: int = 5
    blown_fuses: int = 12
    trapped: int = 1
    pairs: int = 20
    flips: int = 100
    away_s: float = 0.0
    """For how long the database stays away once it has been missed."""
    calm_s: float = 12.0
    """For how long a version that is as good as the one before is watched."""
    provider_chunks: int = 160
    run_chunks: int = 24_000
    chunks: int = 4_000
    patience_s: float = 60.0
    """How long a wait may take before it fails: a guard against hanging, not a measure of speed."""


NUMBERS = (
    Numbers(
        kills=200,
        kills_chunks=250_000,
        kills_with_writers=60,
        run_kills=40,
        rounds=40,
        written=5_000,
        restarts=10,
        freezes=15,
        resets=600,
        cuts=100,
        blown_fuses=200,
        trapped=25,
        pairs=100,
        flips=1_000,
        away_s=30.0,
        calm_s=60.0,
        provider_chunks=3_000,
        run_chunks=60_000,
        chunks=20_000,
        patience_s=300.0,
    )
    if LONG
    else Numbers()
)
