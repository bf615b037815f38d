"""An evaluation as JUnit XML, one test case for each gate, in the dialect of Jenkins' xUnit plugin (junit-10.xsd).

A failed gate is a `failure`. An inconclusive one is an `error`, JUnit's word for a test without a result: GitLab,
Jenkins and GitHub actions count it separately and show it in red. `skipped` would look harmless, and the cutover
justified.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC

from revector.core.evaluation.document import Evaluation, GateResult
from revector.core.evaluation.reports.wording import caveats, interval, number, p_value, signed
from revector.core.text import printable


def junit(e: Evaluation) -> str:
    """The XML document. Caveats are in the suite's output and in every red gate."""
    counts = {
        "tests": str(len(e.gates)),
        "failures": str(sum(gate.verdict == "fail" for gate in e.gates)),
        "errors": str(sum(gate.verdict == "inconclusive" for gate in e.gates)),
    }
    seconds = f"{e.primary.seconds + e.candidate.seconds:.3f}"
    name = printable(f"{e.candidate.version_key} against {e.primary.version_key} on {e.query_set}")
    root = ET.Element("testsuites", {"name": "revector evaluate", **counts, "time": seconds})
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": name,
            **counts,
            "skipped": "0",
            "time": seconds,
            "timestamp": f"{e.created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(e).items():
        ET.SubElement(properties, "property", {"name": printable(key), "value": printable(value)})
    notes = caveats(e)
    for gate in e.gates:
        _add_case(suite, e, gate, notes)
    ET.SubElement(suite, "system-out").text = _measures(e)
    ET.SubElement(suite, "system-err").text = "\n".join(notes)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ET.Element, e: Evaluation, gate: GateResult, notes: tuple[str, ...]) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        # Jenkins and GitLab group by class; a dot in a name would open a package.
        {"classname": printable(e.query_set).replace(".", "·"), "name": printable(gate.name), "time": "0"},
    )
    detail = printable(gate.detail)
    if gate.verdict == "pass":
        ET.SubElement(case, "system-out").text = detail
        return
    kind = "failure" if gate.verdict == "fail" else "error"
    red = ET.SubElement(case, kind, {"type": gate.verdict, "message": detail})
    red.text = "\n".join((detail, *notes))


def _properties(e: Evaluation) -> dict[str, str]:
    found = {
        "evaluation": str(e.id),
        "verdict": e.verdict or "none",
        "query_set": e.query_set,
        "query_set_revision": e.query_set_revision,
        "judges": ", ".join(e.judges),
        "confidence": f"{e.confidence:g}",
        "judged_queries": str(e.judged_queries),
        "unjudged_queries": str(e.unjudged_queries),
        "unknown_targets": str(len(e.unknown_targets)),
    }
    for role, run in (("primary", e.primary), ("candidate", e.candidate)):
        found[role] = run.version_key
        found[f"{role}_run"] = str(run.id)
        found[f"{role}_encoder"] = f"{run.encoder} {run.encoder_revision}"
    for result in e.measures:
        found[f"{result.measure}[{result.segment}]"] = f"{result.primary:.6f} {result.candidate:.6f}"
    return found


def _measures(e: Evaluation) -> str:
    return "\n".join(
        printable(
            f"{row.measure} {row.segment} ({row.queries}): {number(row.primary)} -> {number(row.candidate)}, "
            f"{signed(row.difference)} ({interval(row.low, row.high)}), p {p_value(row.p_value)}"
        )
        for row in e.measures
    )
