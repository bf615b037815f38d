"""Reports say all that qualifies a verdict, and text from queries is shown in them, never obeyed."""

from __future__ import annotations

import dataclasses
import datetime
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from revector.core.evaluation.document import Evaluation, MeasureResult, OverlapResult, QueryResult, Run, worst
from revector.core.evaluation.gates.gate_file import KINDS, Gate, GateFile
from revector.core.evaluation.gates.verdicts import judge_gates
from revector.core.evaluation.measures.significance import compare_paired
from revector.core.evaluation.reports import report
from revector.core.evaluation.reports.charts import change_chart, difference_chart, distribution_chart
from revector.core.evaluation.reports.junit import junit
from revector.core.evaluation.reports.wording import interval, number, p_value, signed
from revector.core.overlap import RBO_P

FLOOR, NON_INFERIORITY = KINDS
NOW = datetime.datetime(2026, 11, 23, 4, 5, 6, tzinfo=datetime.UTC)
HOSTILE = "<script>alert(1)</script> ]]> | `x` **b** [l](http://e.x) @all #1 \x00\x1b[31m\r\n\u202e\ufffe &lt; \"'"
WARNING = "The candidate was searched on a sample of 2,000 chunks."
SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text.encode())  # noqa: S314  our own


def html(found: Evaluation) -> str:
    return report(found, "html")


def markdown(found: Evaluation) -> str:
    return report(found, "markdown")


def run(number: int, key: str) -> Run:
    return Run(
        number, "support", "a1b2c3", key, "static:wordllama-256", "r1", 100, number == 1, False,
        None if number == 1 else 80,
        {"m": 16, "ef_construction": 64}, None, 12_400, 240, "done", NOW, NOW, 12.25, "ada",
    )  # fmt: skip


def evaluation(name: str = "", queries: int = 240) -> Evaluation:
    """An evaluation of numbers as they come; `name` goes into every text that users or documents give."""
    rng = np.random.default_rng(11)
    segments = [f"{segment}{name}" for segment in ("contract", "invoice", "letter")]
    ids = [f"q{number}{name}" for number in range(queries)]
    of = {query: segments[number % 3] for number, query in enumerate(ids)}
    measures = ("nDCG@10", "P@10")
    primary = {measure: dict(zip(ids, rng.beta(2, 1.5, queries).tolist(), strict=True)) for measure in measures}
    shift = {segments[0]: 0.05, segments[1]: -0.06, segments[2]: 0.004}
    candidate = {
        measure: {
            query: float(np.clip(value + (rng.random() < 0.6) * rng.normal(shift[of[query]], 0.12), 0, 1))
            for query, value in values.items()
        }
        for measure, values in primary.items()
    }
    groups = {"all": ids} | {segment: [query for query in ids if of[query] == segment] for segment in segments}
    gates = judge_gates(
        GateFile(
            (
                Gate(f"contracts stay good{name}", FLOOR, "P@10", segments[0], 0.4),
                Gate(f"invoices stay precise{name}", FLOOR, "P@10", segments[1], 0.9),
                Gate(f"nothing is lost{name}", NON_INFERIORITY, "nDCG@10", "all", -0.01),
            )
        ),
        primary,
        candidate,
        groups,
    )
    results = []
    for measure in measures:
        for segment, them in groups.items():
            first, second = (
                np.array([values[measure][query] for query in them]) for values in (primary, candidate)
            )
            test = compare_paired(first, second, 0.95)
            results.append(
                MeasureResult(
                    measure,
                    segment,
                    len(them),
                    float(first.mean()),
                    float(second.mean()),
                    test.difference,
                    test.low,
                    test.high,
                    test.p_value,
                )
            )
    overlaps = []
    for measure in ("overlap", "jaccard", "rbo", "kendall_tau"):
        for segment, them in groups.items():
            values = rng.beta(5, 2, len(them))
            quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
            counts, _ = np.histogram(values, 10, (0, 1))
            overlaps.append(
                OverlapResult(
                    measure,
                    segment,
                    len(them),
                    float(values.mean()),
                    tuple(quantiles.tolist()),
                    tuple(counts.tolist()),
                )
            )
    judged = [
        QueryResult(
            query, f"how do I rotate key {query}", of[query], 3, {m: primary[m][query] for m in measures},
            {m: candidate[m][query] for m in measures}, 2, 5, 0.4, 0.3, 0.35, None,
        )
        for query in ids
    ]  # fmt: skip
    unjudged = QueryResult("never judged", f"who{name}", segments[0], 0, {}, {}, 10, 10, 0.1, 0.1, 0.1, 0.5)
    return Evaluation(
        id=7,
        query_set=f"support{name}",
        query_set_revision="a1b2c3",
        primary=run(1, f"embed-v1{name}"),
        candidate=run(2, f"embed-v2{name}"),
        judges=(f"ada{name}", "qrels"),
        level="document",
        k=10,
        rbo_p=RBO_P,
        confidence=0.95,
        measures=tuple(results),
        overlaps=tuple(overlaps),
        gates=gates,
        verdict=worst([gate.verdict for gate in gates]),
        queries=(*judged, unjudged),
        judged_queries=queries,
        unjudged_queries=1,
        judgements=720,
        unknown_targets=((ids[0], f"doc-gone{name}"),),
        warnings=(f"{WARNING}{name}",),
        created_at=NOW,
        created_by=f"grace{name}",
    )


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its attributes and its text; fails on a wrong nesting."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


def has_no_control_character(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


SHOWN = "<script>alert(1)</script> ]]> | `x` **b** [l](http://e.x) @all #1 ␀␛[31m␍␊‹202E›‹FFFE› &lt; \"'"


def test_every_report_shows_verdict_gates_and_all_that_qualifies_them() -> None:
    e = evaluation()
    pages = {
        "html": Page(html(e)).text,
        "markdown": Page(MarkdownIt("commonmark").enable("table").render(markdown(e))).text,
        "junit": "\n".join(
            " ".join([*element.attrib.values(), element.text or ""]) for element in parsed(junit(e)).iter()
        ),
    }
    for name, text in pages.items():
        for expected in (
            WARNING,
            "1 judged target is not in the collection, so no version can find it: doc-gone (query q0).",
            "1 query without any judgement",
            "on average 2.0 results per query of the primary and 5.0 of the candidate",
            "embed-v1",
            "embed-v2",
            "a1b2c3",
            *(gate.name for gate in e.gates),
            *(gate.detail for gate in e.gates),
            *(row.segment for row in e.measures),
        ):
            assert expected in text, (name, expected)
        for row in e.measures:
            assert f"{row.difference:+.3f}".replace("-", "−") in text, name
        assert "fail" in text.lower()


def test_figures_have_a_true_minus_and_no_negative_zero() -> None:
    assert [number(value) for value in (0.5, -0.00001, None)] == ["0.500", "0.000", "–"]
    assert [signed(value) for value in (0.5, -0.25, -0.00001)] == ["+0.500", "−0.250", "+0.000"]
    assert [interval(-0.1, 0.2), interval(None, None)] == ["−0.100 to +0.200", "–"]
    assert [p_value(value) for value in (0.0, 0.05, None)] == ["< 0.001", "0.050", "–"]


def test_the_page_is_whole_by_itself_and_shows_foreign_text_as_text() -> None:
    page = html(evaluation(HOSTILE))
    found = Page(page)
    assert not found.tags & {"script", "link", "iframe", "object", "img", "a", "b"}
    assert {name for name, _ in found.attributes}.isdisjoint({"src", "href", "srcset", "onload", "onclick"})
    assert "url(" not in page
    assert "@import" not in page
    assert f"how do I rotate key q0{SHOWN}" in found.text
    assert f"contracts stay good{SHOWN}" in found.text
    assert has_no_control_character(page)


def test_the_page_has_charts_with_words_for_those_who_do_not_see_them() -> None:
    page = html(evaluation())
    charts = [parsed(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(charts) == 6  # differences and changes of two measures, overlap and RBO
    for chart in charts:
        assert chart.attrib["role"] == "img"
        assert [child.tag for child in chart][:2] == [f"{SVG}title", f"{SVG}desc"]
        assert chart[0].text
        assert chart[1].text


def test_markdown_makes_no_markup_of_foreign_text() -> None:
    text = markdown(evaluation(HOSTILE))
    assert has_no_control_character(text)
    rendered = MarkdownIt("gfm-like").render(text)
    found = Page(rendered)
    assert found.tags <= {
        "h2",
        "h3",
        "p",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "strong",
    }
    assert f"contracts stay good{SHOWN}"[:90] in found.text
    assert len(text) < 65_536
    # Every row of a table has as many cells as its head, whatever pipes the names have.
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    outside_code = re.sub(r"<code>.*?</code>", "", text)
    assert not re.search(r"&#64;(?!<!-- -->)|@all|&#35;(?!<!-- -->)", outside_code)


@pytest.mark.parametrize("character", ["x", "@", "界"])
def test_a_large_evaluation_still_fits_a_comment(character: str) -> None:
    e = evaluation(character * 400)
    many = dataclasses.replace(
        e, measures=e.measures * 50, overlaps=e.overlaps * 50, gates=e.gates * 50, warnings=e.warnings * 100
    )
    text = markdown(many)
    assert len(text) < 65_536
    assert len(re.findall(r"… and \d+ more", text)) >= 3
    for heading in (
        "### Gates",
        "### Measures",
        "### Rank overlap",
        "### The queries that moved most",
        "Primary: ",
    ):
        assert f"\n{heading}" in text


def test_junit_counts_gates_and_tells_inconclusive_from_failed() -> None:
    e = evaluation()
    open_gate = dataclasses.replace(e.gates[0], verdict="inconclusive", name="left open")
    root = parsed(junit(dataclasses.replace(e, gates=(*e.gates, open_gate))))
    (suite,) = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("4", "1", "1")
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "contracts stay good": ["system-out"],
        "invoices stay precise": ["failure"],
        "nothing is lost": ["system-out"],
        "left open": ["error"],
    }
    (error,) = suite.iter("error")
    assert error.get("type") == "inconclusive"
    assert error.get("message") == open_gate.detail
    assert WARNING in (error.text or "")
    assert suite.get("timestamp") == "2026-11-23T04:05:06"


JUNIT_10 = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"failure", "error", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "system-out": (set(), set()),
    "system-err": (set(), set()),
}
"""The attributes and children of what is used of junit-10.xsd."""


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.one_of(st.just(HOSTILE), st.text(max_size=60)))
def test_junit_is_valid_whatever_the_names_are(name: str) -> None:
    text = junit(evaluation(name, queries=30))
    assert has_no_control_character(text)
    root = parsed(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = JUNIT_10[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= children
    for element in root.iter("testsuite"):
        assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.text(max_size=60))
def test_pages_are_well_formed_whatever_the_names_are(name: str) -> None:
    e = evaluation(name, queries=30)
    Page(html(e))
    Page(MarkdownIt("gfm-like").render(markdown(e)))


def test_an_evaluation_with_nothing_in_it_has_its_reports() -> None:
    bare = dataclasses.replace(
        evaluation(), measures=(), overlaps=(), gates=(), verdict=None, queries=(), unknown_targets=(), warnings=(),
        judges=(), level=None, judged_queries=0,
    )  # fmt: skip
    assert "No gates" in Page(html(bare)).text
    assert markdown(bare).startswith("## No gates: ")
    assert parsed(junit(bare)).get("tests") == "0"


def texts(svg: str, tag: str = "text") -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}{tag}")]


def test_differences_are_drawn_with_their_intervals() -> None:
    rows = [
        MeasureResult("P@10", "all", 50, 0.5, 0.6, 0.1, 0.05, 0.15, 0.01),
        MeasureResult("P@10", "s", 20, 0.5, 0.4, -0.1, -0.3, 0.1, 0.2),
        MeasureResult("P@10", "one", 1, 0.5, 0.5, 0.0, None, None, None),
    ]
    svg = difference_chart(rows, 0.95)
    circles = list(parsed(svg).iter(f"{SVG}circle"))
    places = [float(circle.attrib["cx"]) for circle in circles]
    assert places[1] < places[2] < places[0]  # −0.1, 0, +0.1
    assert places[0] - places[2] == pytest.approx(places[2] - places[1], abs=0.1)
    assert [circle.attrib["fill"] == "none" for circle in circles] == [False, True, True]
    marks = list(parsed(svg).iter(f"{SVG}g"))
    assert [len(list(mark.iter(f"{SVG}line"))) for mark in marks] == [3, 3, 0]
    whisker = next(marks[0].iter(f"{SVG}line"))
    middle = (float(whisker.attrib["x1"]) + float(whisker.attrib["x2"])) / 2
    assert middle == pytest.approx(places[0], abs=0.1)
    assert "95 %" in texts(svg, "desc")[0]
    assert "… and 10 more segments, not drawn" in texts(difference_chart(rows[:1] * 50, 0.95))
    # All the same, or nothing at all, is drawn as well.
    assert "0" in texts(difference_chart([dataclasses.replace(rows[2], difference=0.0)], 0.95))
    assert difference_chart([], 0.95)


def test_distributions_are_drawn_from_their_histograms() -> None:
    row = OverlapResult("rbo", "all", 10, 0.55, (0, 0, 0.2, 0.5, 0.8, 1, 1), (4, 0, 0, 0, 2, 0, 0, 0, 0, 4))
    bars = list(parsed(distribution_chart([row], "RBO")).iter(f"{SVG}rect"))
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert len(heights) == 10
    assert heights[0] == heights[9] == 2 * heights[4] > 0
    assert heights[1] == 0
    tau = distribution_chart([dataclasses.replace(row, measure="kendall_tau")], "tau")
    assert texts(tau, "title")[1:3] == ["-1.0 to -0.8: 4 queries", "-0.8 to -0.6: 0 queries"]
    assert "−1" in texts(tau)


def test_every_query_has_a_bar_until_they_are_too_many() -> None:
    e = evaluation(queries=240)
    svg = change_chart(e.queries, "P@10")
    bars = list(parsed(svg).iter(f"{SVG}rect"))
    changes = sorted((q.candidate["P@10"] - q.primary["P@10"] for q in e.queries if q.primary), reverse=True)
    assert len(bars) == 240
    largest = max(float(bar.attrib["height"]) for bar in bars)
    scale = largest / max(map(abs, changes))
    for bar, change in zip(bars, changes, strict=True):
        assert float(bar.attrib["height"]) == pytest.approx(abs(change) * scale, abs=0.02)
    assert f"▲ {sum(change > 0 for change in changes)} better" in texts(svg)
    many = change_chart(evaluation(queries=1_000).queries, "P@10")
    assert len(list(parsed(many).iter(f"{SVG}rect"))) == 334
    assert "A bar is the mean of 3 queries." in texts(many, "desc")[0]
