"""What revector asks of an encoder: the protocol that every provider fulfils, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Encoder(Protocol):
    """Turns texts into vectors. It belongs to one embedding version, its prefixes included."""

    @property
    def name(self) -> str:
        """`provider:model`: with the settings beside it, the whole spec."""

    @property
    def revision(self) -> str:
        """Changes when the same name begins to give other vectors, as far as the provider can know."""

    @property
    def dimensions(self) -> int:
        """How long the vectors are said to be; `probe` finds out whether they are."""

    @property
    def max_tokens(self) -> int | None:
        """The longest text the model reads whole; None when there is no limit or none is known."""

    @property
    def price(self) -> float | None:
        """US dollars per million tokens: 0.0 when it runs here, None when nobody said."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents, one row each: (n, dimensions)."""

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query: (dimensions,)."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens the model reads for these documents, prefix and special tokens included."""

    def close(self) -> None:
        """Let go of connections and memory; the encoder is of no use afterwards."""


@runtime_checkable
class Throttled(Protocol):
    """An encoder whose provider may make it wait: it says so by `on_throttle`, then calls `wait`.

    Whoever opens the encoder replaces both. `wait` may raise, which ends the call that waits.
    """

    on_throttle: Callable[[float, str], None]
    wait: Callable[[float], None]


def scale_to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every row to length one, in place. Rows without a finite length stay, for `check_vectors` to report."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    np.divide(vectors, lengths, out=vectors, where=(lengths > 0) & (lengths < np.inf))
    return vectors
