"""Small models and registries for tests."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd

from turnover_assets.core.features import feature_names
from turnover_assets.core.intervals import Intervals
from turnover_assets.core.models.naive import SeasonalNaive
from turnover_assets.storage import _mlflow
from turnover_assets.storage.registry import ModelRegistry, TrainedModel, TrainingRecord
from turnover_assets_tests.factories import default_panel


def make_registry(folder: Path, versions: int = 0) -> ModelRegistry:
    """A registry, copied since MLflow takes seconds to make its store.

    Args:
        folder: Where to make it.
        versions: How many versions it holds, none of them champion.
    """
    shutil.copytree(_template(versions), folder)
    return ModelRegistry(folder, default_panel().name)


@cache
def _template(versions: int) -> Path:
    folder = Path(mkdtemp(prefix="turnover-registry-")) / "mlflow"
    atexit.register(shutil.rmtree, folder.parent)
    if not versions:
        _mlflow.connect(folder).search_experiments()
        return folder
    registry = make_registry(folder)
    for _ in range(versions):
        registry.register(make_model(), make_training_record())
    return folder


def make_model() -> TrainedModel:
    """A baseline with the features of the default panel."""
    panel = default_panel()
    quantiles = pd.DataFrame(
        {"lower_80": [-0.2], "upper_80": [0.2], "lower_95": [-0.4], "upper_95": [0.4]},
        index=pd.Index([1], name="horizon"),
    )
    versions = {"panel": panel.digest, "cutoff": "2017-08-05", "code_version": "0.0.1"}
    return TrainedModel(SeasonalNaive(), Intervals(quantiles), tuple(feature_names(panel)), versions)


def make_training_record() -> TrainingRecord:
    """What is logged with it."""
    return TrainingRecord(
        metrics={"wape": 0.15, "bias": -0.01, "coverage_80": 0.79},
        parameters={"seed": 1},
        tags={"dagster_run_id": "run 1", "recipe": "abc123"},
        tables={"scores": pd.DataFrame({"model": ["seasonal_naive"], "wape": [0.15]})},
        pictures={"scores": b"a picture"},
    )
