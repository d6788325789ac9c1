"""Cleaned: typed tables, unique on their keys, with every rejected row kept apart.

What belongs here: the assets of cleaned tables. What does not: the rules, and the checks (checks.py).
"""

from collections.abc import Iterator

import dagster as dg
import duckdb

from turnover_assets.core import cleaning, pictures, reports
from turnover_assets.core.adjustments import ADJUSTMENTS
from turnover_assets.core.anomalies.findings import FINDINGS
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import manifest
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.ledger import read_ledger

CODE_VERSION = "2"
ADJUSTMENTS_SHOWN = 4


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """One operation that cleans all tables in one transaction, so that they always agree."""
    panel = settings.panel_spec

    @dg.multi_asset(
        name="clean",
        specs=[_spec(panel, table) for table in table_names(panel)],
        pool=common.POOL,
    )
    def clean(warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
        check_panel(settings)
        ledger = read_ledger(settings.ledger_path, panel)
        with warehouse.open().transaction() as con:
            clean_everything(con, settings, ledger)
            results = list(_results(con, panel, ledger.version))
        yield from results

    return [clean]


def clean_everything(con: duckdb.DuckDBPyConnection, settings: Settings, ledger: Ledger) -> None:
    """Rebuild every cleaned table from raw; the result depends on raw, ledger and settings only."""
    panel = settings.panel_spec
    manifest.prepare(con, panel)
    cleaning.clean_all(con, panel)
    Repairs(ledger, settings.adjustment_strength, settings.alive_periods).write(con, panel)


def table_names(panel: PanelSpec) -> list[str]:
    """The cleaned tables that are assets."""
    return [
        *_attribute_tables(panel),
        panel.series.name,
        "rejected",
        "restatements",
        "findings",
        "adjustments",
    ]


def _attribute_tables(panel: PanelSpec) -> list[str]:
    return [table for table in panel.tables if table != panel.series.name]


def _spec(panel: PanelSpec, table: str) -> dg.AssetSpec:
    descriptions = {
        panel.series.name: f"Reported {panel.target} per series and {panel.time}, unique, with the adjusted "
        "value beside it.",
        "rejected": "Every rejected row, with file, line, the rule it broke and its content.",
        "findings": "What is wrong with the history: since when, until when, by how much, how sure.",
        "adjustments": "What is done about it: by detectors and by the ledger, applied or proposed.",
        "restatements": "Every reported value that a later file changed, with the old and the new one.",
    }
    return dg.AssetSpec(
        common.cleaned_key(table),
        deps=[common.LANDED],
        group_name="cleaned",
        description=descriptions.get(table, f"Attributes and values known ahead from the {table} files."),
        owners=[common.ENGINEERS],
        kinds={"duckdb", "sql"},
        code_version=CODE_VERSION,
    )


def _results(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, ledger_version: str
) -> Iterator[dg.MaterializeResult[None]]:
    version = cleaning.content_version(con, panel)
    for table in _attribute_tables(panel):
        yield dg.MaterializeResult(
            asset_key=common.cleaned_key(table), metadata=common.table_metadata(con, f"cleaned.{table}")
        )
    history = reports.level_history(con, panel)
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key(panel.series.name),
        data_version=dg.DataVersion(version),
        metadata={
            **common.table_metadata(con, f"cleaned.{panel.series.name}"),
            "data_version": version,
            "landed_version": manifest.landed_version(manifest.records(con, panel), panel),
            "ledger_version": ledger_version,
            "picture": common.picture(
                pictures.history(history, panel.time, panel.report_level, panel.target),
                f"{panel.target} by {panel.report_level}",
            ),
        },
    )
    counts = con.execute(
        "SELECT table_name, rule, action, count(*) AS rows "
        f"FROM {cleaning.REJECTED} GROUP BY ALL ORDER BY ALL"
    ).df()
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key("rejected"),
        metadata={**common.table_metadata(con, cleaning.REJECTED), "by_rule": common.preview(counts)},
    )
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key("restatements"), metadata=common.table_metadata(con, RESTATEMENTS)
    )
    yield from _repairs(con, panel)


def _repairs(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Iterator[dg.MaterializeResult[None]]:
    """Findings and adjustments, each with the strongest as a table, and a picture of before and after."""
    found = con.execute(f"SELECT * FROM {FINDINGS} ORDER BY strength DESC, finding_id").df()
    kinds = found.groupby("kind").size().rename("findings").reset_index()
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key("findings"),
        metadata={
            **common.table_metadata(con, FINDINGS),
            "by_kind": common.preview(kinds),
            "strongest": common.preview(found[["kind", "strength", "sentence"]]),
        },
    )
    decided = con.execute(
        f"SELECT status, origin, kind, selector, since, until, factor, value, strength, rows, who, reason "
        f"FROM {ADJUSTMENTS} ORDER BY status, strength DESC NULLS FIRST, adjustment_id"
    ).df()
    pictures_shown = {}
    if (decided["status"] == "applied").any():
        image = pictures.before_and_after(
            reports.adjusted_history(con, panel, ADJUSTMENTS_SHOWN), panel.time, panel.target
        )
        pictures_shown["picture"] = common.picture(image, "reported and adjusted")
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key("adjustments"),
        metadata={
            **common.table_metadata(con, ADJUSTMENTS),
            "by_status": common.preview(decided.groupby("status").size().rename("adjustments").reset_index()),
            "adjustments": common.preview(decided),
            **pictures_shown,
        },
    )
