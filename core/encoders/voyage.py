"""Voyage's embeddings: OpenAI's protocol with other names, and documents told apart from queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from revector.core.encoders.kinds import Setting, whole_number
from revector.core.encoders.openai import OpenAIEncoder
from revector.core.encoders.remote import KnownModel, Role

_MOST_INPUTS = 1000


class VoyageEncoder(OpenAIEncoder):
    """`voyage:MODEL`."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **OpenAIEncoder.settings,
        "batch_size": whole_number(1, _MOST_INPUTS),
    }
    server = "Voyage"
    public_url = "https://api.voyageai.com/v1"
    key_variable = "VOYAGE_API_KEY"
    models: ClassVar[Mapping[str, KnownModel]] = {
        "voyage-3-large": KnownModel(1024, 32_000, 0.18, 120_000),
        "voyage-3.5": KnownModel(1024, 32_000, 0.06, 320_000),
        "voyage-3.5-lite": KnownModel(1024, 32_000, 0.02, 1_000_000),
        "voyage-code-3": KnownModel(1024, 32_000, 0.18, 120_000),
    }

    def body(self, texts: list[str], role: Role) -> dict[str, Any]:
        """Lists are what it sends unless base64 is asked for; a text that is too long is refused, not cut."""
        body = {"model": self.spec.model, "input": texts, "input_type": role, "truncation": False}
        if self.encoding == "base64":
            body["encoding_format"] = "base64"
        return body | ({"output_dimension": self.asked_dimensions} if self.asked_dimensions else {})
