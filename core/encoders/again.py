"""Encodes stored texts again, within limits of time and money, and compares the vectors with those that are stored."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.encoders.base import Encoder

    Matrix = NDArray[np.float64]

_BATCH = 50
"""Texts in one request: time and money are looked at between two."""


@dataclass(frozen=True)
class Limits:
    """When two vectors count as the same, and what encoding may take. Those of the policy, where there is one."""

    cosine: float = 0.999
    timeout_s: float = 30.0
    usd: float = 0.1


@dataclass(frozen=True)
class Encoded:
    """Today's vectors (m, d) of the first m texts; what that took, in words; and which limit left out the rest."""

    vectors: Matrix | None
    took: str
    stopped: str


@dataclass(frozen=True)
class Likeness:
    """Stored vectors beside today's, row by row: cosines, and the ratios of their lengths.

    `differing` rows point elsewhere, `longer` ones have another length.
    """

    cosines: Matrix
    ratios: Matrix
    differing: NDArray[np.bool_]
    longer: NDArray[np.bool_]


def cost(encoder: Encoder, texts: Sequence[str], tokens: int | None = None) -> float:
    """US dollars for the billed tokens, or for these texts when that is unknown; 0 when the encoder has no
    price."""
    if not encoder.price:
        return 0.0
    if tokens is None:
        tokens = encoder.count_tokens(texts) if texts else 0
    return tokens * encoder.price / 1_000_000


def compare(stored: NDArray[Any], now: NDArray[Any], least: float) -> Likeness:
    """Compare stored vectors (n, d) with those that the encoder makes now; `least` is the cosine of equal ones."""
    import numpy as np

    then, made = stored.astype(np.float64), now.astype(np.float64)
    before, after = np.linalg.norm(then, axis=1), np.linalg.norm(made, axis=1)
    cosines = np.einsum("ij,ij->i", then, made) / np.maximum(before * after, 1e-30)
    ratios = before / np.maximum(after, 1e-30)
    longer = np.minimum(ratios, 1 / np.maximum(ratios, 1e-30)) < least
    return Likeness(cosines, ratios, cosines < least, longer)


def encode_within(opened: Callable[[], Encoder], texts: list[str], limits: Limits) -> Encoded:
    """Encode the texts as documents, in several requests, as far as time and money reach.

    `opened` is called in another thread. Raises what it and the encoder raise.
    """
    import numpy as np

    began, spent = time.monotonic(), 0.0
    answers: queue.SimpleQueue[NDArray[np.float32] | Exception | None] = queue.SimpleQueue()
    over = threading.Event()

    def encode() -> None:
        nonlocal spent
        try:
            encoder = opened()
            for start in range(0, len(texts), _BATCH):
                batch = texts[start : start + _BATCH]
                usd = cost(encoder, batch)
                if over.is_set() or spent + usd > limits.usd:
                    break
                spent += usd
                answers.put(encoder.encode_documents(batch))
            answers.put(None)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the answer is waited for)
            answers.put(error)

    threading.Thread(target=encode, name="encode again", daemon=True).start()
    found: list[NDArray[np.float32]] = []
    stopped = ""
    while sum(map(len, found)) < len(texts):
        try:
            answer = answers.get(timeout=max(0.0, began + limits.timeout_s - time.monotonic()))
        except queue.Empty:
            stopped = f"{limits.timeout_s:g} s"
            break
        if answer is None:
            stopped = f"${limits.usd:g}"
            break
        if isinstance(answer, Exception):
            raise answer
        found.append(answer)
    over.set()
    took = f"{time.monotonic() - began:.1f} s of {limits.timeout_s:g} s"
    took += f" and ${spent:.4f} of ${limits.usd:g}" if spent else ""
    return Encoded(np.concatenate(found).astype(np.float64) if found else None, took, stopped)
