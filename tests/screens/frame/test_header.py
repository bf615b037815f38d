"""The lines above the tabs."""

from __future__ import annotations

import pytest

from revector.core.errors import RevectorError
from revector.screens.frame.header import Banner
from revector.screens.frame.snapshots import Reading
from tests.screens.frozen import OVERVIEW


@pytest.mark.parametrize("end", ["", "."])
def test_the_banner_is_made_of_sentences(end: str) -> None:
    banner = Banner()
    banner.reading = Reading(OVERVIEW, error=RevectorError(f'column "at" does not exist{end}'))
    assert 'column "at" does not exist. The data below is ' in banner.render().plain
