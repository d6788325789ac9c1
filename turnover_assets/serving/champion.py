"""The champion of a snapshot, verified before it is used; and the last good one, where that is refused.

What belongs here: loading a published model, and which one is in use. What does not: what it is asked.

A model whose files are not those that were published, or whose forecasts of the golden rows differ, is
refused. The snapshot is taken into use all the same: its forecasts were made and checked by the pipeline.
Questions that need a model go on with the last good one, and say so.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import pyarrow.parquet as pq
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from turnover_assets.core.features import feature_names
from turnover_assets.core.forecasting import aggregate_table, forecast_table
from turnover_assets.core.golden import differences
from turnover_assets.core.level_changes import NONE, LevelChanges
from turnover_assets.core.models import Rows
from turnover_assets.core.what_if.unchanged import Unchanged
from turnover_assets.errors import ModelRefusedError
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.bench import Bench
from turnover_assets.storage.published_model import GOLDEN, verified_folder
from turnover_assets.storage.registry import TrainedModel, misfits
from turnover_assets.storage.snapshots import Snapshot

log = logging.getLogger(__name__)
LEVEL_CHANGES = "level_changes"  # the published table


@dataclass(frozen=True)
class Champion:
    """A verified model.

    Attributes:
        version: Its number in the registry.
        model: The model.
        panel: The panel that it forecasts.
        snapshot: Name of the snapshot that it was taken from.
        changes: What forecasts of that snapshot carry on, since the model has missed it.
    """

    version: int
    model: TrainedModel
    panel: PanelSpec
    snapshot: str
    changes: LevelChanges = NONE

    @classmethod
    def load(cls, snapshot: Snapshot, panel: PanelSpec) -> "Champion":
        """The model of a snapshot, after its files and its forecasts of the golden rows have been checked.

        Raises:
            ModelRefusedError: There is none, or it is not to be used; the message is the reason.
        """
        folder = verified_folder(snapshot.folder, snapshot.facts)
        try:
            model = TrainedModel.load(folder)
            golden = pq.read_table(folder / GOLDEN).to_pandas()
            wrong = list(misfits(model, panel)) or _order(model, panel)
            changes = _level_changes(snapshot)
            wrong = wrong or _golden(panel, model, golden, changes)
        except Exception as error:  # each library has its own for files that are not its own
            told = f"{type(error).__name__}: {error}"
            raise ModelRefusedError(f"its files cannot be read by this release ({told})") from error
        if wrong:
            raise ModelRefusedError("; ".join(wrong))
        return cls(int(snapshot.facts["model"]["version"]), model, panel, snapshot.name, changes)

    @property
    def name(self) -> str:
        """Name of its candidate."""
        return self.model.candidate.name

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return f"The champion (version {self.version}, {self.name})"

    def forecast(self, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        """Forecasts with bounds; see forecasting.forecast_table."""
        model = self.model
        return forecast_table(self.panel, model.candidate, model.intervals, rows, series, self.changes)

    def aggregate(self, table: pd.DataFrame, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        """Sums of forecasts with bounds of their own; see forecasting.aggregate_table."""
        return aggregate_table(self.panel, self.model.intervals, table, rows, series)

    @cached_property
    def used_features(self) -> frozenset[str]:
        """Names of the features that its forecasts depend on at all."""
        shares = self.model.candidate.importance(self.model.features)
        return frozenset(str(name) for name, share in shares.items() if share > 0)


def _order(model: TrainedModel, panel: PanelSpec) -> list[str]:
    same = list(model.features) == feature_names(panel)
    return [] if same else ["its features stand in another order than this release makes them"]


def _level_changes(snapshot: Snapshot) -> LevelChanges:
    """What was published of them; releases that did not know them carried nothing on."""
    if LEVEL_CHANGES not in snapshot.facts["tables"]:
        return NONE
    return LevelChanges(snapshot.read(LEVEL_CHANGES))


def _golden(panel: PanelSpec, model: TrainedModel, golden: pd.DataFrame, changes: LevelChanges) -> list[str]:
    found = differences(panel, model.candidate, model.intervals, model.features, golden, changes)
    return [f"its forecasts of the golden rows are not those that were published: {found}"] if found else []


@dataclass(frozen=True)
class InUse:
    """Which model answers beside a snapshot, and the tables that it is asked about.

    Attributes:
        bench: The snapshot's tables.
        champion: The model; None where there is no good one yet.
        problem: Why it is not that of the snapshot; empty where it is.
        unchanged: What the model forecasts of the tables without changes, as far as it was asked.
    """

    bench: Bench
    champion: Champion | None
    problem: str = ""
    unchanged: Unchanged = field(default_factory=Unchanged)

    def close(self) -> None:
        """Give the memory back."""
        self.bench.close()


class Champions(Collector):
    """Which champion is in use, from one snapshot to the next; tells metrics of it.

    Args:
        panel: The panel.

    Attributes:
        problem: Why the champion of the newest snapshot is not in use; empty where it is.
    """

    def __init__(self, panel: PanelSpec) -> None:
        self._panel = panel
        self._good: Champion | None = None
        self._lock = threading.Lock()
        self.problem = ""

    def take(self, snapshot: Snapshot) -> InUse:
        """The model to use beside a snapshot: its own, or the last good one where that is refused."""
        with self._lock:
            version, self.problem = snapshot.facts.get("model", {}).get("version"), ""
            try:
                self._good = Champion.load(snapshot, self._panel)
            except ModelRefusedError as error:
                instead = (
                    f"version {self._good.version} answers instead" if self._good else "no model answers"
                )
                self.problem = f"Model version {version} is not used, {instead}: {error}."
                log.warning("The champion of the snapshot %s: %s", snapshot.name, self.problem)
            return InUse(Bench(snapshot, self._panel), self._good, self.problem)

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        refused = "1 where the model of the snapshot that is served is not used."
        yield GaugeMetricFamily("turnover_api_model_problem", refused, value=float(bool(self.problem)))
        if self._good is not None:
            text = "Version of the model that answers what-if questions."
            yield GaugeMetricFamily("turnover_api_model_version", text, value=float(self._good.version))
