"""Evidently's three reports on the newest cutoff, for those who know them; an extra, made when asked for.

What belongs here: the asset of the files. What does not: what is compared (core/report_samples.py), and
calling Evidently (storage/evidently_reports.py).

The asset is in no job but its own, and not in the pool of the warehouse: Evidently takes its time, in which
forecasts must go on. The warehouse's own lock is held while rows are read, not while they are drawn.
"""

import dagster as dg
import duckdb

from turnover_assets.core.report_samples import Samples, feature_samples, outcome_samples, target_samples
from turnover_assets.core.tables import has_table
from turnover_assets.defs import common
from turnover_assets.defs.forecasts import TABLE
from turnover_assets.defs.model import BACKTEST
from turnover_assets.defs.monitoring_page import made_now
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage import evidently_reports as evidently
from turnover_assets.storage.pages import write_page

CODE_VERSION = "1"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of Evidently's reports."""

    @dg.asset(
        key=common.EVIDENTLY,
        deps=[common.MONITORING],
        group_name="reports",
        description="Data drift, target drift and regression performance by Evidently, if it is installed.",
        owners=[common.SCIENTISTS],
        kinds={"html"},
        code_version=CODE_VERSION,
    )
    def reports(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> dg.MaterializeResult[None]:
        evidently.require_evidently()
        with warehouse.open().transaction() as con:
            cutoff, samples = samples_now(con, settings)
        folder = settings.evidently_pages_path / cutoff
        found = evidently.evidently_reports(samples)
        for name, html in found.items():
            write_page(folder / f"{name}.html", html)
            context.log.info(f"{name}: {samples[name].told}")
        return dg.MaterializeResult(
            metadata={
                "folder": dg.MetadataValue.path(str(folder)),
                "reports": ", ".join(found),
                "bytes": sum(len(html.encode()) for html in found.values()),
            }
        )

    return [reports]


def samples_now(con: duckdb.DuckDBPyConnection, settings: Settings) -> tuple[str, dict[str, Samples]]:
    """The newest cutoff, and what each report compares; one without rows is left out.

    Raises:
        TurnoverError: Nothing was forecast yet.
    """
    panel = settings.panel_spec
    if not has_table(con, TABLE):
        raise TurnoverError("Nothing was forecast in this home yet. Run `turnover run` first.")
    made = made_now(con, settings)
    found = {
        evidently.DATA_DRIFT: feature_samples(con, panel),
        evidently.TARGET_DRIFT: target_samples(con, panel),
        evidently.PERFORMANCE: outcome_samples(con, panel, BACKTEST, made.model),
    }
    return str(made.cutoff), {name: each for name, each in found.items() if each is not None}
