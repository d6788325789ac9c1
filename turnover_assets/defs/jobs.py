"""Jobs: landing, forecasting, training, tuning, backfills, housekeeping, and Evidently's reports.

What belongs here: the selection of assets in each job, and the run tags that say why a run was made.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from turnover_assets import __version__
from turnover_assets.defs import common
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import NO_LEDGER, ledger_version
from turnover_assets.storage.registry_peek import champion_of

INGEST = "ingest"
REFRESH = "refresh"
RETRAIN = "retrain"
TUNE = "tune"
BACKFILL = "backfill"
HOUSEKEEP = "housekeep"
DELIVER = "deliver"  # made by deliveries.py, where there is a place to deliver to
EVIDENTLY = "evidently"
CAUSE_TAG = "turnover/landed_version"  # what a run was made for: what landed, and the ledger
MADE_WITH_TAG = "turnover/made_with"  # and what it is made with: settings, release, champion
TRAINING_TAG = "turnover/training"  # what a training was made for, in a word or two
REASON_TAG = "turnover/reason"  # the same as a sentence
ATTEMPT_TAG = "turnover/attempt"  # which attempt for its cause a run is
FILES_TAG = "turnover/files"  # how many files an ingestion was made for
PROCESS_TAG = "turnover/process"  # host and process of a run started by the command line
MADE_FROM = ("ledger_version", "settings_version", "code_version", "model_version")
LONGEST_TAG = 200  # characters
TRAINING_ONLY = (common.TRAINING, common.BACKTEST, common.CHALLENGER, common.CHAMPION)


def made_from(settings: Settings) -> dict[str, Any]:
    """What forecasts depend on beside what has landed: versions of ledger, settings, release and champion.

    Raises:
        TurnoverError: The ledger cannot be read.
    """
    return {
        "ledger_version": ledger_version(settings.ledger_path),
        "settings_version": settings.result_version,
        "code_version": __version__,
        "model_version": champion_of(
            settings.mlflow_path, settings.panel_spec.name, settings.mlflow_database
        ),
    }


def cause_tags(landed: str, made_from: Mapping[str, Any]) -> dict[str, str]:
    """The tags that say what a run is made for.

    Args:
        landed: Version of what landed.
        made_from: Versions of ledger, settings, release and champion; see made_from.
    """
    ledger, *rest = (str(made_from[name]) for name in MADE_FROM)
    return {CAUSE_TAG: landed if ledger == NO_LEDGER else f"{landed}+{ledger}", MADE_WITH_TAG: "/".join(rest)}


def training_tags(cause: str, sentence: str) -> dict[str, str]:
    """The tags that say why a training is made."""
    return {TRAINING_TAG: cause, REASON_TAG: sentence[:LONGEST_TAG]}


def build() -> list[UnresolvedAssetJobDefinition]:
    """The jobs; one process each, since every step waits for the warehouse anyway."""
    assets = dg.AssetSelection.assets
    apart = assets(common.LANDED, common.TUNED, common.AS_OF, common.HOUSEKEEPING, common.EVIDENTLY)
    everything = dg.AssetSelection.all() - apart - dg.AssetSelection.groups("deliveries")
    jobs = {
        INGEST: (assets(common.LANDED), "Land files: one partition each."),
        REFRESH: (
            everything - assets(*TRAINING_ONLY),
            "Clean, forecast with the champion, report, publish, and see whether to retrain.",
        ),
        RETRAIN: (everything, "The same with training before: backtest, challenger, and the gate."),
        TUNE: (
            assets(common.TUNED),
            "Search for hyper-parameters; the next training uses what is found.",
        ),
        BACKFILL: (
            assets(common.AS_OF, common.PUBLISHED),
            "Forecast past cutoffs as they would have been then, and publish them.",
        ),
        HOUSEKEEP: (
            assets(common.HOUSEKEEPING),
            "Remove old records, logs, models and leftovers that nothing needs.",
        ),
        EVIDENTLY: (
            assets(common.EVIDENTLY),
            "Evidently's reports on the newest cutoff; needs the extra `evidently`.",
        ),
    }
    return [
        dg.define_asset_job(name, selection=selection, description=text, executor_def=dg.in_process_executor)
        for name, (selection, text) in jobs.items()
    ]
