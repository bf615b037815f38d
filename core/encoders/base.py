"""The protocols of encoders, and what providers share."""

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
        """`provider:model`, the spec without its settings."""

    @property
    def revision(self) -> str:
        """Changes when the same name starts to give other vectors, as far as the provider can know."""

    @property
    def dimensions(self) -> int:
        """The stated length of the vectors; `probe` checks it."""

    @property
    def max_tokens(self) -> int | None:
        """The longest text that the model reads whole, in tokens; None when there is no limit or it is unknown."""

    @property
    def price(self) -> float | None:
        """US dollars per million tokens: 0.0 when it runs here, None when unknown."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents, one row each: (n, dimensions)."""

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query: (dimensions,)."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens that the model reads for these documents, including prefix and special tokens."""

    def close(self) -> None:
        """Release connections and memory; the encoder cannot be used afterwards."""


@runtime_checkable
class Throttled(Protocol):
    """An encoder whose provider may make it wait.

    The caller may replace the three hooks at any time. They are called by one thread at a time, on behalf of all
    encoding threads, and must not call the encoder.

    `on_throttle(seconds, reason)` is called before the first wait for a reason: once when a provider asks us to
    wait, for all threads, and once when a limit is reached, for as long as it sets the pace. It is called again
    when the reason changes. `on_resume()` is called by the first request for which no reason applies any more; not
    when encoding stops or a wait raises.

    `wait(seconds)` returns when the time is over. Its return is not checked against the clock, so a test may
    return at once. When it raises, the waiting call ends with that error, and so does every other that has to
    wait, each by its own `wait`. `wait(0)` is called after a request queued behind others, to ask whether to
    continue.
    """

    on_throttle: Callable[[float, str], None]
    on_resume: Callable[[], None]
    wait: Callable[[float], None]


@runtime_checkable
class Parallel(Protocol):
    """An encoder that may be called from several threads at once.

    `parallel` says how many threads it can use. Its limits belong to an account: `share`, above 0 and at most 1,
    is this process's part of them. It is 1 by default, and may be set at any time from any thread.
    """

    parallel: int
    share: float


@runtime_checkable
class Metered(Protocol):
    """An encoder whose provider reports what it bills."""

    def take_usage(self) -> int | None:
        """The tokens billed for this thread's requests since its last call of this; failed requests count too.

        0 without requests, None when the provider did not report it for every request.
        """


def scale_to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every row to length one, in place. Rows without a finite length are left for `check_vectors` to
    report."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    np.divide(vectors, lengths, out=vectors, where=(lengths > 0) & (lengths < np.inf))
    return vectors
