"""Profiles: what the cleaned tables hold, kept over time, and the page on it.

What belongs here: the assets of the profile tables and of the page. What does not: their content
(core/profiling.py, core/pages.py). They are two assets, so that a page that cannot be drawn or written
keeps nothing from being published.
"""

from datetime import UTC, datetime

import dagster as dg

from turnover_assets import __version__
from turnover_assets.core import pages, profiling
from turnover_assets.defs import cleaned, common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.settings import Settings
from turnover_assets.storage.pages import write_page

CODE_VERSION = "1"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The profile assets."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.PROFILE,
        deps=[common.cleaned_key(table) for table in cleaned.table_names(panel)],
        group_name="reports",
        description="Rows, nulls, distinct keys and measures of every cleaned table, for each of the newest "
        f"{profiling.RUNS_KEPT} runs; beside it the newest by file and by period.",
        owners=[common.ENGINEERS],
        kinds={"duckdb", "sql"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def profile(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> dg.MaterializeResult[None]:
        version = common.latest_metadata(context.instance, common.cleaned_key(panel.series.name)).get(
            "data_version", "unknown"
        )
        run = profiling.ProfiledRun(context.run.run_id, datetime.now(UTC), str(version))
        with warehouse.open().transaction() as con:
            profiling.keep_profile(con, panel, run)
            return dg.MaterializeResult(
                metadata={
                    **common.table_metadata(con, profiling.PROFILE),
                    "by_file": common.preview(
                        con.execute(f"SELECT * FROM {profiling.BY_FILE} ORDER BY file_no DESC").df()
                    ),
                }
            )

    @dg.asset(
        key=common.PROFILE_PAGE,
        deps=[common.PROFILE],
        group_name="reports",
        description="The profile as one HTML file that needs no network.",
        owners=[common.ENGINEERS],
        kinds={"html"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def profile_page(warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            html = pages.profile_page(con, panel, profiling.newest_run(con), __version__)
        write_page(settings.profile_page_path, html)
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(settings.profile_page_path)),
                "bytes": len(html.encode()),
            }
        )

    return [profile, profile_page]
