"""What a backfill will take, before it starts: chunks, tokens, money, time, disk and memory, and what would stop it.

Nothing is changed, and nothing large is counted or scanned: texts are known from a sample (core.backfill.plan.sample),
speed from a probe whose cost is bounded (core.backfill.plan.probe), disk from the layout of pages
(core.backfill.plan.footprint).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from revector.core.backfill.job.job import ENDED, find_job
from revector.core.backfill.plan.findings import PlanFacts, PlanFinding, find
from revector.core.backfill.plan.footprint import Footprint, estimate_storage
from revector.core.backfill.plan.probe import PROBE_TEXTS, Offer, Probe, make_offer, run_probe, usable_cores
from revector.core.backfill.plan.sample import SAMPLE, Demand, Estimate, measure_demand, reading
from revector.core.encoders import runs_here
from revector.core.errors import RevectorError, UnreachableError, UsageError
from revector.core.retrieval import open_version_encoder

if TYPE_CHECKING:
    from revector.core.database import Connection, Progress
    from revector.core.encoders import Encoder
    from revector.core.registry import Version
    from revector.core.settings import Settings

_BATCH_SIZE = 256
_COMPUTES_HERE = 0.25
"""An encoder that uses a core for a larger share of its time is not waiting for a service."""
FEWEST_SAMPLED = 30
"""With fewer, the normal approximation of a mean is poor."""


@dataclass(frozen=True)
class Plan:
    """What a backfill will take, and what would make it fail."""

    version_key: Annotated[str, "the version that would be backfilled"]
    encoder: Annotated[str, "its encoder"]
    demand: Demand
    price: Annotated[float | None, "US dollars per million tokens; null when nobody said, 0 when it runs here"]
    cost_usd: Annotated[Estimate | None, "of the whole backfill"]
    offer: Offer | None
    probe: Annotated[Probe | None, "what was measured; null without a probe"]
    workers: Annotated[int, "that `seconds` is for"]
    one_worker: Annotated[Estimate | None, "seconds with only one"]
    seconds: Annotated[Estimate | None, "of the whole backfill; null without a probe"]
    storage: Annotated[Footprint, "of the complete version"]
    findings: Annotated[tuple[PlanFinding, ...], "in the order in which they would go wrong"]

    @property
    def rate(self) -> Annotated[float | None, "chunks a second of all workers"]:
        """Chunks a second of all workers, from the estimate of `seconds`."""
        if self.seconds is None or self.seconds.estimate <= 0:
            return None
        return self.demand.to_embed / self.seconds.estimate

    @property
    def ready(self) -> Annotated[bool, "whether nothing would make it fail"]:
        """Whether nothing was found that would make it fail."""
        return all(finding.verdict != "fail" for finding in self.findings)

    @property
    def unreachable(self) -> bool:
        """Whether the encoder could not be opened or did not answer."""
        return self.probe is not None and isinstance(self.probe.error, UnreachableError)


@contextlib.contextmanager
def encoder_or_error(
    version: Version, opener: Callable[[str], Encoder] | None = None
) -> Iterator[Encoder | RevectorError]:
    """The version's encoder, closed afterwards, or the error: the rest of the plan is useful anyway."""
    found: Encoder | RevectorError
    try:
        found = open_version_encoder(version, opener)
    except RevectorError as error:
        found = error
    try:
        yield found
    finally:
        if not isinstance(found, RevectorError):
            found.close()


def make_plan(
    connection: Connection,
    version: Version,
    encoder: Encoder | RevectorError,
    settings: Settings,
    *,
    workers: int = 1,
    sample: int = SAMPLE,
    probe_texts: int = PROBE_TEXTS,
    on_offer: Callable[[Offer], None] | None = None,
    on_progress: Progress | None = None,
) -> Plan:
    """Plan the backfill of a version with its encoder, or with the error that opening the encoder raised.

    With `probe_texts` 0 nothing is sent to the encoder. Otherwise `on_offer` is first called with the amount and
    its cost, and may raise to prevent it. A bad answer from the encoder becomes a finding, not an error. Raises
    UsageError for fewer than 30 sampled chunks or less than one worker.
    """
    if sample < FEWEST_SAMPLED:
        raise UsageError(f"A sample of {sample} chunks is too small.", f"Use {FEWEST_SAMPLED} or more.")
    if workers < 1:
        raise UsageError(f"{workers} workers cannot run a backfill.", "Use 1 or more.")
    progress = on_progress or (lambda _step, _done, _total: None)
    opened = None if isinstance(encoder, RevectorError) else encoder
    progress("sampling chunks", 0, 0)
    demand = measure_demand(connection, version, opened, sample=sample)
    offer, probe = None, None
    if isinstance(encoder, RevectorError):
        probe = Probe.failed(encoder)
    elif probe_texts > 0:
        batch_size = settings.batch_size or _BATCH_SIZE
        offer = make_offer(demand, encoder, batch_size=batch_size, texts=probe_texts)
        if on_offer is not None:
            on_offer(offer)
        probe = run_probe(connection, version, encoder, demand, offer, on_progress=progress)
    progress("looking at the server", 0, 0)
    price = opened.price if opened is not None else None
    cost = cost_of(demand, price)
    with reading(connection):
        storage = estimate_storage(connection, version, demand.chunks)
        findings = find(connection, PlanFacts(version, opened, demand, probe, cost, price, storage, settings))
    return Plan(
        version_key=version.version_key,
        encoder=version.encoder_spec or version.encoder_name,
        demand=demand,
        price=price,
        cost_usd=cost,
        offer=offer,
        probe=probe,
        workers=workers,
        one_worker=_seconds(demand, probe, 1),
        seconds=_seconds(demand, probe, workers),
        storage=storage,
        findings=tuple(findings),
    )


def cost_of(demand: Demand, price: float | None) -> Estimate | None:
    """The dollars for the tokens still to be encoded; None when price or tokens are unknown."""
    if price is None or demand.tokens is None:
        return None
    return demand.tokens.times(price / 1e6)


def cost_to_begin(
    connection: Connection, version: Version, opener: Callable[[str], Encoder] | None = None
) -> str | None:
    """`confirm_cost` for a new backfill; None also for one that continues, and for an encoder without a provider.

    The encoder is opened (by `opener` if given) only if it may cost something.
    """
    if version.encoder_spec and runs_here(version.encoder_spec):
        return None
    job = find_job(connection, version)
    if job is not None and job.state not in ENDED:
        return None
    with contextlib.closing(open_version_encoder(version, opener)) as encoder:
        return confirm_cost(connection, version, encoder)


def confirm_cost(connection: Connection, version: Version, encoder: Encoder) -> str | None:
    """The text to confirm before a backfill that costs money; None when it costs nothing.

    `About 1.2 M tokens, $0.02–0.03 at $0.02 per million.` Says so when the price is unknown, since that may cost
    money too. Uses a sample and no probe: takes well under a second and sends nothing to the encoder.
    """
    if encoder.price == 0:
        return None
    demand = measure_demand(connection, version, encoder)
    if demand.to_embed == 0:
        return None
    if demand.tokens is None:
        return f"The tokens of {demand.to_embed:,} chunks could not be estimated."
    tokens = f"About {short_number(demand.tokens.estimate)} tokens"
    cost = cost_of(demand, encoder.price)
    if cost is None or encoder.price is None:
        return f"{tokens}; no price is known for {encoder.name}."
    return f"{tokens}, {dollars(cost)} at ${encoder.price:g} per million."


def short_number(number: float) -> str:
    """`950`, `12,400`, `1.2 M`, `58 M`, `3.1 G`."""
    for limit, unit in ((1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:,.{1 if number < 10 * limit else 0}f} {unit}"
    return f"{number:,.0f}"


def dollars(cost: Estimate) -> str:
    """`$0.02–0.03`, or one figure when both ends look the same."""
    places = 2 if cost.high >= 0.01 or cost.high == 0 else 4 if cost.high >= 0.0001 else 6
    low, high = (f"{value:,.{places}f}" for value in (cost.low, cost.high))
    return f"${low}" if low == high else f"${low}–{high}"


def _seconds(demand: Demand, probe: Probe | None, workers: int) -> Estimate | None:
    """The time of the backfill itself, without the index.

    Reading, encoding and writing overlap, so the slowest sets the pace; where they share cores, the upper limit is
    their sum. More workers encode faster as long as cores are idle; a remote service is held up only by its own
    limits. One server reads and writes for all workers, including the copies for repeated texts.
    """
    if demand.to_embed == 0:
        return Estimate(0.0, 0.0, 0.0)
    if probe is None or probe.encode is None:
        return None
    # A local encoder needs at least one core, even if it got less on a busy machine.
    cores = max(1.0, probe.cores) if probe.cores > _COMPUTES_HERE else max(probe.cores, 1e-9)
    speedup = min(workers, max(1.0, usable_cores() / cores))
    server = [demand.to_embed / rate for rate in (probe.read, probe.write) if rate]
    return Estimate(
        max([demand.to_encode.estimate / (probe.encode.estimate * speedup), *server]),
        max([demand.to_encode.low / (probe.encode.high * speedup), *server]),
        sum([demand.to_encode.high / (probe.encode.low * speedup), *server]),
    )
