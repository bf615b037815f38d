"""Run all benchmarks, or the named ones."""

from __future__ import annotations

import argparse

from tests.benchmarks import first_frame, loader
from tests.benchmarks.measure import tell

BENCHMARKS = {"loader": loader.run, "first_frame": first_frame.run}


def main() -> None:
    """The program `python -m tests.benchmarks`."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender runs (default: 9)")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    if arguments.rounds < 1:
        parser.error("at least one round has to be run")
    for name in arguments.names or BENCHMARKS:
        tell(f"== {name}: {arguments.rounds} rounds ==")
        BENCHMARKS[name](arguments.rounds)


if __name__ == "__main__":
    main()
