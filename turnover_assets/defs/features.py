"""Features: rows of (series, cutoff, horizon) for training, holdout and scoring.

What belongs here: the assets of feature rows. What does not: the features (core/features.py).
"""

from collections.abc import Iterator

import dagster as dg

from turnover_assets.core import features
from turnover_assets.core.rows import RowLimits, fill_tables
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings

CODE_VERSION = "2"
DESCRIPTIONS = {
    common.TRAINING: "Feature rows of past cutoffs, the share of them that the settings name.",
    common.HOLDOUT_TRAINING: "Feature rows that candidates are fitted on, as known at the holdout's cutoff.",
    common.HOLDOUT: "Feature rows of the cutoff one horizon back, on which candidates are compared.",
    common.SCORING: "Feature rows of the newest cutoff, for every series alive.",
}


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """One operation that makes all tables from one SQL text."""
    panel = settings.panel_spec
    limits = RowLimits(settings.training_share, settings.max_training_rows, settings.alive_periods)

    @dg.multi_asset(
        name="make_features",
        specs=[_spec(panel, key, text) for key, text in DESCRIPTIONS.items()],
        pool=common.POOL,
    )
    def make_features(warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
        repairs = common.repairs(settings)
        with warehouse.open().transaction() as con:
            fill_tables(con, panel, limits, repairs)
            metadata = {key: common.table_metadata(con, ".".join(key.path)) for key in DESCRIPTIONS}
        for key, facts in metadata.items():
            yield dg.MaterializeResult(
                asset_key=key, metadata={**facts, "features": len(features.feature_names(panel))}
            )

    return [make_features]


def _spec(panel: PanelSpec, key: dg.AssetKey, description: str) -> dg.AssetSpec:
    tables = [
        panel.series.name,
        "adjustments",
        *(t.name for t in panel.static),
        *(t.name for t in panel.covariates),
    ]
    return dg.AssetSpec(
        key,
        deps=[common.cleaned_key(table) for table in tables],
        group_name="features",
        description=description,
        owners=[common.SCIENTISTS],
        kinds={"duckdb", "sql"},
        code_version=CODE_VERSION,
    )
