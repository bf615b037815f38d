"""Models on this machine, named by folder or by hub name: finds the folder and the revision.

A name is looked up only in the local hub cache, never on the network: a model must not change because a new one
was published, and the console must not hang on a download.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from revector.core import forks
from revector.core.encoders.local_files import model_files, read_text_file
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import UnreachableError, UsageError

# How much of the end of a weights file goes into the revision: training changes every layer, including the last.
WEIGHTS_TAIL = 64 * 1024
_REVISION = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
"""A branch, a tag or a commit. The hub's client takes any other text for a path to a file, and reads that."""


def find_folder(spec: EncoderSpec, organisation: str) -> Path:
    """The model's folder: the named one, or the one in the hub's cache under that name.

    `organisation` is the default for a name without one. Raises UsageError for a revision that is none, and
    UnreachableError when there is no folder, or no package that runs its model. SentenceTransformer(name,
    local_files_only=True) would do, but it asks the network for an unknown name (measured with
    sentence-transformers 6.2).
    """
    if find_spec("sentence_transformers") is None:
        raise UnreachableError(
            f"{spec.name} needs the package sentence-transformers, which is not installed.",
            "Install it: pip install 'revector[sentence-transformers]'.",
        )
    from huggingface_hub import snapshot_download

    folder = Path(spec.model).expanduser()
    if folder.is_dir():
        return folder
    repository = spec.model if "/" in spec.model else f"{organisation}/{spec.model}"
    revision = spec.settings.get("revision")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise UsageError(f"{revision!r} is no revision.", "Expected a branch, a tag or a commit of the model.")
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        download = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        raise UnreachableError(
            f"There is no model {spec.model!r}: no folder of that name, and no download of it here.",
            f"Give the path of a model's folder, or download it once: {download}",
        ) from None


class _Torch:
    def forked(self) -> None:
        """The threads that torch computes with stay in the parent, and a forked child would wait for them for ever."""
        torch = sys.modules.get("torch")  # an import could wait for a lock
        if torch is not None:
            torch.set_num_threads(1)


_TORCH = _Torch()


@contextmanager
def loading(folder: Path, spec: EncoderSpec, kind: str) -> Iterator[None]:
    """Load a model of that kind from its folder. Raises UnreachableError for whatever prevents it."""
    from transformers.utils import logging

    forks.tell(_TORCH)
    logging.disable_progress_bar()  # it would be drawn across the console
    try:
        yield
    except Exception as error:
        raise UnreachableError(
            f"The model {spec.model!r} cannot be loaded from {folder}: {error}",
            f"The folder must contain a {kind} that fits the settings.",
        ) from error


def folder_revision(folder: Path) -> str:
    """The commit, for a folder in the hub's cache; else a digest of the configuration and the ends of the
    weights.

    Raises UsageError when the folder holds what must not be opened: see `model_files`.
    """
    files = sorted(model_files(folder))
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = hashlib.sha256()
    for path in files:
        if path.suffix == ".json":
            content = read_text_file(path)
        elif path.suffix in (".safetensors", ".bin"):
            with path.open("rb") as weights:
                size = path.stat().st_size
                weights.seek(max(0, size - WEIGHTS_TAIL))
                content = str(size).encode() + weights.read()
        else:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return f"sha256-{digest.hexdigest()[:12]}"
