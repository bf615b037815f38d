"""Run a part of a test in a forked child of the test's process."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def forked(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run `work` in a child while the body runs here; gives a function that waits for its result.

    What the child raises is raised by that function, as text.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            try:
                answer: tuple[bool, object] = True, work()
            except BaseException:  # noqa: BLE001  (reported by the parent)
                answer = False, traceback.format_exc()
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writer)
    waited = False

    def result() -> T:
        nonlocal waited
        waited = True
        with os.fdopen(reader, "rb") as pipe:
            written = pipe.read()
        os.waitpid(child, 0)
        done, answer = pickle.loads(written)  # noqa: S301  (of our own child)
        if not done:
            raise AssertionError(f"in the child:\n{answer}")
        found: T = answer
        return found

    yield result
    if not waited:
        result()
