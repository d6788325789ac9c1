"""Jobs: landing files, and bringing everything after them up to date.

What belongs here: the selection of assets in each job, and the run tags that say why a run was made.
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from turnover_assets.defs import common
from turnover_assets.storage.ledger import NO_LEDGER

INGEST = "ingest"
REFRESH = "refresh"
CAUSE_TAG = "turnover/landed_version"  # what a refresh was made for
FILES_TAG = "turnover/files"  # how many files an ingestion was made for
PROCESS_TAG = "turnover/process"  # host and process of a run started by the command line


def cause_tag(landed: str, ledger: str) -> dict[str, str]:
    """The tag that says what a refresh is made for: the version of what landed, and the ledger's if any."""
    return {CAUSE_TAG: landed if ledger == NO_LEDGER else f"{landed}+{ledger}"}


def build() -> list[UnresolvedAssetJobDefinition]:
    """The jobs; one process each, since every step waits for the warehouse anyway."""
    landed = dg.AssetSelection.assets(common.LANDED)
    return [
        dg.define_asset_job(
            INGEST,
            selection=landed,
            description="Land files: one partition each.",
            executor_def=dg.in_process_executor,
        ),
        dg.define_asset_job(
            REFRESH,
            selection=dg.AssetSelection.all() - landed,
            description="Clean, make features, train, forecast, report and publish.",
            executor_def=dg.in_process_executor,
        ),
    ]
