"""Quality: rules that a table must keep, each one SQL figure with bounds, and their figures over time.

What belongs here: what a rule is, evaluating rules on a connection, and keeping what they gave. What does
not: the rules (table_rules.py), Dagster's checks (defs/checks.py), what single rows must keep (cleaning.py).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pandas as pd

from turnover_assets.core.cutoffs import last_period
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec

CHECKS = "reports.checks"
KNOWN_FINDINGS = "reports.known_findings"
HISTORY_QUERY = f"SELECT * FROM {CHECKS} ORDER BY evaluated_at, asset, check_name"
EXAMPLES = 20  # rows shown of what breaks a rule
KEPT = 400  # evaluations kept of each rule


@dataclass(frozen=True)
class TableRule:
    """A rule that a table keeps as a whole.

    In its SQL texts stand names of the panel; values are bound by name (see evaluate).

    Attributes:
        name: Name of the rule, unique for its asset.
        asset: The asset it judges, as `group/table`.
        sentence: What must hold, for people.
        remedy: What to do where it does not.
        figure: SQL that gives one number; NULL where there is nothing to judge.
        at_least: Least figure allowed, if any.
        at_most: Largest figure allowed, if any.
        blocking: Whether what stands below the asset must wait; else it is a warning.
        examples: SQL for rows that break it, if there are such.
        afterwards: SQL to execute once the figure is on record, if any.
    """

    name: str
    asset: str
    sentence: str
    remedy: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    blocking: bool = False
    examples: str | None = None
    afterwards: str | None = None

    def allows(self, figure: float) -> bool:
        """Whether a figure is inside the bounds; NaN is not."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= figure <= high

    @property
    def limit(self) -> str:
        """The bounds in words."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {_shown(bound)}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Evaluation:
    """What a rule gave.

    Attributes:
        rule: The rule.
        figure: Its figure; None where there was nothing to judge or it could not be computed.
        problem: Why it could not be computed, if so.
        examples: Up to EXAMPLES rows that break it; None where it has no such.
    """

    rule: TableRule
    figure: float | None
    problem: str | None = None
    examples: pd.DataFrame | None = None

    @property
    def passed(self) -> bool:
        """Whether the rule is kept; where there is nothing to judge, it is."""
        return self.problem is None and (self.figure is None or self.rule.allows(self.figure))

    @property
    def message(self) -> str:
        """For people: what must hold, what was found, and what to do where it does not."""
        if self.problem:
            found = f"It could not be computed ({self.problem})."
        elif self.figure is None:
            found = "There is nothing to compare with yet."
        else:
            found = f"Found {_shown(self.figure)}; allowed is {self.rule.limit}."
        return f"{self.rule.sentence} {found}" + ("" if self.passed else f" {self.rule.remedy}")


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if math.isfinite(figure) and figure == int(figure) else f"{figure:.3g}"


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of past figures and of known findings, where they are not there."""
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {CHECKS} (evaluated_at TIMESTAMPTZ, run_id VARCHAR, "
        "landed_version VARCHAR, asset VARCHAR, check_name VARCHAR, severity VARCHAR, figure DOUBLE, "
        "at_least DOUBLE, at_most DOUBLE, passed BOOLEAN);"
        f"CREATE TABLE IF NOT EXISTS {KNOWN_FINDINGS} (finding_id VARCHAR, first_run VARCHAR, "
        "first_seen TIMESTAMPTZ)"
    )


def facts(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, alive: int, run_id: str, now: datetime
) -> dict[str, Any]:
    """The values that rules may bind.

    Returns:
        `$newest` (the newest counted period, see cutoffs.last_period; None without a usable history),
        `$alive`, `$horizon`, `$season`, `$cycle` (periods), `$run_id` and `$now`.
    """
    prepare(con)
    try:
        newest = last_period(con, panel)
    except (NothingToForecastError, duckdb.BinderException, duckdb.CatalogException):
        newest = None  # rules of the table itself say what is wrong
    return {
        "newest": newest,
        "alive": alive,
        "horizon": panel.horizon,
        "season": panel.frequency.season,
        "cycle": panel.frequency.cycle,
        "run_id": run_id,
        "now": now,
    }


def evaluate(
    con: duckdb.DuckDBPyConnection, rules: Sequence[TableRule], values: Mapping[str, Any]
) -> list[Evaluation]:
    """Judge each rule; one whose columns or tables are not there is broken, and the others go on."""
    return [_evaluated(con, rule, values) for rule in rules]


def _evaluated(con: duckdb.DuckDBPyConnection, rule: TableRule, values: Mapping[str, Any]) -> Evaluation:
    try:
        found = _execute(con, rule.figure, values).fetchall()[0][0]
        evaluation = Evaluation(rule, None if found is None else float(found))
        if evaluation.passed or rule.examples is None:
            return evaluation
        examples = _execute(con, f"{rule.examples} LIMIT {EXAMPLES}", values).df()
        return Evaluation(rule, evaluation.figure, examples=examples)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        return Evaluation(rule, None, problem=str(error).splitlines()[0])


def _execute(
    con: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]
) -> duckdb.DuckDBPyConnection:
    """Execute with those values that the text names."""
    return con.execute(sql, {name: values[name] for name in re.findall(r"\$(\w+)", sql)})


def record(
    con: duckdb.DuckDBPyConnection,
    evaluations: Sequence[Evaluation],
    landed_version: str | None,
    values: Mapping[str, Any],
) -> None:
    """Append evaluations to reports.checks and keep the newest KEPT of each rule."""
    for evaluation in evaluations:
        rule = evaluation.rule
        con.execute(
            f"INSERT INTO {CHECKS} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                values["now"],
                values["run_id"],
                landed_version,
                rule.asset,
                rule.name,
                "blocking" if rule.blocking else "warning",
                evaluation.figure,
                rule.at_least,
                rule.at_most,
                evaluation.passed,
            ],
        )
        if rule.afterwards and evaluation.problem is None:
            _execute(con, rule.afterwards, values)
    con.execute(
        f"DELETE FROM {CHECKS} WHERE rowid IN (SELECT rowid FROM {CHECKS} QUALIFY row_number() OVER "
        "(PARTITION BY asset, check_name ORDER BY evaluated_at DESC) > ?)",
        [KEPT],
    )


def past_figures(con: duckdb.DuckDBPyConnection, rule: TableRule, count: int) -> pd.DataFrame:
    """The newest figures of a rule, the newest first: `evaluated` (UTC), `figure`, `passed`."""
    return con.execute(
        "SELECT strftime(evaluated_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S') AS evaluated, figure, passed "
        f"FROM {CHECKS} WHERE asset = ? AND check_name = ? ORDER BY evaluated_at DESC LIMIT ?",
        [rule.asset, rule.name, count],
    ).df()
