"""Turns files of other kinds into text, in a process of its own.

PDF and office files come from anywhere, and what reads them is large: a file that makes it run for ever, fill the
memory or crash is rejected, and the next one gets a new process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection as Channel
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from revector import core
from revector.core.documents.document import DocumentError
from revector.core.documents.kinds import CONVERTED, Kind

SECONDS = 300.0
"""How long one file may take."""
MEMORY_BYTES = 4 * 1024**3
"""How much address space the process may have."""

NEEDED = "needs pip install 'revector[documents]'"


@dataclass(frozen=True)
class Converted:
    """The text of a file, whether it is Markdown, and what the file says of itself."""

    text: str
    markdown: bool
    metadata: dict[str, Any]


class Converter:
    """Converts one file after the other. The process starts with the first one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def convert(self, kind: Kind, suffix: str, data: bytes) -> Converted:
        """The text of a file with these bytes. Raises DocumentError."""
        if not all(map(importlib.util.find_spec, CONVERTED[kind])):
            raise DocumentError(f"A {suffix} file {NEEDED}.")
        channel = self._open()
        try:
            channel.send_bytes(json.dumps([kind, self._max_bytes]).encode())
            channel.send_bytes(data)
            if not channel.poll(SECONDS):
                raise DocumentError(f"To read this {suffix} file takes more than {SECONDS:,.0f} seconds.")
            answer = json.loads(channel.recv_bytes())
        except (OSError, EOFError):
            raise DocumentError(
                f"What reads {suffix} files has ended with this one: it is damaged, or needs more than "
                f"{MEMORY_BYTES // 1024**3} GB of memory."
            ) from None
        except BaseException:
            self.close()
            raise
        finally:
            if self._process is not None and self._process.poll() is not None:
                self.close()
        if problem := answer.get("problem"):
            raise DocumentError(problem)
        return Converted(**answer)

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None

    def _open(self) -> Channel:
        if self._channel is not None:
            return self._channel
        ours, theirs = Pipe()
        folder = str(Path(core.__file__).parents[2])
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
                # -P: the user's working directory must not come first on the path.
                [sys.executable, "-P", "-m", "revector.core.documents.extraction", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path},
                start_new_session=True,
            )
        self._channel = ours
        return ours
