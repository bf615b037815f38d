"""Run all benchmarks, or the named ones."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence

from tests.benchmarks import (
    backfill,
    builds,
    compare,
    evaluation,
    filters,
    first_frame,
    flips,
    guards,
    hybrid,
    ingest,
    loader,
    retriever,
    shadow,
    watch,
)
from tests.benchmarks.measure import tell

BENCHMARKS: dict[str, Callable[..., None]] = {
    "ingest": ingest.run,
    "loader": loader.run,
    "first_frame": first_frame.run,
    "backfill": backfill.run,
    "compare": compare.run,
    "evaluation": evaluation.run,
    "retriever": retriever.run,
    "filters": filters.run,
    "hybrid": hybrid.run,
    "flips": flips.run,
    "guards": guards.run,
    "builds": builds.run,
    "shadow": shadow.run,
    "watch": watch.run,
}
PARTS: dict[str, Sequence[str]] = {
    "backfill": tuple(backfill.PARTS),
    "evaluation": evaluation.PARTS,
    "watch": watch.PARTS,
}
"""Of benchmarks that have some: their names may follow the benchmark's."""


def main() -> None:
    """The program `python -m tests.benchmarks`."""
    known = ", ".join(f"{name} [{'|'.join(PARTS[name])}]" if name in PARTS else name for name in BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {known}; default: all")
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender runs (default: 9)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("at least one round has to be run")
    chosen: list[tuple[str, list[str]]] = []
    for name in arguments.names or BENCHMARKS:
        if name in BENCHMARKS:
            chosen.append((name, []))
        elif chosen and name in PARTS.get(chosen[-1][0], ()):
            chosen[-1][1].append(name)
        else:
            parser.error(f"there is no benchmark {name!r}; known: {known}")
    with contextlib.suppress(PermissionError):  # run at high priority if allowed
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    for name, parts in chosen:
        tell(f"== {' '.join([name, *parts])}: {arguments.rounds} rounds ==")
        BENCHMARKS[name](arguments.rounds, *([parts] if parts else []))


if __name__ == "__main__":
    main()
