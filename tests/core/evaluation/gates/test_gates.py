"""Gate files say where they are wrong, and verdicts hold what their confidence promises."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revector.core.errors import UsageError
from revector.core.evaluation.document import GateResult
from revector.core.evaluation.gates.gate_file import KINDS, Gate, GateFile, read_gates
from revector.core.evaluation.gates.verdicts import judge_gates
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET

FLOOR, NON_INFERIORITY = KINDS

FILE = """\
confidence = 0.9

[[gate]]
name = "invoices stay precise"
measure = "P@10"
segment = "invoice"
at_least = 0.90

[[gate]]
measure = "nDCG@10"
margin = 0.01
confidence = 0.99
"""


def floor(bound: float, confidence: float | None = None, segment: str = WHOLE_SET) -> Gate:
    return Gate("floor", FLOOR, "P@10", segment, bound, confidence)


def no_worse(margin: float, confidence: float | None = None) -> Gate:
    return Gate("no worse", NON_INFERIORITY, "P@10", WHOLE_SET, -margin, confidence)


def judge(gates: GateFile, primary: list[float], candidate: list[float]) -> list[str]:
    return [result.verdict for result in results(gates, primary, candidate)]


def results(gates: GateFile, primary: list[float], candidate: list[float]) -> tuple[GateResult, ...]:
    ids = [str(number) for number in range(len(candidate))]
    return judge_gates(
        gates,
        {"P@10": dict(zip(ids, primary, strict=True))},
        {"P@10": dict(zip(ids, candidate, strict=True))},
        {WHOLE_SET: ids},
    )


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "gates.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        read_gates(path)
    return error.value.problem.split("\n")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(FILE, encoding="utf-8")
    found = read_gates(path)
    assert found == GateFile(
        (
            Gate("invoices stay precise", FLOOR, "P@10", "invoice", 0.9, None, "gates.toml:3:1"),
            Gate("nDCG@10: at most 0.01 worse", NON_INFERIORITY, "nDCG@10", "all", -0.01, 0.99, "gates.toml:9:1"),
        ),
        confidence=0.9,
        min_queries=10,
    )
    assert [found.corrected(gate) for gate in found.gates] == pytest.approx([0.95, 0.995])


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert [gate.where for gate in read_gates(path).gates] == ["gates.toml:3:1", "gates.toml:9:1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[gate]]\nmeasure = "P@10', "gates.toml:2:16: "),
        ('[[gate]]\nmeasure "P@10"\n', "gates.toml:2:9: "),
        ('[[gate]]\nat_least = 0.9\nmeasure = "P@10"\nat_least = 0.9\n', "gates.toml:4:15: "),
        ("[[gate]]\nat_least = [0.9", "gates.toml:2:16: "),
    ],
)
def test_a_typo_is_named_by_line_and_column(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(expected)
    assert " at line" not in problem


def test_every_problem_is_named_where_it_stands(tmp_path: Path) -> None:
    text = """\
min_querys = 3
confidence = 1.5

[[gate]]
  mesure = "P@10"
at_least = 90
margin = 0.1

# a comment
[[gate]]
measure = \"\"\"
nDCGG@10\"\"\"
segment = 7

[[gate]]
measure = "P@10"
at_least = true
min_queries = 20
"""
    assert problems(tmp_path, text) == [
        "gates.toml:1:1: there is no key 'min_querys' (did you mean min_queries?).",
        "gates.toml:2:1: confidence is 1.5; expected 0.5 to 0.9999.",
        "gates.toml:4:1: the gate has both at_least and margin; expected one of them.",
        "gates.toml:4:1: the gate has no measure.",
        "gates.toml:5:3: there is no key 'mesure' (did you mean measure?).",
        "gates.toml:6:1: at_least is 90; expected a number from 0 to 1.",
        "gates.toml:10:1: the gate has neither at_least nor margin; expected one of them.",
        *[line for line in problems(tmp_path, text) if line.startswith("gates.toml:11:1: ")],
        "gates.toml:13:1: segment is 7; expected a text of 1 to 500 characters.",
        "gates.toml:17:1: at_least is true; expected a number from 0 to 1.",
        "gates.toml:18:1: there is no key 'min_queries' (min_queries comes before the first [[gate]]).",
    ]


def test_an_unknown_measure_is_named_with_the_near_ones(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[[gate]]\nmeasure = "nDGC@10"\nat_least = 0.5\n')
    assert problem.startswith("gates.toml:2:1: ")
    assert "'nDGC@10'" in problem
    assert "nDCG@10" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "gates.toml: it has no [[gate]]."),
        ("gate = 3", "gates.toml:1:1: a gate begins with [[gate]], in double brackets."),
        ("\n[gate]\nmeasure = 'P@10'", "gates.toml:2:1: a gate begins with [[gate]], in double brackets."),
        (
            f"min_queries = 4\n{FILE}",
            "gates.toml:1:1: min_queries is 4; expected a whole number from 5 to 1,000,000.",
        ),
        (f"min_queries = 10.0\n{FILE}", "gates.toml:1:1: min_queries is 10.0; expected a whole number from 5"),
        (FILE.replace("0.01", "nan"), "gates.toml:11:1: margin is nan; expected a number from 0 to 1."),
        (FILE.replace("0.99", "0.4"), "gates.toml:12:1: confidence is 0.4; expected 0.5 to 0.9999."),
        (FILE + FILE.partition("\n\n")[2], "gates.toml:13:1: gate 3 repeats gate 1."),
        (FILE.replace("margin", 'name = "invoices stay precise"\nmargin'), "gates.toml:11:1: gate 1 has the name"),
        (FILE.replace("0.90", f"0x{'f' * 5000}"), "gates.toml:7:1: at_least is a number of thousands of bits;"),
        (FILE.replace("0.90", "9" * 5000), "gates.toml: Exceeds the limit"),
        ("gate = [{measure = 'P@10'}]", "gates.toml:1:1: the gate has neither at_least nor margin"),
        ("x = " + "[" * 100_000, "gates.toml: arrays or tables are nested too deeply."),
        ("#" * 300_000, "gates.toml has more than 256 KiB."),
    ],
)
def test_what_no_gate_file_says(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)[0]
    assert found.removeprefix(f"{tmp_path}/").startswith(expected)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    for name in ("missing.toml", "latin.toml", "."):
        with pytest.raises(UsageError, match="cannot be read"):
            read_gates(tmp_path / name)


keys = st.sampled_from(
    ["name", "measure", "segment", "at_least", "margin", "confidence", "min_queries", "gate", "x"]
)
values = st.sampled_from(
    ['"P@10"', '"nDCG@10"', '"P@0"', '"P@-1"', '"__import__"', '"(((("', '"P(rel=9)@5"', '""', "0.9", "-1", "inf",
     "1e999", "true", "[]", "[[]]", "{}", "{a.b = 1}", "1979-05-27", '"""\n[[gate]]\n"""', "'\x1b[31m'", '"\\u0000"']
)  # fmt: skip
lines = st.one_of(
    st.just("[[gate]]"),
    st.just("[gate]"),
    st.just("[gate.x]"),
    st.just("[[gate.measure]]"),
    st.just("# [[gate]]"),
    st.builds("{} = {}".format, keys, values),
    st.builds("  {}.y = {}".format, keys, values),
    st.text(max_size=20),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=12).map("\n".join) | st.text())
def test_a_hostile_file_is_read_or_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gates.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found, problem = read_gates(path).gates, ""
    except UsageError as error:
        found, problem = (), error.problem
    assert bool(found) != bool(problem)
    assert not problem or "gates.toml" in problem
    assert "\x1b" not in problem
    for gate in found:
        line, column = map(int, re.fullmatch(r"gates\.toml:(\d+):(\d+)", gate.where).groups())  # type: ignore[union-attr]
        assert text.replace("\r\n", "\n").split("\n")[line - 1][column - 1 :].startswith(("[[", "gate"))


def test_three_queries_are_inconclusive_whatever_they_say() -> None:
    gates = GateFile((floor(0.5), no_worse(0.1), floor(0.5, 0.5), floor(0.9999)))
    assert judge(gates, [0.1, 0.1, 0.1], [0.9, 1.0, 0.95]) == ["inconclusive"] * 4
    assert judge(gates, [0.1, 0.1, 0.1], [1.0, 1.0, 1.0]) == ["inconclusive"] * 4
    few = results(gates, [0.1, 0.1, 0.1], [0.9, 1.0, 0.95])
    assert few[0].further_queries == 7
    assert "7 more at least" in few[0].detail
    enough = [0.9, 1.0, 0.95, 0.9, 1.0] * 2
    assert judge(gates, [0.1] * 10, enough) == ["pass", "pass", "pass", "fail"]
    assert judge(gates, [0.1] * 9, enough[:9]) == ["inconclusive"] * 4


def test_no_query_and_one_query_have_no_interval() -> None:
    for count in (0, 1):
        (result,) = results(GateFile((floor(0.5),)), [0.5] * count, [1.0] * count)
        assert (result.verdict, result.queries, result.low, result.high) == ("inconclusive", count, None, None)
        assert result.further_queries == 10 - count


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=10, max_size=40), st.floats(0, 1), st.floats(0.5, 0.9999))
def test_the_interval_never_contradicts_the_verdict(found: list[float], bound: float, confidence: float) -> None:
    for result in results(
        GateFile((floor(bound), no_worse(bound), floor(bound / 2)), confidence), [0.5] * len(found), found
    ):
        assert result.low is not None
        assert result.high is not None
        assert result.value is not None
        assert result.low <= result.value + 1e-9
        assert result.value <= result.high + 1e-9
        if result.verdict == "pass":
            assert result.low >= result.bound - 1e-9
        elif result.verdict == "fail":
            assert result.high < result.bound
        else:
            assert result.low < result.bound <= result.high + 1e-9
            assert result.further_queries is None or result.further_queries > 0
        assert (result.further_queries is None) or result.verdict == "inconclusive"


def test_too_few_queries_lack_at_least_those_that_are_missing() -> None:
    rng = np.random.default_rng(3)
    clear, close = (rng.normal(mean, 0.1, 8).tolist() for mean in (0.9, 0.52))
    gates = GateFile((floor(0.5),), min_queries=20)
    assert results(gates, [0.0] * 8, clear)[0].further_queries == 12
    assert results(gates, [0.0] * 8, [0.7] * 8)[0].further_queries == 12
    (undecided,) = results(gates, [0.0] * 8, close)
    assert undecided.further_queries is not None
    assert undecided.further_queries > 12
    assert f"about {undecided.further_queries} more with this spread" in undecided.detail


def test_more_gates_need_stronger_evidence() -> None:
    candidate = [0.5, 0.9] * 10
    alone = results(GateFile((floor(0.62),)), [0.0] * 20, candidate)[0]
    assert alone.verdict == "pass"
    assert alone.confidence == 0.95
    among = results(GateFile((floor(0.62), floor(0.1), floor(0.2), floor(0.3))), [0.0] * 20, candidate)[0]
    assert among.verdict == "inconclusive"
    assert among.confidence == pytest.approx(0.9875)
    assert "at 98.75 % confidence (0.95 over 4 gates)" in among.detail
    own = results(GateFile((floor(0.62, 0.5), floor(0.1))), [0.0] * 20, candidate)[0]
    assert (own.verdict, own.confidence, own.low) == ("pass", 0.5, pytest.approx(0.7))


def test_the_detail_is_a_sentence_for_people() -> None:
    rng = np.random.default_rng(5)
    ids = [f"q{number}" for number in range(54)]
    values = {"P@10": dict(zip(ids, rng.choice([0.8, 0.9, 1.0], 54, p=[0.1, 0.3, 0.6]).tolist(), strict=True))}
    base = {"P@10": dict.fromkeys(ids, 0.9)}
    gates = GateFile((floor(0.9, segment="invoice"), no_worse(0.01), floor(0.99)))
    found = judge_gates(gates, base, values, {WHOLE_SET: ids, "invoice": ids})
    assert re.fullmatch(
        r"0\.9\d\d ≥ 0\.900: the candidate's mean P@10 over 54 queries of invoice lies above 0\.9\d\d and below "
        r"0\.9\d\d, each at 98\.33 % confidence \(0\.95 over 3 gates\)\.",
        found[0].detail,
    )
    assert re.match(
        r"\+0\.0\d\d ≥ −0\.010: the mean of candidate − primary in P@10 over 54 queries lies", found[1].detail
    )
    assert [result.verdict for result in found] == ["pass", "pass", "fail"]
    assert found[2].detail.startswith("0.9")
    assert " < 0.990" in found[2].detail
    # Rounded to three places these two would be one number.
    near = results(GateFile((floor(0.9, 0.5),)), [0.0] * 10, [0.8998] * 10)[0]
    assert near.detail.startswith("0.8998 < 0.9000: ")


def test_an_inconclusive_gate_says_how_many_queries_would_decide() -> None:
    candidate = [0.5, 0.9] * 10
    result = results(GateFile((floor(0.66),)), [0.0] * 20, candidate)[0]
    assert result.verdict == "inconclusive"
    assert result.further_queries is not None
    assert f"about {result.further_queries} more queries would" in result.detail
    on_bound = results(GateFile((floor(0.7),)), [0.0] * 20, candidate)[0]
    assert (on_bound.verdict, on_bound.further_queries) == ("inconclusive", None)
    assert "no practical number of further queries" in on_bound.detail
    more = results(
        GateFile((floor(0.66),)),
        [0.0] * (20 + result.further_queries),
        (candidate * 99)[: 20 + result.further_queries],
    )
    assert more[0].verdict == "pass"


def test_a_segment_nobody_has_is_named_with_those_there_are() -> None:
    gates = GateFile(
        (
            Gate("a", FLOOR, "P@10", "invoces", 0.9, where="gates.toml:3:1"),
            Gate("b", FLOOR, "P@10", "letters", 0.9, where="gates.toml:7:1"),
        )
    )
    with pytest.raises(UsageError) as error:
        judge_gates(gates, {}, {}, {WHOLE_SET: [], "invoices": [], "contracts": []})
    assert error.value.problem == (
        "gates.toml:3:1: There is no segment 'invoces'.\ngates.toml:7:1: There is no segment 'letters'."
    )
    assert "Segments of this query set: all, contracts, invoices." in error.value.remedy


def test_a_value_that_is_not_there_is_no_zero() -> None:
    with pytest.raises(ValueError, match=r"no value of P@10 for 'q'"):
        judge_gates(GateFile((floor(0.5),)), {}, {"P@10": {}}, {WHOLE_SET: ["q"]})
    with pytest.raises(ValueError, match="not finite"):
        results(GateFile((floor(0.5),)), [0.0] * 10, [0.5] * 9 + [float("nan")])
