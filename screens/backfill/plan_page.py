"""The plan of a backfill on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from revector.core.errors import RevectorError
from revector.core.registry import Version
from revector.screens.services import Services
from revector.screens.wording.facts import facts
from revector.screens.wording.text import printable
from revector.screens.wording.theme import SIGNS

if TYPE_CHECKING:
    from revector.core.backfill.plan.plan import Plan
    from revector.core.backfill.plan.probe import Offer

    Agreed = Offer | Literal[False] | None


def read_plan(services: Services, version: Version, agreed: Agreed = None) -> Plan | Offer:
    """Make the plan, or return the probe's offer if it may cost something and the user was not asked yet.

    `agreed` is the user's answer: that offer, or False for a plan without a probe.
    """
    from revector.core.backfill.plan.plan import encoder_or_error, make_plan
    from revector.core.backfill.plan.probe import PROBE_TEXTS

    def ask(offer: Offer) -> None:
        if not agreed and not isinstance(encoder, RevectorError) and encoder.price != 0:
            raise _AskFirst(offer)

    try:
        with encoder_or_error(version) as encoder, services.connections.writing() as connection:
            return make_plan(
                connection,
                version,
                encoder,
                services.settings,
                workers=services.backfills.prepared(version.version_key).workers,
                # This is a new sample: send no more texts than were agreed to.
                probe_texts=0 if agreed is False else agreed.texts if agreed else PROBE_TEXTS,
                on_offer=ask,
            )
    except _AskFirst as asked:
        return asked.offer


class _AskFirst(Exception):  # noqa: N818  (no error: it ends the plan before anything is sent)
    def __init__(self, offer: Offer) -> None:
        super().__init__()
        self.offer = offer


def plan_page(plan: Plan) -> RenderableType:
    """The figures, and the findings below."""
    from revector.screens.wording.plan import plan_figures

    found = Text()
    for finding in plan.findings:
        mark, colour = SIGNS[finding.verdict]
        found.append(f"{mark} {finding.name}: ", colour)
        found.append(printable(finding.detail) + "\n")
        if finding.remedy:
            found.append(f"  {printable(finding.remedy)}\n", "dim")
    return Group(facts([(name, printable(words)) for name, words in plan_figures(plan)]), Text(), found)
