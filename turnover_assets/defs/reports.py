"""Reports: tables that people read, with a picture each.

What belongs here: the report assets. What does not: their definitions (core/reports.py).
"""

import dagster as dg

from turnover_assets.core import pictures, reports
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings

CODE_VERSION = "1"


def monthly_name(panel: PanelSpec) -> str:
    """Name of the monthly report, for example `department_turnover`."""
    return f"{panel.report_level}_{panel.target}"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The report assets."""
    panel = settings.panel_spec
    level, target = panel.report_level, panel.target

    @dg.asset(
        key=["reports", monthly_name(panel)],
        deps=[common.cleaned_key(panel.series.name)],
        group_name="reports",
        description=f"Reported {target} per {level}, month and year; a week is spread over its days.",
        owners=[common.ENGINEERS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def monthly(warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
        name = f"reports.{monthly_name(panel)}"
        with warehouse.open().transaction() as con:
            table = reports.monthly_turnover(con, panel)
            schema = common.keep_table(con, name, table)
        yearly = table.drop_duplicates(["year", level])[["year", level, f"{target}_year", "rank_in_year"]]
        return dg.MaterializeResult(
            metadata={
                **schema,
                "by_year": common.preview(
                    yearly.sort_values(["year", "rank_in_year"], ascending=[False, True])
                ),
                "picture": common.picture(pictures.monthly(table, level, target), f"{target} by {level}"),
            }
        )

    @dg.asset(
        key=["reports", "seasonal_profile"],
        deps=[common.cleaned_key(panel.series.name)],
        group_name="reports",
        description=f"Share of the year by week for each {level}, with its peak weeks.",
        owners=[common.ENGINEERS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def seasonal_profile(warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            table = reports.seasonal_profile(con, panel)
            schema = common.keep_table(con, "reports.seasonal_profile", table)
        return dg.MaterializeResult(
            metadata={
                **schema,
                "peaks": common.preview(table[table["peak"]]),
                "picture": common.picture(pictures.profile(table, level), "season"),
            }
        )

    return [monthly, seasonal_profile]
