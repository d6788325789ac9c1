"""Forecasts as of past cutoffs, a partition each: the backfill of forecasts.

What belongs here: the partitioned asset, and registering its partitions. What does not: making the forecasts
(core/as_of.py).
"""

from datetime import date

import dagster as dg
import duckdb

from turnover_assets.core import as_of
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.metrics import coverage, wape
from turnover_assets.core.models import Blend
from turnover_assets.core.tuned import read_tuned
from turnover_assets.defs import common
from turnover_assets.defs.partitions import CUTOFFS
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.warehouse import Warehouse

CODE_VERSION = "1"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of past forecasts."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.AS_OF,
        partitions_def=CUTOFFS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[common.cleaned_key(panel.series.name), common.cleaned_key("adjustments")],
        group_name="forecasts",
        description="What would have been forecast at a past cutoff, with what could be known then; one "
        "partition is one cutoff. Published with the next snapshot as forecasts_as_of.",
        owners=[common.SCIENTISTS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def forecasts_as_of(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        model = champions_candidate(registry.open())
        for key in context.partition_keys:  # one at a time, so that memory is that of one
            figures = make(warehouse.open(), settings, date.fromisoformat(key), model, context)
            context.add_asset_metadata(figures, partition_key=key)
            context.log.info("as of %s: WAPE %.2f %%", key, 100 * figures["wape"])
        with warehouse.open().transaction() as con:
            return dg.MaterializeResult(metadata=common.table_metadata(con, as_of.AS_OF))

    return [forecasts_as_of]


def make(
    warehouse: Warehouse,
    settings: Settings,
    cutoff: date,
    model: str,
    context: dg.AssetExecutionContext,
) -> dict[str, float]:
    """Forecast as of a cutoff and keep the rows; returns what they were worth by now."""
    panel, t = settings.panel_spec, index_of(settings.panel_spec, cutoff)
    with warehouse.transaction() as con:
        plan = common.training_plan(settings, read_tuned(con).parameters)
    windows, tell = settings.backtest_windows, context.log.info
    found = as_of.forecast_as_of(warehouse.transaction, panel, [t], [model], plan, windows, tell)
    rows = as_of.labelled(found.rows(model, [t]), panel, panel.keys)
    with warehouse.transaction() as con:
        as_of.keep_as_of(con, rows)
    actual, forecast, lower, upper = (
        rows[name].to_numpy(float) for name in ("actual", "forecast", "lower_80", "upper_80")
    )
    return {
        "rows": len(rows),
        "wape": wape(actual, forecast),
        "coverage_80": coverage(actual, lower, upper),
    }


def champions_candidate(registry: ModelRegistry) -> str:
    """Name of the champion's candidate; a blend where there is no champion."""
    version = registry.find_champion()
    return registry.candidate_of(version) if version else Blend.name


def add_cutoffs(
    instance: dg.DagsterInstance, con: duckdb.DuckDBPyConnection, panel: PanelSpec, alive: int
) -> None:
    """Make a partition of every cutoff that can be forecast by now."""
    labels = [str(label_of(panel, t)) for t in as_of.possible_cutoffs(con, panel, alive)]
    known = set(instance.get_dynamic_partitions(str(CUTOFFS.name)))
    if new := [label for label in labels if label not in known]:
        instance.add_dynamic_partitions(str(CUTOFFS.name), new)
