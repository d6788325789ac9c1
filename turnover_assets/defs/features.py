"""Features: rows of (series, cutoff, horizon) for training and scoring.

What belongs here: the assets of feature rows. What does not: the features (core/features.py).
"""

from collections.abc import Callable

import dagster as dg
import duckdb

from turnover_assets.core import features
from turnover_assets.core.rows import RowLimits, fill_scoring, fill_training
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings

CODE_VERSION = "7"
DESCRIPTIONS = {
    common.TRAINING: "Feature rows of past cutoffs, the share of them that the settings name.",
    common.SCORING: "Feature rows of the newest cutoff, for every series alive.",
}
Fill = Callable[[duckdb.DuckDBPyConnection, PanelSpec, RowLimits], None]


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """Two assets, made by the same expressions; scoring rows are needed far more often."""
    return [_rows(settings, common.TRAINING, fill_training), _rows(settings, common.SCORING, fill_scoring)]


def _rows(settings: Settings, key: dg.AssetKey, fill: Fill) -> dg.AssetsDefinition:
    panel = settings.panel_spec

    @dg.asset(
        key=key,
        deps=[common.cleaned_key(table) for table in _tables(panel)],
        group_name="features",
        description=DESCRIPTIONS[key],
        owners=[common.SCIENTISTS],
        kinds={"duckdb", "sql"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def rows(warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            fill(con, panel, common.row_limits(settings))
            schema = common.table_metadata(con, ".".join(key.path))
        return dg.MaterializeResult(
            metadata={**schema, "features": len(features.feature_names(panel))},
        )

    return rows


def _tables(panel: PanelSpec) -> list[str]:
    """Names of the cleaned tables that features are made from."""
    return [*panel.tables, "adjustments"]
