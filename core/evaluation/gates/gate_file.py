"""The gate file, in TOML:

    confidence = 0.95              # of all gates together
    min_queries = 10               # fewer are inconclusive, whatever they say

    [[gate]]
    name = "invoices stay precise" # optional
    measure = "P@10"
    segment = "invoice"            # optional, else the whole set
    at_least = 0.90                # a floor for the candidate's mean

    [[gate]]
    measure = "nDCG@10"
    margin = 0.01                  # the candidate may be that much worse than the primary, and no more

Bonferroni: each of m gates is judged at 1 − (1 − confidence) / m, so that the chance that any of them is wrong,
one way or the other, is at most 1 − confidence. A gate may have its own `confidence` in place of the file's; it is
corrected in the same way. A confidence of 0.5, which is no test, is not corrected: then the mean itself decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from revector.core.errors import UsageError
from revector.core.evaluation.gates.toml_source import Key, Place, read_toml
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.core.evaluation.measures.measures import check_measures
from revector.core.evaluation.measures.significance import NO_TEST

DEFAULT_CONFIDENCE = 0.95
MAX_CONFIDENCE = 0.9999
DEFAULT_MIN_QUERIES = 10
_CONFIDENCE = (NO_TEST, MAX_CONFIDENCE, f"{NO_TEST} to {MAX_CONFIDENCE}")
LEAST_MIN_QUERIES = 5
"""The minimum for `min_queries`: the spread of fewer values says little."""
_MOST_MIN_QUERIES = 1_000_000
_MAX_CHARACTERS = 500
_MOST_PROBLEMS = 20

_Range = tuple[float, float, str]
"""The least, the most, and both in words."""
_Problems = list[tuple[Key, str]]

_FILE_KEYS = ("confidence", "min_queries", "gate")


@dataclass(frozen=True)
class GateKind:
    """One kind of gate: a mean over the queries must reach a bound.

    It is written as `key`, a number from 0 to 1, and named by `words` unless it has a name. `compared` says
    whether the mean is that of candidate − primary rather than of the candidate; `bound` turns the number into the
    bound.
    """

    name: str
    key: str
    words: str
    example: float
    compared: bool
    bound: Callable[[float], float]


KINDS = (
    GateKind("floor", "at_least", "at least {:g}", 0.9, compared=False, bound=lambda floor: floor),
    GateKind("non-inferiority", "margin", "at most {:g} worse", 0.01, compared=True, bound=lambda margin: -margin),
)
_GATE_KEYS = ("name", "measure", "segment", *(kind.key for kind in KINDS), "confidence")


@dataclass(frozen=True)
class Gate:
    """A bound for a measure on a segment of the queries.

    `confidence` is the gate's own, or None for the file's. `where` is its place in the file (`gates.toml:4:1`).
    """

    name: str
    kind: GateKind
    measure: str
    segment: str
    bound: float
    confidence: float | None = None
    where: str = ""


@dataclass(frozen=True)
class GateFile:
    """The gates of a file, judged together. `confidence` is the joint one, before the correction."""

    gates: tuple[Gate, ...]
    confidence: float = DEFAULT_CONFIDENCE
    min_queries: int = DEFAULT_MIN_QUERIES

    def asked(self, gate: Gate) -> float:
        """The confidence set for a gate: its own or the file's."""
        return self.confidence if gate.confidence is None else gate.confidence

    def corrected(self, gate: Gate) -> float:
        """The confidence at which a gate is judged: Bonferroni over all gates of the file; 0.5 stays 0.5."""
        asked = self.asked(gate)
        return asked if asked == NO_TEST else 1 - (1 - asked) / len(self.gates)


def read_gates(path: Path) -> GateFile:
    """The gates of a file.

    Raises UsageError that lists every problem of the file by line and column: invalid TOML, an unknown key or
    measure (with near matches), a gate with neither or both of `at_least` and `margin`, a value out of range, a
    repeated gate.
    """
    source = read_toml(path)
    places = source.places()
    problems: _Problems = []
    found = _read(source.data, problems)
    if problems:
        by_line = sorted((_place_of(key, places), problem) for key, problem in problems)
        shown = [f"{_named(path, place)}: {problem}." for place, problem in by_line[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            shown.append(f"… and {len(problems) - _MOST_PROBLEMS} more.")
        one_of = " or ".join(f"{kind.key} = {kind.example:g}" for kind in KINDS)
        raise UsageError(
            "\n".join(shown),
            f'A gate is [[gate]] with measure = "P@10" and {one_of}, for one segment with segment = "invoice".',
        )
    gates = (
        replace(gate, where=_named(path, _place_of(("gate", number), places)))
        for number, gate in enumerate(found.gates)
    )
    return replace(found, gates=tuple(gates))


def _place_of(key: Key, places: dict[Key, Place]) -> Place:
    """The place of a key, else of its table; (0, 0) is the whole file."""
    while key and key not in places:
        key = key[:-1]
    return places[key] if key else (0, 0)


def _named(path: Path, place: Place) -> str:
    return f"{path.name}:{place[0]}:{place[1]}" if place[0] else path.name


def _read(data: dict[str, Any], problems: _Problems) -> GateFile:
    _check_keys(data, _FILE_KEYS, (), problems)
    confidence = _number(data, "confidence", _CONFIDENCE, (), problems)
    min_queries = data.get("min_queries", DEFAULT_MIN_QUERIES)
    if type(min_queries) is not int or not LEAST_MIN_QUERIES <= min_queries <= _MOST_MIN_QUERIES:
        expected = f"a whole number from {LEAST_MIN_QUERIES} to {_MOST_MIN_QUERIES:,}"
        problems.append((("min_queries",), f"min_queries is {_shown(min_queries)}; expected {expected}"))
    rows = data.get("gate", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        problems.append((("gate",), "a gate begins with [[gate]], in double brackets"))
        rows = []
    elif not rows:
        problems.append(((), "it has no [[gate]]"))
    gates = [_gate(row, ("gate", number), problems) for number, row in enumerate(rows)]
    _check_repeated(gates, problems)
    return GateFile(tuple(gates), DEFAULT_CONFIDENCE if confidence is None else confidence, min_queries)


def _gate(row: dict[str, Any], key: Key, problems: _Problems) -> Gate:
    """The gate of a table. Errors are added to the problems, in which case the gate is never used."""
    _check_keys(row, _GATE_KEYS, key, problems)
    measure = _measure(row, key, problems)
    segment = _text(row, "segment", key, problems) or WHOLE_SET
    name = _text(row, "name", key, problems)
    confidence = _number(row, "confidence", _CONFIDENCE, key, problems)
    kinds = [kind for kind in KINDS if kind.key in row]
    if len(kinds) != 1:
        given = " and ".join(kind.key for kind in kinds)
        has = f"both {given}" if kinds else f"neither {' nor '.join(kind.key for kind in KINDS)}"
        problems.append((key, f"the gate has {has}; expected one of them"))
    numbers = [_number(row, kind.key, (0, 1, "a number from 0 to 1"), key, problems) or 0.0 for kind in kinds]
    kind, number = (kinds or KINDS)[0], (numbers or [0.0])[0]
    what = measure if segment == WHOLE_SET else f"{measure} on {segment}"
    return Gate(
        name or f"{what}: {kind.words.format(number)}", kind, measure, segment, kind.bound(number), confidence
    )


def _measure(row: dict[str, Any], key: Key, problems: _Problems) -> str:
    if "measure" not in row:
        problems.append((key, "the gate has no measure"))
        return ""
    written = _text(row, "measure", key, problems)
    if not written:
        return ""
    try:
        return check_measures([written])[0]
    except UsageError as error:
        problem = f"{error.problem.rstrip('.')} ({error.remedy.rstrip('.')})".removesuffix(" ()")
        problems.append(((*key, "measure"), problem))
        return ""


def _text(row: dict[str, Any], name: str, key: Key, problems: _Problems) -> str:
    value = row.get(name)
    if name not in row:
        return ""
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_CHARACTERS:
        expected = f"a text of 1 to {_MAX_CHARACTERS} characters"
        problems.append(((*key, name), f"{name} is {_shown(value)}; expected {expected}"))
        return ""
    return value


def _number(row: dict[str, Any], name: str, allowed: _Range, key: Key, problems: _Problems) -> float | None:
    if name not in row:
        return None
    value, (low, high, expected) = row[name], allowed
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        problems.append(((*key, name), f"{name} is {_shown(value)}; expected {expected}"))
        return None
    return float(value)


def _check_keys(row: dict[str, Any], known: Sequence[str], key: Key, problems: _Problems) -> None:
    for name in row:
        if name not in known:
            near = get_close_matches(name, known, n=2, cutoff=0.6)
            # A key of the file written below a [[gate]] belongs to that gate, as TOML sees it.
            misplaced = key and name in _FILE_KEYS
            hint = (
                f"{name} comes before the first [[gate]]"
                if misplaced
                else f"did you mean {' or '.join(near)}?"
                if near
                else f"known: {', '.join(known)}"
            )
            problems.append(((*key, name), f"there is no key {_shown(name)} ({hint})"))


def _check_repeated(gates: Sequence[Gate], problems: _Problems) -> None:
    """A repeated gate would only make the others stricter, and two of one name could not be told apart."""
    seen: dict[object, int] = {}
    for number, gate in enumerate(gates):
        same = seen.setdefault((gate.kind.name, gate.measure, gate.segment), number)
        named = seen.setdefault(gate.name, number)
        if gate.measure and same != number:
            problems.append((("gate", number), f"gate {number + 1} repeats gate {same + 1}"))
        elif gate.measure and named != number:
            problems.append((("gate", number, "name"), f"gate {named + 1} has the name {_shown(gate.name)} too"))


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 1_000:
        return "a number of thousands of bits"  # repr refuses it
    if isinstance(value, bool):
        return str(value).lower()  # as TOML has it
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
