"""Models that SentenceTransformers runs on this machine, by folder or by name.

A name is looked up in the local hub cache only, never on the network: a version's encoder may not change
because somebody published a new one, nor may the console hang on a download.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.encoders.kinds import TEXT, Setting, whole_number
from core.encoders.spec import EncoderSpec
from core.errors import UnreachableError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# How much of the end of a weights file goes into the revision: training changes every layer, the last too.
WEIGHTS_TAIL = 64 * 1024


class SentenceTransformersEncoder:
    """`sentence-transformers:PATH-OR-NAME`. A prefix that the spec leaves out is the model's own prompt."""

    runs_here: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "batch_size": whole_number(),
        "device": TEXT,
        "dimensions": whole_number(),
        "revision": TEXT,
    }
    price = 0.0

    def __init__(self, spec: EncoderSpec) -> None:
        if find_spec("sentence_transformers") is None:
            raise UnreachableError(
                f"{spec.name} needs the package sentence-transformers, which is not installed.",
                "Install it: pip install 'revector[sentence-transformers]'.",
            )
        folder = _find_folder(spec)
        self.name = spec.name
        self.revision = _revision(folder)
        self._spec = spec
        self._model = _load(folder, spec)
        self._tokenizer: Any = self._model.tokenizer
        self.max_tokens = self._model.max_seq_length
        self.dimensions = self.encode_query("How many dimensions?").shape[0]

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents, by the model's own way where it has one."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        prompt = self._spec.settings.get("document_prefix")
        return _float32(self._model.encode_document(list(texts), prompt=prompt, **self._options()))

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query, by the model's own way where it has one."""
        prompt = self._spec.settings.get("query_prefix")
        return _float32(self._model.encode_query(text, prompt=prompt, **self._options()))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents, whether or not the model would read them to the end."""
        whole = [self._spec.document_prefix + text for text in texts]
        if not whole:
            return 0
        if hasattr(self._tokenizer, "encode_batch"):  # a bare tokenizers.Tokenizer: static models have one
            return sum(map(len, self._tokenizer.encode_batch(whole)))
        return sum(map(len, self._tokenizer(whole, truncation=False, verbose=False)["input_ids"]))

    def close(self) -> None:
        """Let go of the model."""
        del self._model, self._tokenizer

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": int(self._spec.settings.get("batch_size", 32)),
            "normalize_embeddings": self._spec.normalise,
            "show_progress_bar": False,
        }


def _float32(vectors: Any) -> NDArray[np.float32]:
    return np.asarray(vectors, dtype=np.float32)


def _find_folder(spec: EncoderSpec) -> Path:
    """The model's folder: the one named, or the one the hub's cache has under that name.

    SentenceTransformer(name, local_files_only=True) would do, but it asks the network for a name it
    does not have (measured with sentence-transformers 6.2).
    """
    from huggingface_hub import snapshot_download

    folder = Path(spec.model).expanduser()
    if folder.is_dir():
        return folder
    repository = spec.model if "/" in spec.model else f"sentence-transformers/{spec.model}"
    revision = spec.settings.get("revision")
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        download = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        raise UnreachableError(
            f"There is no model {spec.model!r}: neither a folder of that name, nor a download of it here.",
            f"Give the path of a model's folder, or fetch it once: {download}",
        ) from None


def _load(folder: Path, spec: EncoderSpec) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would be drawn across the console
    truncate = spec.settings.get("dimensions")
    try:
        model = SentenceTransformer(
            str(folder),
            device=spec.settings.get("device"),
            truncate_dim=int(truncate) if truncate else None,
            local_files_only=True,
        )
        if spec.max_tokens is not None:
            model.max_seq_length = spec.max_tokens
    except Exception as error:
        raise UnreachableError(
            f"The model {spec.model!r} cannot be loaded from {folder}: {error}",
            "The folder must hold a SentenceTransformers model, and the settings must suit it.",
        ) from error
    return model


def _revision(folder: Path) -> str:
    """The commit, in the hub's cache; elsewhere a digest of all configuration and of the weights' ends."""
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            content = path.read_bytes()
        elif path.suffix in (".safetensors", ".bin"):
            with path.open("rb") as weights:
                size = path.stat().st_size
                weights.seek(max(0, size - WEIGHTS_TAIL))
                content = str(size).encode() + weights.read()
        else:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return f"sha256-{digest.hexdigest()[:12]}"
