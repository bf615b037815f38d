from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from revector.core.encoders import open_encoder, parse_spec, probe
from revector.core.errors import UnreachableError, UsageError


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A package of someone else's, installed as pip would leave it, that brings two providers."""
    (tmp_path / "acme_encoders.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from revector.core.encoders.kinds import whole_number

            class Lengths:
                settings = {"width": whole_number(2, 9)}
                revision, price, max_tokens = "1", 0.0, None

                def __init__(self, spec):
                    self.name = spec.name
                    self.prefix = spec.document_prefix
                    self.dimensions = int(spec.settings.get("width", 2))

                def encode_documents(self, texts):
                    rows = [[1 + len(self.prefix + text)] * self.dimensions for text in texts]
                    return np.array(rows, dtype=np.float32)

                def encode_query(self, text):
                    return self.encode_documents([text])[0]

                def count_tokens(self, texts):
                    return len(texts)

                def close(self):
                    pass

            def throttled(spec):
                encoder = Lengths(spec)
                encoder.on_throttle = encoder.on_resume = encoder.wait = None
                return encoder
            """
        )
    )
    info = tmp_path / "acme_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[revector.encoders]\nacme = acme_encoders:Lengths\nacme-slow = acme_encoders:throttled\n"
        "acme-broken = acme_encoders_missing:Lengths\nstatic = acme_encoders:Lengths\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_encoders", None)


@pytest.mark.usefixtures("acme")
def test_another_packages_encoder_opens_by_its_entry_point():
    encoder = open_encoder("acme:any?width=3&document_prefix=ab")
    assert encoder.name == "acme:any"
    np.testing.assert_array_equal(encoder.encode_documents(["x"]), np.full((1, 3), 4, np.float32))
    assert probe(encoder) == 3


@pytest.mark.usefixtures("acme")
def test_its_settings_are_checked_as_it_declares_them():
    with pytest.raises(UsageError, match=r"acme setting width is '10'.\nExpected: a whole number from 2 to 9"):
        parse_spec("acme:any?width=10")
    with pytest.raises(UsageError, match=r"no acme setting 'widht'.\nDid you mean width"):
        parse_spec("acme:any?widht=3")


@pytest.mark.usefixtures("acme")
def test_it_is_offered_when_the_name_is_nearly_right():
    with pytest.raises(UsageError, match=r"no encoder provider 'acne'.\nDid you mean acme"):
        parse_spec("acne:any")


@pytest.mark.usefixtures("acme")
def test_a_built_in_provider_cannot_be_replaced():
    assert open_encoder("static:wordllama-64").dimensions == 64


@pytest.mark.usefixtures("acme")
def test_a_package_that_cannot_be_imported_is_named():
    with pytest.raises(UnreachableError, match="'acme-broken' of the package acme-encoders cannot be loaded"):
        parse_spec("acme-broken:any")


@pytest.mark.usefixtures("acme")
def test_an_encoder_that_waits_tells_its_caller():
    told = [].append
    encoder = open_encoder("acme-slow:any", on_throttle=told)
    assert encoder.on_throttle is told


def test_importing_the_package_and_reading_a_spec_loads_nothing_heavy():
    heavy = {"numpy", "torch", "sentence_transformers", "transformers", "httpx2", "tokenizers", "wordllama"}
    check = f"""
        import sys
        import revector.core.encoders
        assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)
        for text in ("static:wordllama-64", "openai:x?dimensions=3", "sentence-transformers:x"):
            revector.core.encoders.parse_spec(text)
        assert not {heavy - {"numpy", "tokenizers"}!r} & set(sys.modules)
        encoder = revector.core.encoders.open_encoder("static:wordllama-64")
        encoder.encode_query("hello")
        assert not {heavy - {"numpy", "tokenizers"}!r} & set(sys.modules)
    """
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", textwrap.dedent(check)], check=True, cwd=root)
