"""Models on this machine: where one is that is named by folder or by its name on the hub, and which revision it is.

A name is looked up in the local hub cache only, never on the network: a model may not change because somebody
published a new one, nor may the console hang on a download.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import UnreachableError

# How much of the end of a weights file goes into the revision: training changes every layer, the last too.
WEIGHTS_TAIL = 64 * 1024


def find_folder(spec: EncoderSpec, organisation: str) -> Path:
    """The model's folder: the one named, or the one the hub's cache has under that name.

    `organisation` is the hub's, for a name without one. Raises UnreachableError when there is none.
    SentenceTransformer(name, local_files_only=True) would do, but it asks the network for a name it
    does not have (measured with sentence-transformers 6.2).
    """
    from huggingface_hub import snapshot_download

    folder = Path(spec.model).expanduser()
    if folder.is_dir():
        return folder
    repository = spec.model if "/" in spec.model else f"{organisation}/{spec.model}"
    revision = spec.settings.get("revision")
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        download = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        raise UnreachableError(
            f"There is no model {spec.model!r}: no folder of that name, and no download of it here.",
            f"Give the path of a model's folder, or download it once: {download}",
        ) from None


def folder_revision(folder: Path) -> str:
    """The commit, in the hub's cache; elsewhere a digest of all configuration and of the weights' ends."""
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            content = path.read_bytes()
        elif path.suffix in (".safetensors", ".bin"):
            with path.open("rb") as weights:
                size = path.stat().st_size
                weights.seek(max(0, size - WEIGHTS_TAIL))
                content = str(size).encode() + weights.read()
        else:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return f"sha256-{digest.hexdigest()[:12]}"
