"""The monitoring page: how published forecasts turned out, as HTML files that need no network.

What belongs here: the asset of the pages. What does not: what they say (core/monitoring_page/), and what they
are made from (monitoring/measures). Nothing waits for it, so that a page that cannot be drawn or written
keeps nothing from being published.
"""

from datetime import UTC, datetime

import dagster as dg
import duckdb

from turnover_assets import __version__
from turnover_assets.core.monitoring_page import Made, index_page, monitoring_page
from turnover_assets.defs import common
from turnover_assets.defs.forecasts import MODEL, TABLE
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.settings import Settings
from turnover_assets.storage import pages
from turnover_assets.storage.alert_store import AlertStore

CODE_VERSION = "1"
INDEX = "index.html"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the monitoring pages."""
    panel, folder = settings.panel_spec, settings.monitoring_pages_path

    @dg.asset(
        key=common.MONITORING_PAGE,
        deps=[common.MONITORING],
        group_name="reports",
        description="A page on accuracy, drift, data and runs as of the newest cutoff, and a list of pages.",
        owners=[common.ENGINEERS],
        kinds={"html"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def page(warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            made = made_now(con, settings)
            html = monitoring_page(con, panel, made, open_alerts(settings))
            path = folder / f"{made.cutoff}.html"
            pages.write_page(path, html)
            cutoffs = pages.dated(folder)
            pages.write_page(folder / INDEX, index_page(con, panel, made, cutoffs))
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(path)),
                "bytes": len(html.encode()),
                "cutoff": str(made.cutoff),
                "pages": len(cutoffs),
            }
        )

    return [page]


def open_alerts(settings: Settings) -> list[dict[str, str]]:
    """What alerts had found when they were evaluated last, the worst first."""
    if not settings.incidents_path.is_file():
        return []
    return [
        {
            "severity": incident.severity.value,
            "rule": incident.rule,
            "since": incident.since,
            "sentence": incident.sentence,
            "advice": incident.advice,
        }
        for incident in AlertStore(settings.incidents_path).open_incidents()
    ]


def made_now(con: duckdb.DuckDBPyConnection, settings: Settings) -> Made:
    """What a page of the newest forecasts is of."""
    cutoff = con.execute(f"SELECT CAST(max(cutoff) AS DATE) FROM {TABLE}").fetchall()[0][0]
    version, candidate = con.execute(f"SELECT version, candidate FROM {MODEL}").fetchall()[0]
    now = datetime.now(UTC)
    return Made(cutoff, candidate, int(version), now, __version__, settings.retrain_accuracy_ratio)
