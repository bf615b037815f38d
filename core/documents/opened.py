"""Opens files, compressed or not: gzip and zstd are known by their first bytes, and end at a limit."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"

MAX_RATIO = 200
"""How many times its size a file may expand to. Text becomes ten times as small, a bomb a thousand times."""
_ALWAYS_BYTES = 64 * 1024 * 1024
"""Up to this size a file may expand as it likes."""


def open_file(path: Path) -> BinaryIO:
    """A file for reading, decompressed. Raises OSError, and so does reading what is damaged or expands too far."""
    return decompressed(path.open("rb"))


def decompressed(raw: BinaryIO) -> BinaryIO:
    """The same stream, or what is compressed in it. Raises OSError."""
    peekable = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(Any, raw))
    start = peekable.peek(len(_ZSTD))
    if start.startswith(_GZIP):
        return io.BufferedReader(_Expanded(peekable, gzip.GzipFile(fileobj=peekable), zlib.error))
    if start.startswith(_ZSTD):
        zstd = _zstd()
        return io.BufferedReader(_Expanded(peekable, zstd.ZstdFile(peekable), zstd.ZstdError))
    return peekable


def _zstd() -> ModuleType:
    try:
        from backports import zstd
    except ImportError:
        raise OSError("a .zst file needs pip install 'revector[documents]'") from None
    return zstd


class _Expanded(io.RawIOBase):
    """What is compressed in a stream, up to MAX_RATIO times its size."""

    def __init__(self, raw: io.BufferedReader, inner: Any, damage: type[Exception]) -> None:
        self._raw = raw
        self._inner = inner
        self._damage = damage
        self._read = 0
        self._taken = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raises OSError."""
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, self._damage) as error:
            raise OSError(f"the compressed data is damaged or cut off ({error})") from None
        self._read += len(data)
        if self._read > _ALWAYS_BYTES and self._read > MAX_RATIO * self._raw.tell():
            raise OSError(f"it expands to more than {MAX_RATIO} times its size")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._inner.close()
            self._raw.close()
        super().close()
