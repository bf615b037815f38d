"""An evaluation as one HTML page for whoever signs: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from typing import Any

from revector.core.evaluation.document import Evaluation
from revector.core.evaluation.reports import charts, wording

_MOST_QUERIES = 100
_MOST_TARGETS = 200
_OVERLAPS = {"overlap": "overlap@{k}", "rbo": "RBO", "jaccard": "Jaccard", "kendall_tau": "Kendall's tau"}
_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", None: ""}
"""Not emoji, which take a font that not every machine has."""
_CHARTED = ("overlap", "rbo")


def html(e: Evaluation) -> str:
    """The page. Everything from outside is escaped, by Jinja2 in text and by the XML writer in charts."""
    import jinja2

    def shown(value: Any) -> Any:
        return wording.visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("revector.core.evaluation.reports", "."),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(wording, name)
        for name in ("number", "signed", "interval", "p_value", "percent", "run_settings", "shortened")
    }
    names = {measure: name.format(k=e.k) for measure, name in _OVERLAPS.items()}
    by_measure = {
        name: [row for row in e.measures if row.measure == name]
        for name in dict.fromkeys(row.measure for row in e.measures)
    }
    page = environment.get_template("page.html.j2")
    return (
        page.render(
            e=e,
            signs=_SIGNS,
            words=wording.WORDS,
            caveats=wording.caveats(e),
            overlap_names=names,
            difference_charts={
                measure: charts.difference_chart(rows, e.confidence) for measure, rows in by_measure.items()
            },
            overlap_charts={
                names[measure]: charts.distribution_chart(rows, names[measure])
                for measure in _CHARTED
                if (rows := [row for row in e.overlaps if row.measure == measure])
            },
            change_charts={measure: charts.change_chart(e.queries, measure) for measure in by_measure},
            measures=list(by_measure),
            queries=e.queries[:_MOST_QUERIES],
            unknown_targets=e.unknown_targets[:_MOST_TARGETS],
        )
        + "\n"
    )
