"""`revector backfill plan`: what a backfill will take, and what would make it fail, before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revector.console.commands.options import Json, Key
from revector.console.commands.verdicts import verdict_lines
from revector.console.context import aligned, answer, context_of, counted, fold, note, open_aloud
from revector.console.progress import progress_bar

if TYPE_CHECKING:
    from revector.core.backfill.plan.plan import Plan
    from revector.core.backfill.plan.probe import Offer
    from revector.core.registry import Version

PLAN = (
    "core.backfill.plan.plan:Plan",
    "core.backfill.plan.sample:Demand",
    "console.commands.backfill.plan:PlanSample",
)


@dataclass(frozen=True)
class Sample:
    """The sample that the plan is based on."""

    chunks: Annotated[int, "that were looked at"]
    exact: Annotated[bool, "whether that was every one"]


@dataclass(frozen=True)
class PlanSample:
    """The sample of a plan."""

    repeated: Annotated[int, "chunks that take the vector of the same text"]
    sample: Annotated[Sample, "what the rest was concluded from"]


def plan(
    context: typer.Context,
    key: Key,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Send nothing to the encoder: no time.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Estimate the time for this many.")
    ] = 1,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=30, max=100_000, help="Chunks to sample.")
    ] = 400,
    as_json: Json = False,
) -> None:
    """Chunks, tokens, cost, time, disk and memory of a backfill, and what would make the backfill fail.

    Changes nothing. The probe encodes some chunks; with an encoder that has a price it costs a cent at most.
    Exit status 1 when something would make it fail, 4 when the encoder cannot be reached.
    """
    from revector.core.backfill.plan.plan import encoder_or_error, make_plan
    from revector.core.backfill.plan.probe import PROBE_TEXTS
    from revector.screens.wording.plan import offer_words

    own = context_of(context)
    with own.version(key) as (connection, version), encoder_or_error(version, open_aloud) as encoder:

        def say(offer: Offer) -> None:
            if not isinstance(encoder, Exception) and encoder.price != 0 and offer.texts:
                note(f"{offer_words(offer, version.encoder_name)}; --no-probe skips it.")

        with progress_bar() as progress:
            found = make_plan(
                connection,
                version,
                encoder,
                own.settings,
                workers=workers,
                sample=sample,
                probe_texts=0 if no_probe else PROBE_TEXTS,
                on_offer=say,
                on_progress=progress,
            )
    answer(plan_document(found), as_json, _lines(found, version))
    if found.unreachable:
        raise typer.Exit(4)
    if not found.ready:
        raise typer.Exit(1)


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan in JSON, with estimates rounded to their precision."""
    from revector.core.keys import document

    demand = plan.demand
    sample = PlanSample(round(demand.repeated.estimate), Sample(demand.sampled, demand.exact))
    found: dict[str, Any] = document(plan) | document(demand) | document(sample)
    places = {"characters": None, "tokens": None, "cost_usd": 6, "seconds": 3, "one_worker": 3}
    return found | {
        name: found[name] and {part: round(value, places[name]) for part, value in found[name].items()}
        for name in places
    }


# -- for people --------------------------------------------------------------------------------------------


def _lines(plan: Plan, version: Version) -> Iterator[str]:
    from revector.screens.wording.plan import plan_figures

    column = f"{version.storage}({version.dimensions})"
    yield f"{plan.version_key}: {plan.encoder}, {column}, {version.distance_metric}"
    yield ""
    yield from aligned(plan_figures(plan), "", fold(), header=False)
    yield ""
    yield from verdict_lines([(one.verdict, one.name, one.detail, one.remedy) for one in plan.findings])
    yield ""
    if plan.ready:
        yield f"Ready to run: revector backfill run {plan.version_key}"
    else:
        failed = sum(finding.verdict == "fail" for finding in plan.findings)
        yield f"{counted(failed, 'finding')} would make the backfill fail."
