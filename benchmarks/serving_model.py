"""The champion as an MLflow pyfunc model that answers what the API answers: series keys in, forecasts out.

What belongs here: the model that benchmarks/serving.py lets `mlflow models serve` serve; MLflow reads it as a
script ("models from code"), so that nothing is pickled. Its artifacts are the champion's own files and a copy
of the warehouse, from which it takes the feature rows once, when it is loaded.
"""

from pathlib import Path
from typing import Any

import duckdb
import mlflow
import pandas as pd

from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.rows import read_rows, series_sql
from turnover_assets.settings import load_settings
from turnover_assets.storage.registry import TrainedModel


class Champion(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """Forecasts of the series whose keys are asked for."""

    def load_context(self, context: Any) -> None:
        """Read the champion, and the feature rows of each series."""
        self.panel = load_settings().panel_spec
        self.model = TrainedModel.load(Path(context.artifacts["model"]))
        with duckdb.connect(context.artifacts["warehouse"], read_only=True) as con:
            rows = read_rows(con, self.panel, "scoring")
            self.series = con.execute(f"{series_sql(self.panel)} ORDER BY series_id").df()
        ids = rows.identity["series_id"]
        self.rows = {series_id: rows.where((ids == series_id).to_numpy()) for series_id in ids.unique()}
        named = self.series.set_index(list(self.panel.keys))["series_id"]
        self.ids = {(key if isinstance(key, tuple) else (key,)): i for key, i in named.items()}

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Forecasts of the series in each row."""
        found = []
        for keys in model_input[list(self.panel.keys)].itertuples(index=False, name=None):
            rows = self.rows[self.ids[keys]]
            found.append(
                forecast_table(self.panel, self.model.candidate, self.model.intervals, rows, self.series)
            )
        table = pd.concat(found, ignore_index=True)
        return table.assign(**{name: table[name].astype(str) for name in ("cutoff", self.panel.time)})


mlflow.models.set_model(Champion())
