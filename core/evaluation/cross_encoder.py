"""Cross-encoders as judges: a model that reads a query and a text together and says how relevant the text is.

`cross-encoder:PATH-OR-NAME?thresholds=0.3,0.7&batch_size=32&device=cpu&max_tokens=256&revision=COMMIT`, run by
SentenceTransformers on this machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from core.encoders.kinds import TEXT, Setting, whole_number
from core.encoders.local_models import find_folder, folder_revision
from core.encoders.providers import check_known
from core.encoders.spec import EncoderSpec, read_spec
from core.errors import EncoderError, UnreachableError, UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

PROVIDER = "cross-encoder"
DEFAULT_THRESHOLDS = (0.5,)

_HEADS = ("ForSequenceClassification", "ForCausalLM")
"""What a model that judges pairs ends in. Others would be given a head of random weights, and judge at random."""


def _thresholds(text: str) -> tuple[float, ...] | None:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    inside = all(math.isfinite(value) and 0 < value < 1 for value in found)
    return found if inside and list(found) == sorted(set(found)) else None


SETTINGS: Mapping[str, Setting] = {
    "batch_size": whole_number(),
    "device": TEXT,
    "max_tokens": whole_number(),
    "revision": TEXT,
    "thresholds": Setting(
        "numbers between 0 and 1, ascending, by commas", lambda text: _thresholds(text) is not None
    ),
}

_NO_PART_OF_THE_JUDGE = ("batch_size", "device")
"""Settings that change how fast a model judges, and not how."""


@dataclass(frozen=True)
class Labels:
    """What a model says of n pairs: grades (n,), and scores (n,) from which they were made."""

    grades: NDArray[np.int64]
    scores: NDArray[np.float64]


class CrossEncoderJudge:
    """A cross-encoder that was opened.

    With one output, the score is its sigmoid, and the grade is how many thresholds the score reaches: 0 or 1 at the
    default 0.5. With several outputs the grade is the place of the largest one, counted from 0, and the score is the
    mean of the grades weighted by their probabilities (softmax).

    Raises UsageError for a spec that cannot be read, and UnreachableError for a missing package, and for a model that
    is not here, cannot be loaded or is no cross-encoder.
    """

    def __init__(self, spec: str) -> None:
        parsed = parse_judge_spec(spec)
        if find_spec("sentence_transformers") is None:
            raise UnreachableError(
                f"{parsed.name} needs the package sentence-transformers, which is not installed.",
                "Install it: pip install 'revector[sentence-transformers]'.",
            )
        folder = find_folder(parsed, PROVIDER)
        self.batch_size = int(parsed.settings.get("batch_size", 32))
        self.revision = folder_revision(folder)
        # One judge, wherever a relative path is given from.
        model = str(folder.resolve()) if Path(parsed.model).expanduser().is_dir() else parsed.model
        self.name = Path(model).name
        self.spec = str(_own_part(parsed, model))
        self._model = _load(folder, parsed)
        self.labels = int(self._model.num_labels)
        given = parsed.settings.get("thresholds")
        if given is not None and self.labels > 1:
            raise UsageError(
                f"{parsed.name} has {self.labels} outputs, of which the largest is the grade: thresholds say nothing.",
                "Leave out thresholds.",
            )
        self._thresholds = (_thresholds(given) if given else None) or DEFAULT_THRESHOLDS

    def label(self, pairs: Sequence[tuple[str, str]]) -> Labels:
        """Judge pairs of a query and a text. Raises EncoderError for answers of a wrong shape or not finite."""
        import numpy as np
        from torch import nn

        if not pairs:
            return Labels(np.empty(0, np.int64), np.empty(0, np.float64))
        answers = np.asarray(
            self._model.predict(
                list(pairs), batch_size=self.batch_size, show_progress_bar=False, activation_fn=nn.Identity()
            ),
            dtype=np.float64,
        )
        expected = (len(pairs),) if self.labels == 1 else (len(pairs), self.labels)
        if answers.shape != expected:
            raise EncoderError(
                f"{self.spec} answered {len(pairs)} pairs with numbers of the shape {answers.shape}, not {expected}."
            )
        if bad := int(np.count_nonzero(~np.isfinite(answers))):
            raise EncoderError(
                f"{self.spec} answered with {bad:,} numbers that are not finite: nothing of it was stored.",
                "Its weights are broken, or its half precision overflows on this device.",
            )
        if self.labels == 1:
            scores = 0.5 * (1 + np.tanh(answers / 2))  # the sigmoid, without an overflow
            return Labels(np.searchsorted(self._thresholds, scores, side="right").astype(np.int64), scores)
        likely = np.exp(answers - answers.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        return Labels(answers.argmax(axis=1).astype(np.int64), likely @ np.arange(self.labels))

    def close(self) -> None:
        """Let go of the model."""
        del self._model


def parse_judge_spec(text: str) -> EncoderSpec:
    """Read a spec and check its settings; nothing is opened."""
    spec = read_spec(text)
    if spec.provider != PROVIDER:
        raise unknown_name("kind of judge", spec.provider, [PROVIDER])
    check_known(spec, SETTINGS)
    return spec


def _own_part(spec: EncoderSpec, model: str) -> EncoderSpec:
    kept = {name: text for name, text in spec.settings.items() if name not in _NO_PART_OF_THE_JUDGE}
    return dataclasses.replace(spec, model=model, settings=kept)


def _load(folder: Path, spec: EncoderSpec) -> CrossEncoder:
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    _require_head(folder, spec)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would be drawn across the console
    try:
        model: CrossEncoder = CrossEncoder(str(folder), device=spec.settings.get("device"), local_files_only=True)
        if spec.max_tokens is not None:
            model.max_seq_length = min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
    except Exception as error:
        raise UnreachableError(
            f"The model {spec.model!r} cannot be loaded from {folder}: {error}",
            "The folder must hold a CrossEncoder, and the settings must suit it.",
        ) from error
    return model


def _require_head(folder: Path, spec: EncoderSpec) -> None:
    try:
        found = json.loads((folder / "config.json").read_bytes())
        architectures = [str(name) for name in found.get("architectures") or []]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UnreachableError(
            f"The model {spec.model!r} cannot be loaded from {folder}: its config.json cannot be read ({error}).",
            "The folder must hold a CrossEncoder.",
        ) from None
    if not any(name.endswith(_HEADS) for name in architectures):
        raise UnreachableError(
            f"The model {spec.model!r} is no cross-encoder, but {', '.join(architectures) or 'of an unknown kind'}: "
            "it has no output that judges a pair.",
            "Name a model that was trained on pairs, such as cross-encoder/ms-marco-MiniLM-L6-v2.",
        )
