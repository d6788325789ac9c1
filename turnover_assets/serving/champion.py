"""The champion of a snapshot, verified before it is used; and the last good one, where that is refused.

What belongs here: loading a published model, and which one is in use. What does not: questions that it is asked.

A model whose files are not those that were published, or whose forecasts of the golden rows differ, is refused.
The snapshot is taken into use all the same: its forecasts were made and checked by the pipeline. Questions that
need a model go on with the last good one, and are told so.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import pyarrow.parquet as pq

from turnover_assets.core.features import feature_names
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.golden import differences
from turnover_assets.core.models import Rows
from turnover_assets.errors import ModelRefusedError, TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.published_model import GOLDEN, verified_folder
from turnover_assets.storage.registry import TrainedModel, misfits
from turnover_assets.storage.snapshots import Snapshot

UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, OSError, TurnoverError)


@dataclass(frozen=True)
class Champion:
    """A verified model.

    Attributes:
        version: Its number in the registry.
        model: The model.
        panel: The panel that it forecasts.
        snapshot: Name of the snapshot that it was taken from.
    """

    version: int
    model: TrainedModel
    panel: PanelSpec
    snapshot: str

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
            wrong = wrong or _golden(panel, model, golden)
        except UNREADABLE as error:
            raise ModelRefusedError(f"its files cannot be read by this release ({error})") from error
        if wrong:
            raise ModelRefusedError("; ".join(wrong))
        return cls(int(snapshot.facts["model"]["version"]), model, panel, snapshot.name)

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
        return forecast_table(self.panel, self.model.candidate, self.model.intervals, rows, series)

    @cached_property
    def used_features(self) -> frozenset[str]:
        """Names of the features that its forecasts depend on at all."""
        shares = self.model.candidate.importance(self.model.features)
        return frozenset(str(name) for name, share in shares.items() if share > 0)


def _order(model: TrainedModel, panel: PanelSpec) -> list[str]:
    same = list(model.features) == feature_names(panel)
    return [] if same else ["its features stand in another order than this release makes them"]


def _golden(panel: PanelSpec, model: TrainedModel, golden: pd.DataFrame) -> list[str]:
    found = differences(panel, model.candidate, model.intervals, model.features, golden)
    return [f"its forecasts of the golden rows are not those that were published: {found}"] if found else []


@dataclass(frozen=True)
class InUse:
    """Which model answers beside a snapshot.

    Attributes:
        champion: The model; None where there is no good one yet.
        problem: Why it is not that of the snapshot; empty where it is.
    """

    champion: Champion | None
    problem: str = ""


class Champions:
    """Which champion is in use, from one snapshot to the next.

    Args:
        panel: The panel.
    """

    def __init__(self, panel: PanelSpec) -> None:
        self._panel = panel
        self._good: Champion | None = None
        self._lock = threading.Lock()

    def take(self, snapshot: Snapshot) -> InUse:
        """The model to use beside a snapshot: its own, or the last good one where that is refused."""
        with self._lock:
            version = snapshot.facts.get("model", {}).get("version")
            try:
                self._good = Champion.load(snapshot, self._panel)
            except ModelRefusedError as error:
                return InUse(self._good, f"Model version {version} of {snapshot.name!r} is not used: {error}.")
            return InUse(self._good)
