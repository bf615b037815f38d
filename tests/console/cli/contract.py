"""The contract of --json, written out: the keys of every command's document, exactly.

tests/console/cli/program.py checks every document that a test reads against it, and test_contract.py checks the
help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

type_of = dict[str, Any]
"""A key, and what its value has in it: None (not looked into), keys, or keys in a list."""


def keys(names: str, **parts: Any) -> type_of:
    """Keys by their names, some of them with keys of their own."""
    return dict.fromkeys(names.split()) | parts


VERSION = keys("version_key encoder revision dimensions metric state active")
COUNTED = VERSION | keys("embedded missing")
INDEX = keys("version_key name exists valid bytes problem note")
DROPPED = keys("version_key dropped")
SERVER = keys("dsn schema server pgvector schema_revision embedded user read_only standby")
FINDING = keys("name verdict detail remedy")
HIT = keys("rank chunk_id semantic_key source_id chunk_no distance content metadata score vector_rank text_rank")
RESULT = keys("query version_key active hybrid where rerank encode_ms search_ms rerank_ms", hits=[HIT])
SIDE = keys("query version_key encode_ms search_ms", hits=[HIT | keys("primary_rank candidate_rank grade")])
OVERLAP = keys("k overlap jaccard rbo kendall_tau")
STATUS = keys(
    "version_key state total done failed pending rate eta_s throttle workers spent_usd error started_at finished_at "
    "throttle_since eta_low_s eta_high_s waiting run_started_at run_done",
    detail=keys(
        "settings measured",
        workers=[
            keys("id client engine pid alive started_at seen_at ended_at done batch_size throttle error"),
        ],
        cells=[keys("first_chunk_id last_chunk_id ranges finished running failed")],
        proofs=[keys("at missing embedded dead_letters seconds")],
        transitions=[keys("at from_state to_state reason client")],
    ),
)
ESTIMATE = keys("estimate low high")
CHECK = keys("version_key ready", guards=[FINDING | keys("waived")])
FLIP = keys("action version_key previous seconds missing waited at made_by changed")
REQUEST = keys(
    "id version_key requested_by client requested_at expires_at reason basis waivers guards needed void_because "
    "expired ended ended_at ended_why state",
    approvals=[keys("approved_by approved_at client comment counts")],
)
SEARCHES = keys("searches empty_rate error_rate median_ms p95_ms p99_ms")
BREACH = keys("limit detail")
SHADOW = keys("shadow candidate sample query_text retention_days started_at started_by reason stopped_at")
COUNTS = keys("seen drawn done dropped failed", breaker=[keys("process since why")])
LATENCY = keys("p50 p95 p99")
AGREEMENT = keys(
    "first second level pairs exact kappa grades confusion binarised scales unplaced most_disagreeing",
    segments=[keys("segment pairs exact kappa")],
)
RUN = keys(
    "id query_set query_set_revision version_key encoder encoder_revision k exact hybrid ef_search index_settings "
    "sample chunks queries state started_at finished_at seconds created_by"
)
MEASURE = keys("measure segment queries primary candidate difference low high p_value")
EVALUATION = keys(
    "verdict id query_set query_set_revision judges level k rbo_p confidence judged_queries unjudged_queries "
    "judgements unknown_targets warnings created_at created_by index_recall",
    measures=[MEASURE],
    gates=[
        keys(
            "name kind measure segment verdict queries value low high bound confidence p_value further_queries detail"
        )
    ],
    primary=RUN,
    candidate=RUN,
    overlaps=[keys("measure segment queries mean quantiles histogram")],
    queries=[
        keys(
            "id text segment judged primary candidate primary_unjudged candidate_unjudged overlap jaccard rbo "
            "kendall_tau"
        )
    ],
)
LOADED = keys("version_key source rows stored present unknown duplicates bad compared missing state")
THRESHOLD = keys("kept primary candidate if_copied")

ERROR = keys("", error=keys("problem remedy kind"))
CONTRACT: dict[str, type_of | Sequence[type_of]] = {
    "demo": keys(
        "chunks seconds",
        versions=[COUNTED],
        shadow=keys("queries overlap rbo"),
        evaluation=[MEASURE | keys("overlap rbo")],
        cutover=FLIP | keys("", guards=[FINDING | keys("waived")], search=RESULT),
        rollback=FLIP | keys("", search=RESULT),
    ),
    "db up": SERVER,
    "db down": keys("stopped"),
    "db status": SERVER,
    "db upgrade": SERVER,
    "db grant": keys("role right granted"),
    "db roles": keys("role", rights=keys("view operate approve administer"), granted=[keys("role right login")]),
    "ingest": keys(
        "documents chunks inserted unchanged deleted rejected cleaned carried empty left_out left_out_kinds replaced"
    ),
    "versions add": VERSION,
    "versions adopt": VERSION,
    "versions change": VERSION,
    "encoders allow": keys("host key_env allowed"),
    "encoders deny": keys("host key_env allowed"),
    "encoders list": keys("", hosts=[keys("host key_env added_at created_by")]),
    "versions list": keys("", versions=[COUNTED]),
    "versions show": COUNTED
    | keys(
        "failed id encoder_name encoder_spec storage index_settings created_at created_by notes completed_at proven_at "
        "activated_at deactivated_at"
    ),
    "versions retire": VERSION,
    "versions drop": DROPPED,
    "export": keys("version_key format texts repeated files"),
    "load": LOADED | keys("not_compared", without=[keys("id error")], files=[LOADED]),
    "backfill plan": keys(
        "version_key encoder chunks missing failed to_embed repeated price workers rate ready",
        sample=keys("chunks exact"),
        characters=ESTIMATE,
        tokens=ESTIMATE,
        cost_usd=ESTIMATE,
        seconds=ESTIMATE,
        one_worker=ESTIMATE,
        probe=keys("texts tokens cost_usd batch_size parallel read write cores", encode=ESTIMATE),
        storage=keys("table primary_key index wal index_memory needed free"),
        findings=[FINDING],
    ),
    "backfill run": STATUS,
    "backfill resume": STATUS,
    "backfill status": STATUS,
    "backfill pause": STATUS,
    "backfill cancel": STATUS,
    "backfill set": keys("version_key settings measured"),
    "backfill failures": keys(
        "version_key queued",
        failures=[keys("chunk_id source_id chunk_no error attempts failed_at waived_reason")],
    ),
    "index plan": keys("version_key name kind m ef_construction rows memory_bytes statement"),
    "index build": INDEX,
    "index check": INDEX | keys("used node"),
    "index set": keys("version_key m ef_construction ef_search"),
    "index prewarm": keys("version_key how pages seconds share left_out"),
    "index drop": DROPPED,
    "search": RESULT,
    "compare": keys(
        "query overlap_by_depth",
        primary=SIDE,
        candidate=SIDE,
        overlap=OVERLAP,
        judged=keys("query_set query_id segment level judges relevant", ndcg=keys("k primary candidate")),
    ),
    "serving": keys(
        "", processes=[keys("pid host program version_key pinned since behind_s pinned_to late gone")]
    ),
    "queries import": keys(
        "name revision queries added changed removed unchanged judgements segments judge skipped unknown_targets"
    ),
    "queries list": keys(
        "", query_sets=[keys("name revision queries segments judgements judges created_by updated_at")]
    ),
    "queries show": keys(
        "name revision queries judgements",
        segments=[keys("segment queries judged")],
        judges=[keys("judge kind judgements chunks")],
        unknown_targets=[keys("query kind target")],
    ),
    "queries export": keys("name format files queries judgements judges"),
    "queries drop": keys("name dropped"),
    "queries agreement": keys("name", agreements=[AGREEMENT]),
    "judge": keys("name judge spec revision primary candidate k pairs made kept gone", agreement=AGREEMENT),
    "evaluate": EVALUATION,
    "evaluations list": keys(
        "", evaluations=[keys("id query_set primary candidate verdict created_at created_by")]
    ),
    "evaluations runs": keys("", runs=[RUN]),
    "evaluations show": EVALUATION,
    "evaluations compare": EVALUATION,
    "thresholds": keys(
        "query_set primary candidate score queries depth results", rows=[THRESHOLD], asked=THRESHOLD
    ),
    "shadow start": SHADOW,
    "shadow stop": SHADOW,
    "shadow status": (SHADOW | COUNTS | keys("running"), keys("running")),
    "shadow report": SHADOW
    | COUNTS
    | keys(
        "queries first_at last_at overlap jaccard rbo kendall_tau failures",
        histogram=[keys("overlap queries")],
        primary_ms=LATENCY,
        candidate_ms=LATENCY,
        segments=[keys("segment queries overlap rbo", primary_ms=LATENCY, candidate_ms=LATENCY)],
        worst=[
            keys("id at query sha256 segment k primary_version overlap rbo primary_keys candidate_keys"),
        ],
        errors=[keys("error queries")],
    ),
    "shadow judge": keys("query_set added there_already without_text"),
    "cutover check": CHECK,
    "cutover run": (FLIP, CHECK | keys("previous dry_run statements")),
    "cutover request": REQUEST,
    "cutover approve": REQUEST,
    "cutover withdraw": REQUEST,
    "cutover requests": keys("", requests=[REQUEST]),
    "cutover guards": keys("", guards=[keys("name about settings in_flip waivable")]),
    "cutover policy": keys("settings"),
    "cutover watch": keys(
        "",
        watch=keys(
            "cutover_id version_key previous began until read_at missing overlap_before overlap compared way_back",
            before=SEARCHES,
            since=SEARCHES,
            breaches=[BREACH],
            unjudged=[BREACH],
        ),
        rolled_back=FLIP,
        would_have_rolled_back=keys("at version_key reason"),
    ),
    "cutover history": keys(
        "",
        cutovers=[
            keys(
                "id at action from_version to_version made_by reason request_id requested_by approved_by waived "
                "watch_until watch_ended_at watch_ended_why"
            )
        ],
    ),
    "rollback": FLIP,
    "log": keys("", entries=[keys("id at actor client application action version_key outcome reason detail")]),
    "doctor": keys("ok", findings=[keys("severity check object detail remedy sql")]),
    "info": keys("platform packages database dsn schema data logs crashes", settings=[keys("name value source")]),
}


def command_of(arguments: Sequence[object]) -> str:
    """The command in a command line; '' when it has no document."""
    words = [str(one) for one in arguments]
    for start in range(len(words)):
        for count in (2, 1):
            if (command := " ".join(words[start : start + count])) in CONTRACT:
                return command
    return ""


def paths(shape: type_of | Sequence[type_of], path: str = "") -> Iterator[str]:
    """Every key with its place, such as `hits[].rank`; of several shapes those of all."""
    if not isinstance(shape, dict):
        for one in shape:
            yield from paths(one, path)
        return
    for name, part in shape.items():
        yield f"{path}{name}"
        if part is not None:
            inner, place = (part[0], "[]") if isinstance(part, list) else (part, "")
            yield from paths(inner, f"{path}{name}{place}.")


def hold_to_contract(command: str, document: dict[str, Any]) -> None:
    """Assert that a document and its parts have exactly the keys of its command, or of an error."""
    shapes = ERROR if document.keys() == {"error"} else CONTRACT[command]
    choices = [shapes] if isinstance(shapes, dict) else list(shapes)
    fitting = [shape for shape in choices if shape.keys() == document.keys()]
    assert fitting, f"{command}: {sorted(document.keys() ^ choices[0].keys())} are not in both"
    _hold(document, fitting[0], command)


def _hold(found: Any, shape: Any, where: str) -> None:
    if shape is None or found is None:
        return
    if isinstance(shape, list):
        assert isinstance(found, list), where
        for one in found:
            _hold(one, shape[0], f"{where}[]")
        return
    assert found.keys() == shape.keys(), f"{where}: {sorted(found.keys() ^ shape.keys())} are not in both"
    for name, part in shape.items():
        _hold(found[name], part, f"{where}.{name}")
