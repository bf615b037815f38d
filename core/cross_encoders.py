"""Cross-encoders: models that read a query and a text together and say how relevant the text is.

`cross-encoder:PATH-OR-NAME?batch_size=32&device=cpu&max_tokens=256&revision=COMMIT`, run by SentenceTransformers
on this machine. They judge pools (core.evaluation.judging.cross_encoder) and rerank search results
(core.retrieval.rerank).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.encoders.kinds import TEXT, Setting, whole_number
from revector.core.encoders.local_models import find_folder, folder_revision, loading
from revector.core.encoders.providers import check_known
from revector.core.encoders.spec import EncoderSpec, read_spec
from revector.core.errors import EncoderError, UnreachableError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

PROVIDER = "cross-encoder"

_HEADS = ("ForSequenceClassification", "ForCausalLM")
"""The suffix of architectures that score pairs. Others would get a head of random weights, and score at random."""

SETTINGS: Mapping[str, Setting] = {
    "batch_size": whole_number(),
    "device": TEXT,
    "max_tokens": whole_number(),
    "revision": TEXT,
}

_NO_PART_OF_THE_MODEL = ("batch_size", "device")
"""Settings that change a model's speed, not its answers."""


class PairModel:
    """An open cross-encoder.

    Raises UnreachableError for a missing package, and for a model that is missing, cannot be loaded or is not a
    cross-encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        folder = find_folder(spec, PROVIDER)
        self.batch_size = int(spec.settings.get("batch_size", 32))
        self.revision = folder_revision(folder)
        # The same model, whatever directory a relative path starts from.
        model = str(folder.resolve()) if Path(spec.model).expanduser().is_dir() else spec.model
        self.name = Path(model).name
        kept = {name: text for name, text in spec.settings.items() if name not in _NO_PART_OF_THE_MODEL}
        self.spec = str(dataclasses.replace(spec, model=model, settings=kept))
        self._model = _load(folder, spec)
        self.labels = int(self._model.num_labels)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """The relevance of each text to its query (n,): higher is more relevant. Scores of two models cannot be
        compared.

        With one output, its sigmoid; with several, which are grades from 0, their mean weighted by probability
        (softmax). Raises EncoderError for answers of a wrong shape or with non-finite values.
        """
        return self.read(self.answers(pairs))

    def read(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert answers to scores (n,)."""
        import numpy as np

        if self.labels == 1:
            scores: NDArray[np.float64] = 0.5 * (1 + np.tanh(answers / 2))  # the sigmoid, without an overflow
            return scores
        likely = np.exp(answers - answers.max(axis=1, keepdims=True, initial=-np.inf))
        likely /= likely.sum(axis=1, keepdims=True)
        return np.asarray(likely @ np.arange(self.labels))

    def answers(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """The model's outputs for pairs of a query and a text: (n,), or (n, labels) if it has several."""
        import numpy as np
        from torch import nn

        expected = (len(pairs),) if self.labels == 1 else (len(pairs), self.labels)
        if not pairs:
            return np.empty(expected)
        answers = np.asarray(
            self._model.predict(
                list(pairs), batch_size=self.batch_size, show_progress_bar=False, activation_fn=nn.Identity()
            ),
            dtype=np.float64,
        )
        if answers.shape != expected:
            raise EncoderError(f"{self.spec} returned numbers of shape {answers.shape}, not {expected}.")
        if bad := int(np.count_nonzero(~np.isfinite(answers))):
            raise EncoderError(
                f"{self.spec} answered with {bad:,} non-finite numbers. Nothing was used.",
                "Its weights are broken, or its half precision overflows on this device.",
            )
        return answers


def parse_pair_spec(text: str, kind: str, settings: Mapping[str, Setting] = SETTINGS) -> EncoderSpec:
    """Parse a spec and check its settings; nothing is opened. `kind` names its purpose in errors."""
    spec = read_spec(text)
    if spec.provider != PROVIDER:
        raise unknown_name(f"kind of {kind}", spec.provider, [PROVIDER])
    check_known(spec, settings)
    return spec


def _load(folder: Path, spec: EncoderSpec) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    _require_head(folder, spec)
    with loading(folder, spec, "CrossEncoder"):
        model: CrossEncoder = CrossEncoder(str(folder), device=spec.settings.get("device"), local_files_only=True)
        if spec.max_tokens is not None:
            model.max_seq_length = min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
    return model


def _require_head(folder: Path, spec: EncoderSpec) -> None:
    try:
        found = json.loads((folder / "config.json").read_bytes())
        architectures = [str(name) for name in found.get("architectures") or []]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UnreachableError(
            f"The model {spec.model!r} cannot be loaded from {folder}: its config.json cannot be read ({error}).",
            "The folder must contain a CrossEncoder.",
        ) from None
    if not any(name.endswith(_HEADS) for name in architectures):
        raise UnreachableError(
            f"The model {spec.model!r} is not a cross-encoder but {', '.join(architectures) or 'of an unknown kind'}: "
            "it has no output that judges a pair.",
            "Name a model that was trained on pairs, such as cross-encoder/ms-marco-MiniLM-L6-v2.",
        )
