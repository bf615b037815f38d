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
    """An encoder whose provider may make it wait.

    Whoever opens the encoder replaces the three hooks, also while it is at work. They are called by one thread at
    a time, for all threads that encode, and must not call the encoder.

    `on_throttle(seconds, reason)` comes before the first wait for a reason: once for a provider that asks us to
    wait, however many threads have to, and once for a limit that is reached, however long it then sets the pace.
    It comes again when the reason changes. `on_resume()` comes when no reason is in force any more, as far as
    requests are still made: who stops encoding, or ends a wait by raising, knows so without it.

    `wait(seconds)` returns when the time is over, and is believed: a test may return at once. When it raises, the
    call that waits ends with that error, and so does every other that would have to wait, each by a `wait` of its
    own. `wait(0)` is called after a request had to queue behind others, to ask whether to go on.
    """

    on_throttle: Callable[[float, str], None]
    on_resume: Callable[[], None]
    wait: Callable[[float], None]


@runtime_checkable
class Parallel(Protocol):
    """An encoder that may be called from several threads at once.

    `parallel` says how many it can make use of. Its limits belong to an account: `share`, above 0 and at most 1,
    is this process's part of them, 1 unless set, and may be set at any time from any thread.
    """

    parallel: int
    share: float


@runtime_checkable
class Metered(Protocol):
    """An encoder whose provider says what it bills."""

    @property
    def tokens_used(self) -> int:
        """The tokens billed since the encoder was opened, as far as the provider has said."""

    def take_usage(self) -> int | None:
        """The tokens billed for what this thread has asked for since it last called this: failed calls count too.

        0 when nothing was asked for, None when the provider did not say of every request.
        """


def scale_to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every row to length one, in place. Rows without a finite length stay, for `check_vectors` to report."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    np.divide(vectors, lengths, out=vectors, where=(lengths > 0) & (lengths < np.inf))
    return vectors
