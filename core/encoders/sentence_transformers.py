"""Models that SentenceTransformers runs on this machine, by folder or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revector.core.encoders.kinds import TEXT, Setting, whole_number
from revector.core.encoders.local_models import find_folder, folder_revision, loading
from revector.core.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformersEncoder:
    """`sentence-transformers:PATH-OR-NAME`. Without a prefix in the spec, the model's own prompt is used."""

    runs_here: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "batch_size": whole_number(),
        "device": TEXT,
        "dimensions": whole_number(),
        "revision": TEXT,
    }
    price = 0.0

    def __init__(self, spec: EncoderSpec) -> None:
        folder = find_folder(spec, "sentence-transformers")
        self.name = spec.name
        self.revision = folder_revision(folder)
        self._spec = spec
        self._model = _load(folder, spec)
        self._tokenizer: Any = self._model.tokenizer
        self.max_tokens = self._model.max_seq_length
        self.dimensions = self.encode_query("How many dimensions?").shape[0]

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents, with the model's own method if it has one."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        prompt = self._spec.settings.get("document_prefix")
        return _float32(self._model.encode_document(list(texts), prompt=prompt, **self._options()))

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query, with the model's own method if it has one."""
        prompt = self._spec.settings.get("query_prefix")
        return _float32(self._model.encode_query(text, prompt=prompt, **self._options()))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents, including those that the model would truncate."""
        whole = [self._spec.document_prefix + text for text in texts]
        if not whole:
            return 0
        if hasattr(self._tokenizer, "encode_batch"):  # a bare tokenizers.Tokenizer: static models have one
            return sum(map(len, self._tokenizer.encode_batch(whole)))
        return sum(map(len, self._tokenizer(whole, truncation=False, verbose=False)["input_ids"]))

    def close(self) -> None:
        """Release the model."""
        del self._model, self._tokenizer

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": int(self._spec.settings.get("batch_size", 32)),
            "normalize_embeddings": self._spec.normalise,
            "show_progress_bar": False,
        }


def _float32(vectors: Any) -> NDArray[np.float32]:
    return np.asarray(vectors, dtype=np.float32)


def _load(folder: Path, spec: EncoderSpec) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    truncate = spec.settings.get("dimensions")
    with loading(folder, spec, "SentenceTransformers model"):
        # No trust_remote_code: from release 6 on, code of a local folder does not run without it either. Before, a
        # folder's modules.json could name a module beside it.
        model = SentenceTransformer(
            str(folder),
            device=spec.settings.get("device"),
            truncate_dim=int(truncate) if truncate else None,
            local_files_only=True,
        )
        if spec.max_tokens is not None:
            model.max_seq_length = spec.max_tokens
    return model
