"""Cross-encoders as judges: a model that reads a query and a text together grades the text (core.cross_encoders).

Their specs have one more setting: `cross-encoder:PATH-OR-NAME?thresholds=0.3,0.7`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.core import cross_encoders
from revector.core.cross_encoders import PairModel, parse_pair_spec
from revector.core.encoders.kinds import Setting
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_THRESHOLDS = (0.5,)


def _thresholds(text: str) -> tuple[float, ...] | None:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    inside = all(math.isfinite(value) and 0 < value < 1 for value in found)
    return found if inside and list(found) == sorted(set(found)) else None


SETTINGS: Mapping[str, Setting] = {
    **cross_encoders.SETTINGS,
    "thresholds": Setting(
        "numbers between 0 and 1, ascending, by commas", lambda text: _thresholds(text) is not None
    ),
}


@dataclass(frozen=True)
class Labels:
    """A model's labels for n pairs: grades (n,), and the scores (n,) from which they were made."""

    grades: NDArray[np.int64]
    scores: NDArray[np.float64]


class CrossEncoderJudge(PairModel):
    """A cross-encoder opened as a judge.

    With one output, the grade is how many thresholds the score reaches: 0 or 1 at the default 0.5. With several
    outputs, it is the index of the largest one.

    Raises UsageError for an invalid spec, and what PairModel raises.
    """

    def __init__(self, spec: str) -> None:
        parsed = parse_judge_spec(spec)
        super().__init__(parsed)
        given = parsed.settings.get("thresholds")
        if given is not None and self.labels > 1:
            raise UsageError(
                f"{parsed.name} has {self.labels} outputs, of which the largest is the grade: thresholds say nothing.",
                "Leave out thresholds.",
            )
        self._thresholds = (_thresholds(given) if given else None) or DEFAULT_THRESHOLDS

    def label(self, pairs: Sequence[tuple[str, str]]) -> Labels:
        """Grade pairs of a query and a text. Raises EncoderError for answers of a wrong shape or with non-finite
        values."""
        import numpy as np

        answers = self.answers(pairs)
        scores = self.read(answers)
        if self.labels == 1:
            return Labels(np.searchsorted(self._thresholds, scores, side="right").astype(np.int64), scores)
        return Labels(answers.argmax(axis=1).astype(np.int64), scores)


def parse_judge_spec(text: str) -> EncoderSpec:
    """Parse a spec and check its settings; nothing is opened."""
    return parse_pair_spec(text, "judge", SETTINGS)
