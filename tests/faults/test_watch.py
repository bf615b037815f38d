"""The watch beside a service that searches: an outage and a slow version are rolled back, the same again is not."""

from __future__ import annotations

import pytest

from revector.core import cutover
from revector.core.database import Database
from tests.faults.numbers import NUMBERS
from tests.faults.watch import wait_until
from tests.faults.watched import LATENCY_S, searched_shop, since_active, watched


@pytest.mark.parametrize("how", ["the same", "gone", "slow"])
def test_a_version_is_rolled_back_for_what_it_does(target: Database, how: str) -> None:
    with searched_shop(target) as shop, target.session("watch") as connection:
        wait_until("enough is counted before", lambda: since_active(connection, "v1").searches >= 300)
        server = shop.encoders["v2"]
        server.gone, server.latency_s = how == "gone", LATENCY_S * (8 if how == "slow" else 1)
        connection.execute(cutover.FLIP, {"key": "v2"})
        flip, watch = watched(connection, NUMBERS.patience_s if how != "the same" else NUMBERS.calm_s)
        limits = [one.limit for one in watch.breaches]
    match how:
        case "the same":
            assert (flip, limits) == (None, [])
            assert watch.since.searches > 100
        case "gone":
            assert flip is not None
            assert limits == ["max_error_rate"]
        case "slow":
            assert flip is not None
            assert limits == ["max_latency_ratio"]
