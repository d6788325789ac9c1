"""The composition root: settings in, Dagster definitions out.

What belongs here: putting the parts together, with every part replaceable by keyword. Nothing is read at
import; Dagster calls `defs` when it loads the code location.
"""

import warnings

import dagster as dg

from turnover_assets.defs import (
    alerts,
    as_of,
    checks,
    cleaned,
    deliveries,
    evidently,
    features,
    forecasts,
    housekeeping,
    jobs,
    model,
    monitoring,
    monitoring_page,
    profile,
    raw,
    reports,
    retraining,
    run_records,
    schedules,
    sensors,
    tuning,
    workbooks,
)
from turnover_assets.defs.resources import (
    RegistryResource,
    WarehouseResource,
    build_registry,
    build_warehouse,
)
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.home_layout import check_layout


def build_definitions(
    settings: Settings,
    *,
    warehouse: WarehouseResource | None = None,
    registry: RegistryResource | None = None,
) -> dg.Definitions:
    """All assets, checks, jobs, sensors and resources for one data home.

    Args:
        settings: The settings, with the panel they name.
        warehouse: In place of the data home's warehouse.
        registry: In place of the data home's registry.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy: one run for many partitions
        partitioned = [*raw.build(settings), *as_of.build(settings)]
    return dg.Definitions(
        assets=[
            *partitioned,
            *cleaned.build(settings),
            *features.build(settings),
            *model.build(settings),
            *forecasts.build(settings),
            *reports.build(settings),
            *profile.build(settings),
            *monitoring.build(settings),
            *monitoring_page.build(settings),
            *evidently.build(settings),
            *retraining.build(settings),
            *tuning.build(settings),
            *run_records.build(settings),
            *housekeeping.build(settings),
            *alerts.build(settings),
            *workbooks.build(settings),
            *deliveries.build(settings),
        ],
        asset_checks=checks.build(settings),
        jobs=[*jobs.build(), *deliveries.build_jobs(settings)],
        sensors=[
            *sensors.build(settings),
            *alerts.build_sensors(settings),
            *deliveries.build_sensors(settings),
        ],
        schedules=[*schedules.build(settings), *housekeeping.build_schedules(settings)],
        resources={
            "warehouse": warehouse or build_warehouse(settings),
            "registry": registry or build_registry(settings),
        },
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location `turnover_assets`."""
    warnings.simplefilter("ignore", dg.BetaWarning)  # or each run would show some in the terminal
    settings = load_settings()
    check_layout(settings.home.absolute())  # or an older image would work on a home that it does not know
    return build_definitions(settings)
