"""The account of a year: what was lost, doubled, done more often than once, or failed without our doing."""

from collections.abc import Mapping

import pandas as pd

from turnover_assets.defs import jobs
from turnover_assets.defs.partitions import name_of
from turnover_assets.storage.model_versions import ModelVersionFacts
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.fast_motion.year import AMOUNT, DEPARTMENT, KEYS, STORE, WEEK, Year


def lost(year: Year) -> int:
    """Rows whose reported value is not the one that was reported last, or that are not there."""
    found = current(year.platform.settings.published_path).read("turnover")
    found = found.assign(week=found["week"].astype(str)).rename(
        columns={"store": STORE, "department": DEPARTMENT, "week": WEEK}
    )
    both = year.truth.merge(found, on=KEYS, how="left", suffixes=("_true", ""))
    return int(((both[f"{AMOUNT}_true"] - both[AMOUNT]).abs() > 0.005).sum() + both[AMOUNT].isna().sum())


def doubled(year: Year) -> int:
    """Rows more than there are keys that were reported, and files that are on record twice."""
    snapshot = current(year.platform.settings.published_path)
    files = snapshot.read("files")["name"]
    return len(snapshot.read("turnover")) - len(year.truth) + len(files) - files.nunique()


def runs_by_cause(year: Year) -> Mapping[tuple[str, str], list[str]]:
    """How the automatic runs of each job ended, by what they were made for, the oldest first."""
    found: dict[tuple[str, str], list[str]] = {}
    for job, cause, _, end in _automatic_runs(year):
        found.setdefault((job, cause), []).append(end)
    return found


def repeated(year: Year) -> list[str]:
    """Causes for which there was more than one run beside those that were killed."""
    ours = {run for runs in year.killed.values() for run in runs}
    counts = pd.Series([(job, cause) for job, cause, run, _ in _automatic_runs(year) if run not in ours])
    return [f"{job} for {cause}: {n} runs" for (job, cause), n in counts.value_counts().items() if n > 1]


def unplanned(year: Year) -> list[str]:
    """Runs that did not end well although nothing was killed meanwhile."""
    ours = {run for runs in year.killed.values() for run in runs}
    found = _automatic_runs(year)
    return [
        f"{job} for {cause}: {end}" for job, cause, run, end in found if end != "SUCCESS" and run not in ours
    ]


def _automatic_runs(year: Year) -> list[tuple[str, str, str, str]]:
    """Job, cause, id and end of each run that a sensor asked for, the oldest first."""
    with year.platform.instance() as instance:
        runs = [run for run in reversed(instance.get_runs()) if "dagster/sensor_name" in run.tags]
    return [(run.job_name, cause_of(run.tags), run.run_id, run.status.value) for run in runs]


def cause_of(tags: Mapping[str, str]) -> str:
    """What an automatic run was made for."""
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end", jobs.CAUSE_TAG)
    told = [tags.get(name, "") for name in (*names, jobs.MADE_WITH_TAG, jobs.TRAINING_TAG)]
    return " ".join(name_of(text) if "@" in text else text for text in told if text)


def versions(year: Year) -> list[ModelVersionFacts]:
    """Every model that was trained, and what the gate said of it."""
    return ModelRegistry.of(year.platform.settings).versions()


def totals(year: Year) -> pd.DataFrame:
    """The measures of the total by cutoff, as they are published."""
    table = current(year.platform.settings.published_path).read("measures")
    total = table[table["level"] == "total"]
    return total.pivot_table(index="cutoff", columns="measure", values="value", observed=True)
