"""The registered versions as a list: what each is, how it was judged, what became of it.

What belongs here: gathering facts on versions from MLflow, in a few calls and without a model file. What
does not: aliases and files (registry.py), and showing the facts (commands/models.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from turnover_assets.storage import _mlflow
from turnover_assets.storage.champion_log import Change, Reign, reigns
from turnover_assets.storage.champions import Champions

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

FIGURES = ("wape", "bias", "coverage_80", "coverage_95")


@dataclass(frozen=True)
class ModelVersionFacts:
    """One registered version.

    Attributes:
        version: Its number.
        candidate: Name of the candidate.
        cutoff: Last period it was trained on, as its label; empty where an earlier release did not note it.
        created: When it was registered, in UTC.
        wape: WAPE in its backtest, or in the gate's where that was not logged; None where it was not
            measured, as for the figures below.
        bias: Bias of its forecasts as a share of the actual total.
        coverage_80: Share of actuals within the 80 % interval.
        coverage_95: Share of actuals within the 95 % interval.
        decision: `promoted` or `refused` by the gate; empty where it was not asked.
        reason: The gate's reasons.
        aliases: `champion`, `challenger` and what else points to it.
        champion_since: When it last became champion; None where it never did.
        champion_until: When another one took its place; None where none did.
        promoted_by: `gate`, or who made it champion.
        promotion_reason: Why.
        recipe: What features and parameters it was made with, as a fingerprint; empty where not noted.
    """

    version: int
    candidate: str
    cutoff: str
    created: datetime
    wape: float | None
    bias: float | None
    coverage_80: float | None
    coverage_95: float | None
    decision: str
    reason: str
    aliases: tuple[str, ...]
    champion_since: datetime | None
    champion_until: datetime | None
    promoted_by: str
    promotion_reason: str
    recipe: str


@dataclass(frozen=True)
class ModelVersionDetails:
    """All that is kept of a version beside its files.

    Attributes:
        facts: What the list shows.
        metrics: Every figure logged with it, by name.
        parameters: Hyper-parameters, settings and versions, by name.
        checks: The gate's checks; None where it was not asked.
        changes: When it became champion.
    """

    facts: ModelVersionFacts
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]
    checks: "pd.DataFrame | None"
    changes: tuple[Change, ...]


def list_versions(client: "MlflowClient", name: str) -> list[ModelVersionFacts]:
    """Facts on every version of a registered model, oldest first.

    The number of calls does not grow with the versions, but for one page of each kind per 500 of them.
    """
    registered = _mlflow.registered_model(client, name)
    versions = _mlflow.model_versions(client, name)
    found = _mlflow.runs(client, [version.run_id for version in versions if version.run_id])
    aliases = [(alias, int(number)) for alias, number in registered.aliases.items()]
    last_reign = _last_reigns(Champions(client, name).log())
    return [_facts(version, found.get(str(version.run_id)), aliases, last_reign) for version in versions]


def details_of(client: "MlflowClient", version: "ModelVersion", checks: Path) -> ModelVersionDetails:
    """All that is kept of a version.

    Args:
        client: MLflow's client.
        version: The version.
        checks: The file of the gate's checks; it need not be there.
    """
    import pandas as pd

    registered = _mlflow.registered_model(client, str(version.name))
    run = _mlflow.runs(client, [str(version.run_id)]).get(str(version.run_id))
    log, number = Champions(client, str(version.name)).log(), int(version.version)
    aliases = [(alias, int(owner)) for alias, owner in registered.aliases.items()]
    return ModelVersionDetails(
        facts=_facts(version, run, aliases, _last_reigns(log)),
        metrics=run.data.metrics if run else {},
        parameters=run.data.params if run else {},
        checks=pd.read_csv(checks) if checks.is_file() else None,
        changes=tuple(change for change in log if change.version == number),
    )


def _last_reigns(log: Sequence[Change]) -> dict[int, Reign]:
    return {reign.change.version: reign for reign in reigns(log)}


def _facts(
    version: "ModelVersion",
    run: "Run | None",
    aliases: Sequence[tuple[str, int]],
    last_reign: Mapping[int, Reign],
) -> ModelVersionFacts:
    """What MLflow knows of one version."""
    number, tags = int(version.version), version.tags
    metrics = run.data.metrics if run else {}
    reign = last_reign.get(number)
    return ModelVersionFacts(
        version=number,
        candidate=tags.get("candidate", ""),
        cutoff=tags.get("cutoff", ""),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        **{name: metrics.get(name, metrics.get(f"gate_challenger_{name}")) for name in FIGURES},
        decision=tags.get("decision", ""),
        reason=tags.get("decision_reason", ""),
        aliases=tuple(sorted(alias for alias, owner in aliases if owner == number)),
        champion_since=reign.change.at if reign else None,
        champion_until=reign.until if reign else None,
        promoted_by=reign.change.by if reign else "",
        promotion_reason=reign.change.reason if reign else "",
        recipe=tags.get("recipe", ""),
    )
