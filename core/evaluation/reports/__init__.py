"""Reports of an evaluation: JUnit XML for CI, Markdown for a pull request, an HTML page for an approver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from revector.core.evaluation.document import Evaluation

Kind = Literal["junit", "markdown", "html"]


def report(found: Evaluation, kind: Kind) -> str:
    """The evaluation as a report of that kind."""
    if kind == "junit":
        from revector.core.evaluation.reports.junit import junit

        return junit(found)
    from revector.core.evaluation.reports.evaluation import evaluation_page
    from revector.core.evaluation.reports.markdown import markdown

    return (
        markdown(evaluation_page(found, queries=10)) if kind == "markdown" else evaluation_page(found).document()
    )
