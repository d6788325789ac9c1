"""Raw: files land in the warehouse, one partition each.

What belongs here: the asset of landed files. What does not: reading and recording them (storage).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from turnover_assets.defs import common
from turnover_assets.defs.partitions import LANDED_FILES, digest_of, find_files, name_of
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import landing, manifest
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.landing_folder import scan
from turnover_assets.storage.manifest import FileRecord
from turnover_assets.storage.warehouse import Warehouse

EVERY_FILE_ACCEPTED = "every_file_accepted"


class LandingConfig(dg.Config):
    """Where to look for the files of the partitions.

    Attributes:
        folder: The landing folder; the watched one where left empty.
    """

    folder: str = ""


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The raw assets."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.LANDED,
        group_name="raw",
        description="Files as they landed: raw rows and a manifest row each. One partition is one content.",
        partitions_def=LANDED_FILES,
        backfill_policy=dg.BackfillPolicy.single_run(),
        owners=[common.ENGINEERS],
        kinds={"duckdb", "csv", "parquet"},
        code_version=manifest.READER_VERSION,
        freshness_policy=common.freshness(settings),
        pool=common.POOL,
        check_specs=[
            dg.AssetCheckSpec(EVERY_FILE_ACCEPTED, asset=common.LANDED, description="None was refused.")
        ],
    )
    def landed_files(
        context: dg.AssetExecutionContext, config: LandingConfig, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        folder = Path(config.folder) if config.folder else settings.landing_path
        check_panel(settings, lambda: scan(folder))
        records = land_partitions(warehouse.open(), panel, folder, context.partition_keys, context.run.run_id)
        for key, record in records.items():
            context.add_asset_metadata(_file_metadata(record), partition_key=key)
            context.log.info("%s: %s", record.name, record.reason or f"{record.rows:,} rows")
        yield _summary(warehouse.open(), panel, records)

    return [landed_files]


def land_partitions(
    warehouse: Warehouse, panel: PanelSpec, folder: Path, keys: list[str], run_id: str
) -> dict[str, FileRecord]:
    """Land the file of each partition key, in their order, and return what became of each.

    Raises:
        TurnoverError: Some files are gone and had not landed before. All others have landed by then, and a
            next attempt finds that they have.
    """
    files, records, gone = find_files(folder, keys), {}, []
    for key in keys:
        if key in files:
            records[key] = landing.land(warehouse, panel, files[key], run_id)
        elif known := _landed_before(warehouse, panel, key):
            records[key] = known
        else:
            gone.append(name_of(key))
    if gone:
        raise TurnoverError(
            f"Files found in {folder} are no longer there, or have changed since: {', '.join(gone)}. "
            "All others have landed. Run again; put these back if they still matter."
        )
    return records


def _landed_before(warehouse: Warehouse, panel: PanelSpec, key: str) -> FileRecord | None:
    """The record of a content that is no longer in the folder, if it had landed."""
    with warehouse.transaction() as con:
        known = [r for r in manifest.records(con, panel) if r.digest.startswith(digest_of(key))]
    return known[0] if known else None


def _file_metadata(record: FileRecord) -> Mapping[str, Any]:
    facts = {"status": record.status, "table": record.table, "rows": record.rows, "reason": record.reason}
    return {name: value for name, value in facts.items() if value is not None}


def _summary(
    warehouse: Warehouse, panel: PanelSpec, records: Mapping[str, FileRecord]
) -> dg.MaterializeResult[None]:
    refused = [record for record in records.values() if record.status == "refused"]
    with warehouse.transaction() as con:
        everything = manifest.records(con, panel)
        schema = common.table_metadata(con, f"raw.{panel.series.name}")
    listed = "\n".join(f"- `{record.name}`: {record.reason}" for record in refused)
    return dg.MaterializeResult(
        metadata={
            **schema,
            "landed_version": manifest.landed_version(everything, panel),
            "files_on_record": len(everything),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=EVERY_FILE_ACCEPTED,
                passed=not refused,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"refused": len(refused), "reasons": dg.MetadataValue.md(listed or "none")},
            )
        ],
    )
