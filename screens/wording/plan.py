"""The figures of a plan in words, for the command line and for tab 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from revector.core.backfill.plan.plan import dollars, short_number
from revector.screens.wording.text import counted, duration, size

if TYPE_CHECKING:
    from revector.core.backfill.plan.plan import Plan
    from revector.core.backfill.plan.probe import Offer
    from revector.core.backfill.plan.sample import Estimate


def plan_figures(plan: Plan) -> Iterator[tuple[str, str]]:
    """Names and figures, line by line; a line without a name continues the previous one."""
    demand, storage = plan.demand, plan.storage
    missing = f"{demand.to_embed:,} of {demand.chunks:,} to be embedded"
    if demand.repeated.estimate:
        count = f"{'' if demand.exact else 'about '}{demand.repeated.estimate:,.0f}"
        missing += f"; {count} {'takes' if count == '1' else 'take'} the vector of another with the same text"
    yield "chunks", missing
    yield "text", _text(plan)
    yield "cost", _cost(plan)
    yield "time", _time(plan)
    if plan.probe is not None and plan.probe.encode is not None:
        yield "", _measured(plan)
    yield (
        "disk",
        f"table {size(storage.table)}, primary key {size(storage.primary_key)}, index {size(storage.index)}",
    )
    free = "unknown from here" if storage.free is None else f"{size(storage.free)} free"
    yield "", f"{size(storage.wal)} of WAL to be written; {size(storage.needed)} needed at once, {free}"
    yield "memory", f"{size(storage.index_memory)} of maintenance_work_mem to build the index"


def offer_words(offer: Offer, encoder: str) -> str:
    """`The probe sends 100 texts, about 2,400 tokens, to openai:small for about $0.0001`, shown before sending."""
    cost = "at an unknown price"
    if offer.cost_usd is not None:
        cost = f"for about ${offer.cost_usd:.{4 if offer.cost_usd >= 0.0001 else 7}f}"
    return f"The probe sends {counted(offer.texts, 'text')}, about {offer.tokens:,} tokens, to {encoder} {cost}"


def _text(plan: Plan) -> str:
    demand = plan.demand
    if demand.characters is None:
        return "unknown: no chunk could be sampled"
    parts = []
    for found, thing in ((demand.tokens, "tokens"), (demand.characters, "characters")):
        if found is not None:
            spread = "" if demand.exact else f" ({short_number(found.low)}–{short_number(found.high)})"
            parts.append(f"{short_number(found.estimate)} {thing}{spread}")
    by = "counted" if demand.exact else f"from {counted(demand.sampled, 'sampled chunk')}"
    return f"{', '.join(parts)}; {by}"


def _cost(plan: Plan) -> str:
    if plan.price == 0:
        return "none: the encoder runs here, or its price is 0"
    if plan.price is None:
        return "unknown: the encoder has no price set"
    if plan.cost_usd is None:
        return f"unknown, at ${plan.price:g} per million tokens"
    return f"{dollars(plan.cost_usd)} at ${plan.price:g} per million tokens"


def _time(plan: Plan) -> str:
    if plan.seconds is None or plan.one_worker is None:
        return "unknown: not measured"
    if plan.demand.to_embed == 0:
        return "nothing to do"

    def shown(found: Estimate, workers: int) -> str:
        spread = f"{duration(found.estimate)} ({duration(found.low)} – {duration(found.high)})"
        return f"{spread} with {counted(workers, 'worker')}"

    both = shown(plan.one_worker, 1)
    if plan.workers > 1:
        both += f", {shown(plan.seconds, plan.workers)}"
    return f"{both}; then the index"


def _measured(plan: Plan) -> str:
    probe = plan.probe
    if probe is None or probe.encode is None:
        return ""
    at_once = f"{counted(probe.parallel, 'request')} at once" if probe.parallel > 1 else "one at a time"
    parts = [f"{probe.encode.estimate:,.0f} chunks/s encoded in batches of {probe.batch_size}, {at_once}"]
    parts += [f"{rate:,.0f} {done}" for rate, done in ((probe.read, "read"), (probe.write, "written")) if rate]
    return ", ".join(parts)
