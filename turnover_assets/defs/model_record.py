"""What is shown of a backtest and logged with a model: figures, tables, pictures.

What belongs here: metadata of the model assets and MLflow's record. What does not: the assets (model.py).
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import pandas as pd

from turnover_assets.core import pictures
from turnover_assets.core.backtest import Backtest
from turnover_assets.core.calendar import label_of
from turnover_assets.core.explanation_pictures import importance_picture, partial_plots
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.models import BASELINE, Rows
from turnover_assets.core.partial_dependence import most_important, partial_dependence
from turnover_assets.defs import common
from turnover_assets.settings import Settings
from turnover_assets.storage.registry import TrainedModel, TrainingRecord


def backtest_metadata(found: Backtest) -> dict[str, Any]:
    """What a backtest's asset shows."""
    scores = found.scores()
    wape = scores.set_index("model")["wape"]
    windows = [str(label_of(found.panel, cutoff)) for cutoff in found.cutoffs]
    return {
        "scores": common.preview(scores),
        "picture": common.picture(pictures.scores(scores), "WAPE by candidate"),
        "windows": ", ".join(windows),
        "compared": ", ".join(windows[-len(found.compared) :]),
        "winner": str(scores["model"].iloc[0]),
        "wape": float(wape.iloc[0]),
        "wape_seasonal_naive": float(wape[BASELINE]) if BASELINE in wape.index else None,
    }


def training_record(
    settings: Settings, model: TrainedModel, scores: pd.DataFrame, rows: Rows, run_id: str
) -> TrainingRecord:
    """What MLflow keeps beside the model's files."""
    shares, words = model.candidate.importance(model.features), feature_words(settings.panel_spec)
    images = {"scores": pictures.scores(scores)}
    if len(shares):
        images["importance"] = importance_picture(pd.Series(dtype=float), shares, words)
        top = most_important(model.candidate, model.features)
        images["partial_dependence"] = partial_plots(partial_dependence(model.candidate, rows, top), words)
    chosen = {"training_share": settings.training_share, "seed": settings.seed}
    promised = {name: value for name, value in model.backtest.items() if isfinite(value)}
    weights = {f"weight_{name}": float(w) for name, w in getattr(model.candidate, "weights", {}).items()}
    return TrainingRecord(
        metrics=_metrics(scores) | promised | weights | {"training_rows": float(len(rows))},
        parameters=model.candidate.parameters() | chosen,
        tags={"dagster_run_id": run_id},
        tables={
            "candidate_scores": scores,
            "importance": _named(shares, words),
        },
        pictures=images,
    )


def _named(shares: pd.Series, words: Mapping[str, str]) -> pd.DataFrame:
    """What the model relies on: each feature's share, and what it is in words."""
    table = shares.rename_axis("feature").reset_index(name="share")
    return table.assign(words=[words.get(str(name), "") for name in table["feature"]])


def _metrics(scores: pd.DataFrame) -> dict[str, float]:
    """WAPE and bias of each candidate."""
    found = {}
    for row in scores.to_dict("records"):
        found[f"wape_{row['model']}"], found[f"bias_{row['model']}"] = row["wape"], row["bias"]
    return found
