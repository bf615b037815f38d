"""Verdicts on gates: what the candidate's measures must reach before it may become active.

A gate passes when the one-sided lower confidence bound of its value reaches the gate's bound, fails when the upper
bound does not, and is inconclusive in between (core.evaluation.measures.significance). The file format and the
correction for several gates are in core.evaluation.gates.gate_file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from revector.core.errors import UsageError, unknown_name
from revector.core.evaluation.document import GateResult, Verdict
from revector.core.evaluation.gates.gate_file import Gate, GateFile
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.core.evaluation.measures.significance import (
    NO_TEST,
    POWER,
    BoundTest,
    compare_to_bound,
    further_queries,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Values = Mapping[str, Mapping[str, float]]
"""Measure → query → value."""


def judge_gates(
    gates: GateFile, primary: Values, candidate: Values, segments: Mapping[str, Sequence[str]]
) -> tuple[GateResult, ...]:
    """The verdict on every gate, in the order of the file.

    `segments` has the judged queries' ids by segment, the whole set under `all`. Raises UsageError naming the
    known segments for a gate on an unknown one, and ValueError for a value that is missing or not finite.
    """
    check_segments(gates, segments)
    return tuple(_judge(gates, gate, primary, candidate, segments[gate.segment]) for gate in gates.gates)


def check_segments(gates: GateFile, segments: Collection[str]) -> None:
    """Raise UsageError naming the known segments for gates on an unknown one."""
    strange = [gate for gate in gates.gates if gate.segment not in segments]
    if not strange:
        return
    errors = [unknown_name("segment", gate.segment, segments) for gate in strange]
    problems = [
        f"{gate.where}: {error.problem}" if gate.where else error.problem
        for gate, error in zip(strange, errors, strict=True)
    ]
    known = ", ".join(sorted(segments))
    raise UsageError("\n".join(problems), f"{errors[0].remedy}\nSegments of this query set: {known}.")


def _judge(gates: GateFile, gate: Gate, primary: Values, candidate: Values, queries: Sequence[str]) -> GateResult:
    values = _values(gate, primary, candidate, queries)
    confidence = gates.corrected(gate)
    found = compare_to_bound(values, gate.bound, confidence) if values.size else None
    enough = values.size >= gates.min_queries
    verdict: Verdict = "inconclusive"
    if found and enough and (found.above or found.below):
        verdict = "pass" if found.above else "fail"
    further = None if verdict != "inconclusive" else _further(gates, gate, values, found, confidence)
    return GateResult(
        gate.name,
        gate.kind.name,
        gate.measure,
        gate.segment,
        verdict,
        values.size,
        found.mean if found else None,
        found.low if found else None,
        found.high if found else None,
        gate.bound,
        confidence,
        found.p_value if found else None,
        further,
        _detail(gates, gate, verdict, values.size, found, confidence, further),
    )


def _values(gate: Gate, primary: Values, candidate: Values, queries: Sequence[str]) -> NDArray[np.float64]:
    """The values (n,) whose mean is compared with the gate's bound."""
    try:
        found = np.array([candidate[gate.measure][query] for query in queries], dtype=np.float64)
        if gate.kind.compared:
            found -= np.array([primary[gate.measure][query] for query in queries], dtype=np.float64)
    except KeyError as error:
        raise ValueError(f"gate {gate.name!r}: no value of {gate.measure} for {error.args[0]!r}") from None
    return found


def _further(
    gates: GateFile, gate: Gate, values: NDArray[np.float64], found: BoundTest | None, confidence: float
) -> int | None:
    """How many more queries would decide; at least as many as `min_queries` still requires."""
    missing = gates.min_queries - values.size
    if found is None or found.low is None or found.low == found.high or confidence == NO_TEST:
        return missing if missing > 0 else None
    more = further_queries(values, gate.bound, confidence)
    return None if more is None else max(more, missing, 1)


def _detail(
    gates: GateFile,
    gate: Gate,
    verdict: Verdict,
    count: int,
    found: BoundTest | None,
    confidence: float,
    further: int | None,
) -> str:
    """The verdict in a sentence or two for people."""
    queries = f"{count:,} {'query' if count == 1 else 'queries'}"
    if gate.segment != WHOLE_SET:
        queries += f" of {gate.segment}"
    if found is None:
        return f"No judged {queries.removeprefix('0 ')}; at least {gates.min_queries} are needed."
    signed = "+" if gate.kind.compared else ""
    # Enough decimals, at least three, for two different numbers to look different.
    places = next((n for n in range(3, 9) if f"{found.mean:.{n}f}" != f"{gate.bound:.{n}f}"), 3)

    def number(value: float) -> str:
        return f"{value:{signed}z.{places}f}".replace("-", "−")

    sign = "≥" if found.above or (not found.below and found.mean >= gate.bound) else "<"
    what = (
        f"the mean of candidate − primary in {gate.measure}"
        if gate.kind.compared
        else f"the candidate's mean {gate.measure}"
    )
    sentence = f"{number(found.mean)} {sign} {number(gate.bound)}: {what} over {queries}"
    if found.low is None or found.high is None:
        sentence += " has no spread"
    elif confidence == NO_TEST:
        sentence += "; at confidence 0.5 the mean itself decides"
    elif found.low == found.high:
        sentence += " is the same for every query, so its spread is unknown"
    else:
        shared = f" ({gates.asked(gate):g} over {len(gates.gates)} gates)" if len(gates.gates) > 1 else ""
        sentence += f" lies above {number(found.low)} and below {number(found.high)}"
        sentence += f", each at {100 * confidence:.4g} % confidence{shared}"
    if verdict != "inconclusive":
        return f"{sentence}."
    if count < gates.min_queries:
        sentence += f". That is inconclusive below {gates.min_queries} queries"
        if further is not None and further > gates.min_queries - count:
            return f"{sentence}, and about {further:,} more with this spread would be needed to decide."
        return f"{sentence}: {gates.min_queries - count} more at least."
    if further is None:
        return f"{sentence}. That is not conclusive, and no practical number of further queries would be."
    return f"{sentence}. That is not conclusive; about {further:,} more queries would, with {POWER * 100:.0f} % power."
