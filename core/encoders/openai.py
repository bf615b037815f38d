"""OpenAI's embeddings, and any server that speaks the same protocol (vLLM, Ollama, TEI, a gateway)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from revector.core.encoders.answers import read_order
from revector.core.encoders.kinds import Setting, choice, whole_number
from revector.core.encoders.remote import KnownModel, Meaning, RemoteEncoder, Role

# The limits of one request, by OpenAI's reference. The tokens are those of all inputs, for OpenAI's own models.
MOST_INPUTS = 2048
MOST_REQUEST_TOKENS = 300_000


class OpenAIEncoder(RemoteEncoder):
    """`openai:MODEL`."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **RemoteEncoder.settings,
        "batch_size": whole_number(1, MOST_INPUTS),
        "encoding": choice("base64", "float"),
    }
    encodings = ("base64", "float")
    server = "an OpenAI-compatible embeddings server"
    path = "/embeddings"
    public_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"

    # As OpenAI listed them in July 2026. Any other model takes its price from the spec, and its dimensions from
    # the first answer.
    models: ClassVar[Mapping[str, KnownModel]] = {
        "text-embedding-3-small": KnownModel(1536, 8192, 0.02, MOST_REQUEST_TOKENS),
        "text-embedding-3-large": KnownModel(3072, 8192, 0.13, MOST_REQUEST_TOKENS),
        "text-embedding-ada-002": KnownModel(1536, 8192, 0.10, MOST_REQUEST_TOKENS),
    }

    def body(self, texts: list[str], role: Role) -> dict[str, Any]:
        """Asks for vectors as base64, or as lists where the server refuses that. Some send lists in any case."""
        body = {"model": self.spec.model, "input": texts, "encoding_format": self.encoding}
        return body | ({"dimensions": self.asked_dimensions} if self.asked_dimensions else {})

    def rows(self, answer: Any) -> list[Any] | None:
        """The objects in `data`."""
        data = answer.get("data") if isinstance(answer, dict) else None
        return data if isinstance(data, list) else None

    def in_order(self, rows: list[Any], n: int) -> Sequence[object]:
        """By their `index` where it says something, else by position: see `read_order`."""
        full = [row for row in rows if isinstance(row, dict) and "embedding" in row]
        places = read_order([row.get("index") for row in full])
        if not len(full) == len(rows) == n:
            raise self.spoilt(n, len(rows), len(full))
        if places is None:
            raise self.spoilt(n, n, len({str(row.get("index")) for row in full}))
        return [full[row]["embedding"] for row in sorted(range(n), key=places.__getitem__)]

    def billed(self, answer: Any, headers: Mapping[str, str]) -> object:
        """`total_tokens`, or `prompt_tokens` where a server counts only those."""
        usage = answer.get("usage")
        return (usage.get("total_tokens") or usage.get("prompt_tokens")) if isinstance(usage, dict) else None

    def meaning(self, status: int, message: str, error: object) -> Meaning:
        """Two kinds of 429 do not pass by waiting: the account has no money left, or the request exceeds the
        limit."""
        if status == 429 and message.startswith("Request too large"):
            return "less"
        if status == 429 and isinstance(error, dict) and error.get("code") == "insufficient_quota":
            return "never"
        return super().meaning(status, message, error)
