"""Cohere's embeddings, by its second API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from revector.core.encoders.kinds import Setting, whole_number
from revector.core.encoders.remote import KnownModel, RemoteEncoder, Role

_INPUT_TYPES = {"document": "search_document", "query": "search_query"}
_MOST_INPUTS = 96


class CohereEncoder(RemoteEncoder):
    """`cohere:MODEL`. Documents and queries are told apart by `input_type`."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **RemoteEncoder.settings,
        "batch_size": whole_number(1, _MOST_INPUTS),
    }
    server = "Cohere"
    path = "/embed"
    public_url = "https://api.cohere.com/v2"
    key_variable = "CO_API_KEY"
    most_inputs = _MOST_INPUTS
    models: ClassVar[Mapping[str, KnownModel]] = {
        "embed-v4.0": KnownModel(1536, 128_000, 0.12),
        "embed-english-v3.0": KnownModel(1024, 512, 0.10),
        "embed-multilingual-v3.0": KnownModel(1024, 512, 0.10),
    }

    def body(self, texts: list[str], role: Role) -> dict[str, Any]:
        """Asks for floats; a text that is too long is refused, not cut."""
        body = {
            "model": self.spec.model,
            "texts": texts,
            "input_type": _INPUT_TYPES[role],
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        return body | ({"output_dimension": self.asked_dimensions} if self.asked_dimensions else {})

    def rows(self, answer: Any) -> list[Any] | None:
        """The lists in `embeddings.float`, in the order of the texts."""
        embeddings = answer.get("embeddings") if isinstance(answer, dict) else None
        found = embeddings.get("float") if isinstance(embeddings, dict) else None
        return found if isinstance(found, list) else None

    def billed(self, answer: Any, headers: Mapping[str, str]) -> object:
        """`input_tokens` of the billed units."""
        meta = answer.get("meta")
        units = meta.get("billed_units") if isinstance(meta, dict) else None
        return units.get("input_tokens") if isinstance(units, dict) else None
