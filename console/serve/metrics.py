"""Prometheus metrics. Labels are routes, versions and kinds of errors, never values from a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import prometheus_client as prometheus
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each that says when it began


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        prometheus.PlatformCollector(registry=self._registry)
        self.requests = prometheus.Counter(
            "revector_requests",
            "Requests answered, by route and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self.request_seconds = prometheus.Histogram(
            "revector_request_seconds",
            "From a request's headers to its answer, by route.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = prometheus.Gauge(
            "revector_requests_in_flight", "Requests in progress.", registry=self._registry
        )
        self.errors = prometheus.Counter(
            "revector_errors", "Requests that failed, by type.", ["type"], registry=self._registry
        )
        self.search_seconds = prometheus.Histogram(
            "revector_search_seconds",
            "Searches by the version that answered: the query's encoding, and the database's part.",
            ["version", "step"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.empty = prometheus.Counter(
            "revector_empty_results",
            "Searches that found nothing, by version.",
            ["version"],
            registry=self._registry,
        )

    def watch(self, figures: Callable[[], Mapping[str, float]], served: Callable[[], Mapping[str, str]]) -> None:
        """Add values read at each scrape: connections of the pool, and the served version."""
        self._registry.register(_Live(figures, served))

    def searched(self, version: str, encode_s: float, search_s: float, hits: int) -> None:
        """Count an answered search."""
        self.search_seconds.labels(version, "encode").observe(encode_s)
        self.search_seconds.labels(version, "database").observe(search_s)
        if not hits:
            self.empty.labels(version).inc()

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)


@dataclass(frozen=True, eq=False)
class _Live(Collector):
    figures: Callable[[], Mapping[str, float]]
    served: Callable[[], Mapping[str, str]]

    def collect(self) -> Iterator[Metric]:
        for name, value in self.figures().items():
            yield GaugeMetricFamily(f"revector_{name}", f"The server's {name.replace('_', ' ')}.", value)
        info = InfoMetricFamily("revector_served_version", "The version that answers, as labels.")
        if served := self.served():
            info.add_metric([], dict(served))
        yield info
