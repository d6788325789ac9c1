"""Checks: what must hold of a table before anything below it runs, and what someone should look at.

What belongs here: making Dagster's asset checks from rules. What does not: the rules (core/table_rules.py),
evaluating them (core/quality.py), the assets.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from turnover_assets.core import quality, table_rules
from turnover_assets.core.quality import Evaluation, TableRule
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.errors import ChecksFailedError
from turnover_assets.settings import Settings

SHOWN = 10  # past figures shown with a check


def build(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """All checks: one operation for each group of tables that are made together."""
    panel = settings.panel_spec
    groups = {
        "check_cleaned": table_rules.cleaned_rules(panel, settings.minimum_coverage, settings.minimum_kept),
        "check_findings": table_rules.findings_rules(),
        "check_forecasts": table_rules.forecast_rules(panel),
    }
    return [build_checks(settings, name, rules) for name, rules in groups.items()]


def build_checks(settings: Settings, name: str, rules: Sequence[TableRule]) -> dg.AssetChecksDefinition:
    """One operation that evaluates rules, puts their figures on record, and then fails where one blocks."""
    panel = settings.panel_spec
    specs = {rule: _spec(rule) for rule in rules}

    @dg.multi_asset_check(name=name, specs=list(specs.values()), can_subset=True, pool=common.POOL)
    def evaluate(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        chosen = [rule for rule, spec in specs.items() if spec.key in context.selected_asset_check_keys]
        cleaned = common.latest_metadata(context.instance, common.cleaned_key(panel.series.name))
        with warehouse.open().transaction() as con:
            values = quality.facts(con, panel, settings.alive_periods, context.run.run_id, datetime.now(UTC))
            evaluations = quality.evaluate(con, chosen, values)
            quality.record(con, evaluations, cleaned.get("landed_version"), values)
            past = {rule: quality.past_figures(con, rule, SHOWN) for rule in chosen}
        yield from (_result(evaluation, past[evaluation.rule]) for evaluation in evaluations)
        failed = [e for e in evaluations if e.rule.blocking and not e.passed]
        if failed:
            raise ChecksFailedError([(f"{e.rule.asset} {e.rule.name}", e.message) for e in failed])

    return evaluate


def _spec(rule: TableRule) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        rule.name, asset=rule.asset.split("/"), blocking=rule.blocking, description=rule.sentence
    )


def _result(evaluation: Evaluation, past: pd.DataFrame) -> dg.AssetCheckResult:
    rule = evaluation.rule
    metadata: dict[str, dg.MetadataValue] = {
        "limit": dg.MetadataValue.text(rule.limit),
        "past_figures": common.preview(past),
    }
    if evaluation.figure is not None:
        metadata["figure"] = dg.MetadataValue.float(evaluation.figure)
    if evaluation.examples is not None and len(evaluation.examples):
        metadata["examples"] = common.preview(evaluation.examples)
    return dg.AssetCheckResult(
        asset_key=rule.asset.split("/"),
        check_name=rule.name,
        passed=evaluation.passed,
        severity=dg.AssetCheckSeverity.ERROR if rule.blocking else dg.AssetCheckSeverity.WARN,
        description=evaluation.message,
        metadata=metadata,
    )
