"""All readings together, as prometheus-client collects them: each part apart, kept for a while.

What belongs here: which parts there are, for how long a reading is good, and what happens where one fails.
What does not: the readings themselves (home.py, dagster_records.py), and serving them (endpoint.py).
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from turnover_assets import __version__
from turnover_assets.core.operator_metrics import METRICS, Reading, by_metric
from turnover_assets.observability import dagster_records, home
from turnover_assets.settings import Settings

Source = Callable[[Settings], Iterable[Reading]]
KEPT_SECONDS = 5.0  # a storm of scrapes costs one reading
SIZES_KEPT_SECONDS = 300.0  # walking the home takes longer, and its size changes slowly


@dataclass(frozen=True)
class Part:
    """A source of readings that may fail without the others.

    Attributes:
        read: Gives its readings.
        kept_seconds: For how long they are good.
        is_slow: Whether a scrape should not wait for it, but take what was read before.
    """

    read: Source
    kept_seconds: float = KEPT_SECONDS
    is_slow: bool = False


def _of_instance(read: Callable[..., Iterable[Reading]]) -> Source:
    """A source that reads Dagster's instance; nothing where there is none yet."""

    def source(settings: Settings) -> Iterator[Reading]:
        with dagster_records.records(settings) as instance:
            if instance is not None:
                yield from read(instance)

    return source


def about(settings: Settings) -> Iterator[Reading]:
    """What is known without looking: release, panel, and when data counts as late."""
    panel = settings.panel_spec
    yield Reading("turnover_build_info", 1.0, (__version__, panel.name))
    yield Reading("turnover_data_late_after_seconds", settings.late_after.total_seconds())


PARTS: Mapping[str, Part] = {
    "settings": Part(about),
    "runs": Part(_of_instance(dagster_records.run_readings)),
    "assets": Part(_of_instance(dagster_records.asset_readings)),
    "automation": Part(_of_instance(dagster_records.automation_readings)),
    "snapshot": Part(home.published_readings),
    "measures": Part(home.quality_readings),
    "incidents": Part(home.incident_readings),
    "space": Part(home.space_readings),
    "sizes": Part(home.size_readings, SIZES_KEPT_SECONDS, is_slow=True),
}


class HomeCollector(Collector):
    """Reads a data home when it is asked, at most every few seconds; safe to ask from several threads.

    Invariants:
        - a part that cannot be read is left out and counted, and the others are there;
        - old readings are never shown in place of those that failed.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Mapping[str, Part] = PARTS,
        *,
        clock: Callable[[], float] = time.monotonic,
        in_background: bool = False,
        tell: Callable[[str, Exception], None] = lambda _part, _error: None,
    ) -> None:
        """A collector of one home.

        Args:
            settings: The settings, with the home.
            parts: Where readings come from, by name.
            clock: Seconds since any moment.
            in_background: Read slow parts aside; they lack in the first answer.
            tell: Hears of a part that begins to fail.
        """
        self._settings, self._parts, self._clock, self._tell = settings, parts, clock, tell
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, list[Reading]]] = {}  # good until, and readings
        self._errors = dict.fromkeys(parts, 0)
        self._seconds: dict[str, float] = {}
        self._failing: set[str] = set()
        self._in_background, self._under_way = in_background, set[str]()

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        with self._lock:
            readings = [reading for part in self._parts for reading in self._readings(part)]
            readings += [
                Reading("turnover_scrape_errors_total", float(count), (part,))
                for part, count in self._errors.items()
            ]
            readings += [
                Reading("turnover_scrape_duration_seconds", spent, (part,))
                for part, spent in self._seconds.items()
            ]
        for name, found in by_metric(readings).items():
            yield _family(name, found)

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering reads nothing."""
        return []

    def _readings(self, name: str) -> list[Reading]:
        """Readings of a part, those kept where they are still good."""
        part, now = self._parts[name], self._clock()
        until, kept = self._kept.get(name, (now, []))
        if now < until or name in self._under_way:
            return kept
        if not (part.is_slow and self._in_background):
            return self._keep(name, part, *_attempt(part, self._settings))
        self._under_way.add(name)
        threading.Thread(target=self._read_aside, args=(name, part), daemon=True).start()
        return kept

    def _read_aside(self, name: str, part: Part) -> None:
        """Read a slow part while scrapes go on."""
        attempt = _attempt(part, self._settings)
        with self._lock:
            self._keep(name, part, *attempt)
            self._under_way.discard(name)

    def _keep(
        self, name: str, part: Part, found: list[Reading], error: Exception | None, seconds: float
    ) -> list[Reading]:
        """Take in what a reading gave; only while the lock is held."""
        self._kept[name] = (self._clock() + part.kept_seconds, found)
        self._seconds[name] = seconds
        if error is None:
            self._failing.discard(name)
            return found
        self._errors[name] += 1
        if name not in self._failing:
            self._tell(name, error)
        self._failing.add(name)
        return found


def _attempt(part: Part, settings: Settings) -> tuple[list[Reading], Exception | None, float]:
    """Readings of a part, what was wrong, and the seconds it took."""
    began = time.perf_counter()
    try:
        return list(part.read(settings)), None, time.perf_counter() - began
    except Exception as error:  # noqa: BLE001  whatever is wrong with one part, the others answer
        return [], error, time.perf_counter() - began


def _family(name: str, readings: Iterable[Reading]) -> Metric:
    """Readings of one metric in the form of prometheus-client."""
    metric = METRICS[name]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.help, labels=metric.labels)
    for reading in readings:
        family.add_metric(reading.labels, reading.value)
    return family
