"""Metrics of the API as Prometheus reads them: requests, how long they took, what is served and since when.

What belongs here: the metrics and their names. What does not: when they are counted (observing.py).
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass

from turnover_assets.serving.follower import Follower
from turnover_assets.serving.served import Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


class Metrics:
    """The metrics of one server.

    Args:
        follower: Says what is served.
    """

    def __init__(self, follower: Follower[Served]) -> None:
        self._registry = CollectorRegistry()
        self.in_flight = Gauge(
            "turnover_api_in_flight_requests",
            "Requests that are being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._requests = Counter(
            "turnover_api_requests",
            "Requests by route, method and status of the answer; 0 where the caller left before.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "turnover_api_request_seconds",
            "How long requests took.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._of_process = CollectorRegistry()
        self._of_process.register(_SnapshotCollector(follower))
        self._requests_of = lru_cache(maxsize=1000)(self._requests.labels)
        self._seconds_of = lru_cache(maxsize=1000)(self._seconds.labels)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        known = method if method in METHODS else "other"
        self._requests_of(route, known, str(status)).inc()
        self._seconds_of(route).observe(seconds)

    def register(self, collector: Collector) -> None:
        """Tell what others count too; where several processes serve, it is that of the one that is asked."""
        self._of_process.register(collector)

    def text(self) -> bytes:
        """All of them; requests are those of all processes that serve."""
        registry = self._registry
        if _several_processes():
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(self._of_process)

    def close(self) -> None:
        """This process ends; its gauges no longer count."""
        if _several_processes():
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _several_processes() -> bool:
    """Whether processes keep their metrics in files that they share; see server.py."""
    return bool(getattr(ValueClass, "_multiprocess", False))


class _SnapshotCollector(Collector):
    """What is served, read when it is asked for."""

    def __init__(self, follower: Follower[Served]) -> None:
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        following = self._follower.following
        broken = "1 where the snapshot that CURRENT names cannot be used, or nothing is published."
        yield GaugeMetricFamily("turnover_api_snapshot_problem", broken, value=float(bool(following.problem)))
        if following.snapshot is None:
            return
        facts = following.snapshot.facts
        age = datetime.now(UTC) - datetime.fromisoformat(facts["created_at"])
        text = "Age of the snapshot that is served, since it was published."
        yield GaugeMetricFamily("turnover_api_snapshot_age_seconds", text, value=age.total_seconds())
        info = GaugeMetricFamily(
            "turnover_api_snapshot_info", "What is served.", labels=["snapshot", "cutoff", "model_version"]
        )
        version = str(facts["model"]["version"])
        info.add_metric([following.snapshot.name, str(facts["cutoff"]), version], 1.0)
        yield info
