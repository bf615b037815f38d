from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.core.encoders import EncoderSpec, open_encoder, parse_spec
from revector.core.errors import UsageError

texts = st.text().filter(lambda text: "@" not in text)


@given(
    model=texts.filter(bool),
    settings=st.dictionaries(st.sampled_from(["query_prefix", "document_prefix", "revision", "tokenizer"]), texts),
)
def test_any_spec_survives_its_own_text(model, settings):
    spec = EncoderSpec("openai", model, settings)
    assert parse_spec(str(spec)) == spec
    assert str(parse_spec(str(spec))) == str(spec)
    assert str(spec).isascii()


def test_canonical_text_is_sorted_and_stays_readable():
    text = "openai:text-embedding-3-small?key_env=MY_KEY&dimensions=512&base_url=http%3A%2F%2F127.0.0.1%3A8080/v1"
    spec = parse_spec(text)
    assert spec == EncoderSpec(
        "openai",
        "text-embedding-3-small",
        {"dimensions": "512", "base_url": "http://127.0.0.1:8080/v1", "key_env": "MY_KEY"},
    )
    assert str(spec) == (
        "openai:text-embedding-3-small?base_url=http://127.0.0.1:8080/v1&dimensions=512&key_env=MY_KEY"
    )


def test_blanks_pluses_and_question_marks():
    spec = parse_spec("sentence-transformers:/models/a b?query_prefix=query:+&document_prefix=a%2Bb%20=c?")
    assert spec.model == "/models/a b"
    assert spec.query_prefix == "query: "
    assert spec.document_prefix == "a+b =c?"
    assert parse_spec(str(EncoderSpec("static", "what?")) + "?normalise=false").model == "what?"


def test_common_settings():
    spec = parse_spec("static:wordllama-64?normalise=false&max_tokens=7")
    assert (spec.normalise, spec.max_tokens) == (False, 7)
    bare = parse_spec("static:wordllama-64")
    assert (bare.normalise, bare.max_tokens, bare.query_prefix, bare.document_prefix) == (True, None, "", "")


def test_a_spec_can_be_a_key_and_travel():
    spec = parse_spec("static:wordllama-64?normalise=false")
    assert {spec: 1}[EncoderSpec("static", "wordllama-64", {"normalise": "false"})] == 1
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("wordllama-64", "'wordllama-64' is not an encoder spec", "PROVIDER:MODEL"),
        ("static:", "'static:' is not an encoder spec", "PROVIDER:MODEL"),
        ("opneai:x", "no encoder provider 'opneai'", "openai"),
        ("openai:x?dimension=3", "no openai setting 'dimension'", "dimensions"),
        ("static:wordllama-64?batch_size=3", "no static setting 'batch_size'", "normalise"),
        ("openai:x?dimensions=3&dimensions=3", "'dimensions' is given twice", ""),
        ("openai:x?dimensions", "Setting 1 of the openai spec has no value", "NAME=VALUE"),
        ("openai:x?dimensions=512x", "dimensions is '512x'", "a whole number of at least 1"),
        ("openai:x?dimensions=0", "dimensions is '0'", "a whole number of at least 1"),
        ("openai:x?dimensions=0512", "dimensions is '0512'", "a whole number of at least 1"),
        ("openai:x?batch_size=2049", "batch_size is '2049'", "from 1 to 2048"),
        ("openai:x?parallel=0", "parallel is '0'", "from 1 to 64"),
        ("openai:x?parallel=65", "parallel is '65'", "from 1 to 64"),
        ("openai:x?requests_per_minute=0", "requests_per_minute is '0'", "a whole number of at least 1"),
        ("openai:x?tokens_per_minute=1e6", "tokens_per_minute is '1e6'", "a whole number of at least 1"),
        ("openai:x?max_request_tokens=0", "max_request_tokens is '0'", "a whole number of at least 1"),
        ("openai:x?max_retries=-1", "max_retries is '-1'", "a whole number of at least 0"),
        ("openai:x?timeout_s=0", "timeout_s is '0'", "seconds"),
        ("openai:x?timeout_s=nan", "timeout_s is 'nan'", "seconds"),
        ("openai:x?price=cheap", "price is 'cheap'", "a number"),
        ("openai:x?base_url=localhost:8080", "base_url cannot be used", "http"),
        ("openai:x?base_url=http:///v1", "base_url cannot be used", "http"),
        ("static:wordllama-64?normalise=yes", "normalise is 'yes'", "true or false"),
        ("openai:x?revision=%ff", "not UTF-8", "%25"),
    ],
)
def test_what_is_wrong_is_named(text, problem, remedy):
    with pytest.raises(UsageError) as caught:
        parse_spec(text)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "setting",
    [
        "api_key=hush-4711",
        "apiKey=hush-4711",
        "API-KEY=hush-4711",
        "key=hush-4711",
        "access_token=hush-4711",
        "password=hush-4711",
        "Authorization=Bearer hush-4711",
        "base_url=https://me:hush-4711@example.com/v1",
        "base_url=https://hush-4711@example.com/v1",
        "query_prefix=https://me:hush-4711@example.com/v1",
    ],
)
def test_a_secret_is_refused_without_being_repeated(setting):
    name, _, value = setting.partition("=")
    for refused in (
        lambda: parse_spec(f"openai:text-embedding-3-small?{setting}"),
        lambda: EncoderSpec("openai", "text-embedding-3-small", {name: value}),
    ):
        with pytest.raises(UsageError) as caught:
            refused()
        assert "hush" not in str(caught.value)
        assert "key_env" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "openai:x?key_env=sk-hush-4711",
        "openai:x?key_env=hush4711",
        "openai:x?sk-hush-4711",
        "openai:x?base_url=https://example.com/v1%3Fapi_key=hush-4711",
        "openai:x?base_url=me:hush-4711@example.com",
        "openai:https://me:hush-4711@example.com/v1",
        "openai:x?whatever=hush-4711",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated_either(text):
    with pytest.raises(UsageError) as caught:
        parse_spec(text)
    assert "hush" not in str(caught.value)


def test_a_spec_made_by_hand_is_checked_when_opened():
    with pytest.raises(UsageError, match="no static setting 'dimensions'"):
        open_encoder(EncoderSpec("static", "wordllama-64", {"dimensions": "3"}))
