"""Static token vectors, the default: no network, no GPU, no torch. A text is the mean of its tokens' vectors.

They are WordLlama's, read from the installed `wordllama` package without importing it: its own loader asks a hub
for the tokenizer. The model is trained so that its first 64 or 128 dimensions work as a model too.

Texts are written in small letters first: the vectors of words in capitals mean little (nDCG@10 of Cranfield's queries
in capitals 0.057 in place of 0.298). A version that was registered before that keeps its revision, and its vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer, normalizers

from revector.core.encoders.base import scale_to_unit
from revector.core.encoders.kinds import TEXT, Setting
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import UnreachableError, unknown_name

MODELS = {"wordllama-64": 64, "wordllama-128": 128, "wordllama-256": 256}

_SMALL = "-lowercase"

# Bounds on the memory of one call beside its result, and the fastest values measured: texts in the tokenizer at a
# time, and token vectors summed at a time (half a MB, which fits the cache).
TEXTS_AT_ONCE = 512
TOKENS_AT_ONCE = 1024


class StaticEncoder:
    """`static:wordllama-64`, `-128` or `-256`."""

    runs_here: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {"revision": TEXT}
    price = 0.0

    def __init__(self, spec: EncoderSpec) -> None:
        if spec.model not in MODELS:
            raise unknown_name("static model", spec.model, MODELS)
        self.name = spec.name
        self.dimensions = MODELS[spec.model]
        self.max_tokens = spec.max_tokens
        self._spec = spec
        self.revision = spec.settings.get("revision", _revision())
        """Identifies the weights, the tokenizer, and whether texts are written in small letters."""
        known = (_revision(), *self.older_revisions())
        if self.revision not in known:
            raise unknown_name("revision of the static models", self.revision, known)
        self._tokenizer = _tokenizer(small=self.revision == _revision())
        self._token_vectors = _token_vectors()[:, : self.dimensions]

    @staticmethod
    def older_revisions() -> Sequence[str]:
        """Those that versions may have been registered with, and that can still be opened."""
        return (_revision().removesuffix(_SMALL),)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents. A blank text has no tokens, and so a zero vector."""
        return self._encode(texts, self._spec.document_prefix)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query."""
        return self._encode([text], self._spec.query_prefix).reshape(-1)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents."""
        return sum(map(len, self._tokens(texts, self._spec.document_prefix)))

    def close(self) -> None:
        """Nothing to close: the weights are shared by the process."""

    def _encode(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            self._add_means(self._tokens(texts[part], prefix), vectors[part])
        return scale_to_unit(vectors) if self._spec.normalise else vectors

    def _tokens(self, texts: Sequence[str], prefix: str) -> list[list[int]]:
        # Surrounding blanks would be tokens, and change the vector of a carelessly typed query.
        whole = [prefix + text if text else "" for text in map(str.strip, texts)]
        encodings = self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids[: self.max_tokens] for encoding in encodings]

    def _add_means(self, tokens: list[list[int]], vectors: NDArray[np.float32]) -> None:
        counts = np.fromiter(map(len, tokens), np.intp, len(tokens))
        flat = np.fromiter(chain.from_iterable(tokens), np.intp, int(counts.sum()))
        text_of = np.repeat(np.arange(len(tokens)), counts)
        # Slices may end in the middle of a text, so that a text of any length fits into memory.
        for start in range(0, len(flat), TOKENS_AT_ONCE):
            part = slice(start, start + TOKENS_AT_ONCE)
            firsts = np.flatnonzero(np.diff(text_of[part], prepend=-1))
            rows = self._token_vectors[flat[part]]
            vectors[text_of[part][firsts]] += np.add.reduceat(rows, firsts, axis=0, dtype=np.float32)
        vectors /= np.maximum(counts, 1)[:, None]


@cache
def _token_vectors() -> NDArray[np.float16]:
    with safe_open(_file("weights/l2_supercat_256.safetensors"), framework="np") as weights:
        matrix: NDArray[np.float16] = weights.get_tensor("embedding.weight")
    return matrix


@cache
def _tokenizer(*, small: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(_file("tokenizers/l2_supercat_tokenizer_config.json")))
    # A "</s>" in a document means those four characters, not the special token.
    tokenizer.encode_special_tokens = True
    if small:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), tokenizer.normalizer])
    return tokenizer


@cache
def _revision() -> str:
    digest = hashlib.sha256()
    for name in ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"):
        digest.update(_file(name).read_bytes())
    return f"l2_supercat-{digest.hexdigest()[:12]}{_SMALL}"


def _file(name: str) -> Path:
    package = find_spec("wordllama")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, name)
        if path.is_file():
            return path
    raise UnreachableError(
        f"The installed package wordllama has no {name}." if package else "The package wordllama is missing.",
        "Install it: pip install 'wordllama>=0.4'.",
    )
