from __future__ import annotations

import json
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from revector.core.encoders import check_vectors, open_encoder, probe
from revector.core.encoders.static import TEXTS_AT_ONCE, TOKENS_AT_ONCE, StaticEncoder, _file, _token_vectors
from revector.core.errors import EncoderError, UnreachableError, UsageError
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache, open_version_encoder
from tests.versions import add

DATA = Path(__file__).parents[4] / "shared" / "data"


def slow_mean(text, dimensions=256, max_tokens=None):
    """The definition, one text and one token at a time."""
    tokenizer = Tokenizer.from_file(str(_file("tokenizers/l2_supercat_tokenizer_config.json")))
    tokenizer.encode_special_tokens = True
    tokens = tokenizer.encode(text.lower(), add_special_tokens=False).ids[:max_tokens]
    return np.mean([_token_vectors()[token].astype(np.float64) for token in tokens], axis=0)[:dimensions]


def slow_vector(text, dimensions=256, max_tokens=None):
    mean = slow_mean(text, dimensions, max_tokens)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("dimensions", [64, 128, 256])
def test_a_vector_is_the_mean_of_its_tokens_scaled_to_one(dimensions):
    encoder = open_encoder(f"static:wordllama-{dimensions}")
    texts = ["How do I rotate an API key?", "x", "Rotating credentials\nand a second line", "日本語 🜁"]
    vectors = encoder.encode_documents(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [slow_vector(text, dimensions) for text in texts], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_query(texts[0]), vectors[0], atol=1e-7)
    assert probe(encoder) == encoder.dimensions == dimensions


def test_texts_longer_than_a_slice_and_more_than_a_batch():
    long = " ".join(["the quick brown fox"] * TOKENS_AT_ONCE)
    texts = ["before", long, "", "after"] + [f"text number {n}" for n in range(TEXTS_AT_ONCE)]
    vectors = open_encoder("static:wordllama-64").encode_documents(texts)
    assert not vectors[2].any()
    for row in (0, 1, 3, 4, len(texts) - 1):
        np.testing.assert_allclose(vectors[row], slow_vector(texts[row], 64), atol=1e-5)


@given(st.lists(st.text(), max_size=8))
def test_a_vector_does_not_depend_on_its_neighbours(texts):
    encoder = open_encoder("static:wordllama-64")
    vectors = encoder.encode_documents(texts)
    assert vectors.shape == (len(texts), 64)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, encoder.encode_documents([text])[0], atol=1e-6)
        assert vector.any() == (not text.isspace() and text != "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_a_blank_text_gives_a_zero_vector_that_the_check_reports(blank):
    vectors = open_encoder("static:wordllama-64?document_prefix=passage:").encode_documents(["words", blank])
    with pytest.raises(EncoderError, match="text 2 of 2 is all zeros"):
        check_vectors(vectors, 2, 64)


def test_prefixes_go_before_their_own_kind():
    encoder = open_encoder("static:wordllama-64?document_prefix=passage:+&query_prefix=query:+")
    np.testing.assert_allclose(
        encoder.encode_documents(["a key"])[0], slow_vector("passage: a key", 64), atol=1e-6
    )
    np.testing.assert_allclose(encoder.encode_query("a key"), slow_vector("query: a key", 64), atol=1e-6)


def test_blanks_around_a_text_change_nothing():
    encoder = open_encoder("static:wordllama-64")
    np.testing.assert_array_equal(encoder.encode_query("  a key \n"), encoder.encode_query("a key"))


def test_capitals_change_nothing():
    encoder = open_encoder("static:wordllama-64")
    for text in ("how do i rotate an api key?", "ÜBER ŁÓDŹ"):
        expected = encoder.encode_query(text.lower())
        np.testing.assert_array_equal(encoder.encode_query(text.upper()), expected)
        np.testing.assert_array_equal(encoder.encode_documents([text.title()])[0], expected)


def test_a_version_of_an_older_revision_keeps_its_vectors(connection):
    """Before, capitals were encoded as they are."""
    (older,) = StaticEncoder.older_revisions()
    encoder = open_encoder(f"static:wordllama-64?revision={older}")
    assert encoder.revision == older
    tokens = Tokenizer.from_file(str(_file("tokenizers/l2_supercat_tokenizer_config.json")))
    ids = tokens.encode("Rotate an API key", add_special_tokens=False).ids
    mean = np.mean([_token_vectors()[token].astype(np.float64) for token in ids], axis=0)[:64]
    as_before = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(encoder.encode_query("Rotate an API key"), as_before, atol=1e-6)

    connection.execute(
        "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric, "
        "encoder_spec) VALUES ('old', 'static:wordllama-64', %s, 64, 'cosine', 'static:wordllama-64')",
        [older],
    )
    new = add(connection, "new")
    assert new.encoder_revision == f"{older}-lowercase"
    for version, expected in (
        (get_version(connection, "old"), as_before),
        (new, slow_vector("rotate an api key", 64)),
    ):
        for opened in (open_version_encoder(version), EncoderCache().encoder(version)):
            assert opened.revision == version.encoder_revision
            np.testing.assert_allclose(opened.encode_query("Rotate an API key"), expected, atol=1e-6)


def test_an_unknown_revision_is_named():
    with pytest.raises(UsageError, match="no revision of the static models 'l2_supercat-000000000000'"):
        open_encoder("static:wordllama-64?revision=l2_supercat-000000000000")


def test_normalise_false_leaves_the_mean():
    plain = open_encoder("static:wordllama-64?normalise=false").encode_query("rotate a key")
    np.testing.assert_allclose(plain, slow_mean("rotate a key", 64), atol=1e-5)
    assert np.linalg.norm(plain) != pytest.approx(1, abs=0.01)


def test_max_tokens_cuts_and_counts():
    encoder = open_encoder("static:wordllama-64?max_tokens=3")
    text = "one two three four five"
    assert encoder.max_tokens == 3
    assert encoder.count_tokens([text, "one", ""]) == 4
    np.testing.assert_allclose(encoder.encode_query(text), slow_vector(text, 64, 3), atol=1e-6)


def test_tokens_are_counted_with_the_prefix():
    assert open_encoder("static:wordllama-64").count_tokens(["hello world", "hello"]) == 3
    assert open_encoder("static:wordllama-64?document_prefix=hello+").count_tokens(["hello world"]) == 3
    assert open_encoder("static:wordllama-64").count_tokens([]) == 0


def test_a_document_that_spells_out_a_special_token_means_its_characters():
    encoder = open_encoder("static:wordllama-64")
    assert encoder.count_tokens(["</s>"]) > 1
    assert encoder.count_tokens(["<unk>"]) > 1


def test_what_it_says_of_itself():
    small, large = open_encoder("static:wordllama-64"), open_encoder("static:wordllama-256")
    assert (small.name, small.price, small.max_tokens) == ("static:wordllama-64", 0.0, None)
    assert small.revision == large.revision
    assert small.revision.startswith("l2_supercat-")
    assert np.shares_memory(small._token_vectors, large._token_vectors)
    small.close()
    assert large.encode_query("still here").any()


def test_an_unknown_model_is_named_with_the_near_ones():
    with pytest.raises(UsageError, match=r"no static model 'wordllama-265'.\nDid you mean wordllama-256"):
        open_encoder("static:wordllama-265")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(UnreachableError, match="package wordllama is missing"):
        _file("weights/l2_supercat_256.safetensors")


# The figures of shared/data/README.md.
@pytest.mark.skipif(not DATA.is_dir(), reason="the judged collections ../shared/data are not here")
@pytest.mark.parametrize(
    ("collection", "dimensions", "expected"),
    [("cranfield", 64, 0.219), ("cranfield", 256, 0.298), ("medline", 64, 0.549), ("medline", 256, 0.658)],
)
@pytest.mark.parametrize("written", [str, str.upper, str.title])
def test_it_ranks_judged_collections_as_well_as_it_should(collection, dimensions, expected, written):
    encoder = open_encoder(f"static:wordllama-{dimensions}")
    documents = [json.loads(line) for line in (DATA / collection / "corpus.jsonl").open()]
    matrix = encoder.encode_documents([f"{d['title']} {d['text']}" for d in documents])
    run = {}
    for query in map(json.loads, (DATA / collection / "queries.jsonl").open()):
        scores = matrix @ encoder.encode_query(written(query["text"]))
        run[query["_id"]] = {documents[i]["_id"]: float(scores[i]) for i in np.argsort(-scores)[:10]}
    qrels = {}
    for line in (DATA / collection / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query_id, document_id, grade = line.split("\t")
        qrels.setdefault(query_id, {})[document_id] = int(grade)
    measure = ir_measures.parse_measure("nDCG(dcg='exp-log2')@10")
    assert ir_measures.calc_aggregate([measure], qrels, run)[measure] == pytest.approx(expected, abs=0.002)
