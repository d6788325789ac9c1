"""The rules that tables keep as a whole, as data: cleaned tables, findings, forecasts.

What belongs here: each rule with its SQL, its bound, and its words. What does not: evaluating them
(quality.py), what single rows must keep (cleaning.py).

A period is compared with those that lie a whole number of cycles before it (the same weekday, for days).
"""

from collections.abc import Iterator

from turnover_assets.core.calendar import label_sql
from turnover_assets.core.cleaning import REJECTED
from turnover_assets.core.quality import CHECKS, KNOWN_FINDINGS, TableRule
from turnover_assets.panel import CovariateTable, PanelSpec, StaticTable

FORECASTS = "forecasts.latest"
COLUMN_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN"}
USUAL_PERIODS = 8  # before the newest, from which its usual number of rows is taken
MOST_REJECTED = 0.01  # share of rows; more is a feed that changed
MOST_NEGATIVE = 0.02  # how much the share of negative values may exceed that of a year
MOST_ZERO = 0.1  # the same for zeros, which come and go with the season
MOST_VANISHED = 0.005  # share of steady series; some pause in any period of a large retailer
MOST_SUPERSEDED = 0.2  # share of rows; more is a feed that sends its history again and again
GROUPED = r"[-+]?[0-9]{1,3}([.][0-9]{3})+"  # digits with a point before every three
FEWEST_GROUPED = 20  # such values in a file; fewer may be chance
YEARLY_RATIO = (0.5, 2.0)  # of the forecast to the same periods of last year, for the same series


def cleaned_rules(panel: PanelSpec, coverage: float, kept: float) -> list[TableRule]:
    """The rules of the cleaned tables, the blocking ones first.

    Args:
        panel: The panel.
        coverage: Least share of what is expected in the newest period.
        kept: Least number of rows as a share of those of the last run.
    """
    return [
        *_shape_rules(panel),
        *_coverage_rules(panel, coverage, kept),
        *_newest_period_rules(panel),
        *_feed_rules(panel),
        _grouped_rule(panel),
        *(_attributes_rule(panel, table) for table in panel.static),
        *(_known_ahead_rule(panel, table) for table in panel.covariates),
    ]


def _shape_rules(panel: PanelSpec) -> Iterator[TableRule]:
    """Columns, rows and keys of the cleaned series table."""
    table, asset = f"cleaned.{panel.series.name}", f"cleaned/{panel.series.name}"
    keys = ", ".join(panel.keys)
    wanted = ", ".join(f"('{name}', '{kind}')" for name, kind in _columns(panel).items())
    unmet = (
        f"FROM (VALUES {wanted}) AS c(column_name, data_type) ANTI JOIN (SELECT * FROM "
        "information_schema.columns WHERE table_schema = 'cleaned' "
        f"AND table_name = '{panel.series.name}') AS i USING (column_name, data_type)"
    )
    yield TableRule(
        name="schema",
        asset=asset,
        sentence="Every column is there, with its type; the figure counts those that are not.",
        remedy="Another release or program changed the table. Materialise it again with this release.",
        figure=f"SELECT count(*) {unmet}",
        at_most=0,
        blocking=True,
        examples=f"SELECT * {unmet}",
    )
    yield TableRule(
        name="has_rows",
        asset=asset,
        sentence="There are rows.",
        remedy="Every row was rejected, or no file holds any. The checks few_rejected and no_file_refused "
        "(`turnover ui`, cleaned/rejected) say why; land files that can be used.",
        figure=f"SELECT count(*) FROM {table}",
        at_least=1,
        blocking=True,
    )
    repeated = f"SELECT {keys}, t, count(*) AS times FROM {table} GROUP BY {keys}, t HAVING count(*) > 1"
    yield TableRule(
        name="unique_keys",
        asset=asset,
        sentence="One row for each series and period; the figure counts keys that stand twice.",
        remedy="Cleaning keeps one row a key, so something else wrote this table. Materialise it again.",
        figure=f"SELECT count(*) FROM ({repeated})",
        at_most=0,
        blocking=True,
        examples=repeated,
    )
    empty = " OR ".join(f"{column} IS NULL" for column in (*panel.keys, panel.time, panel.target, "t"))
    yield TableRule(
        name="complete_rows",
        asset=asset,
        sentence="Every row has its keys, its period and its value; the figure counts those that lack one.",
        remedy="Cleaning rejects such rows, so something else wrote this table. Materialise it again.",
        figure=f"SELECT count(*) FROM {table} WHERE {empty}",
        at_most=0,
        blocking=True,
        examples=f"SELECT {keys}, {panel.time}, {panel.target}, t FROM {table} WHERE {empty}",
    )


def _columns(panel: PanelSpec) -> dict[str, str]:
    """Columns of the cleaned series table that others rely on, with their types."""
    keys = {key.name: COLUMN_TYPES[key.type] for key in panel.series.keys}
    values = {panel.target: "DOUBLE", f"{panel.target}_adjusted": "DOUBLE"}
    return keys | {panel.time: "DATE"} | values | {"adjustment_id": "VARCHAR", "t": "INTEGER"}


def _coverage_rules(panel: PanelSpec, coverage: float, kept: float) -> Iterator[TableRule]:
    """Whether the newest period, and the history as a whole, are there."""
    table, asset = f"cleaned.{panel.series.name}", f"cleaned/{panel.series.name}"
    keys = ", ".join(panel.keys)
    land = (
        f"Land the rest of the newest {panel.time}'s files and run again. If this is all there is "
        "(closures), lower TURNOVER_MINIMUM_COVERAGE for this run."
    )
    yield TableRule(
        name="coverage",
        asset=asset,
        sentence=f"The series expected in the newest {panel.time} are there; the figure is their share.",
        remedy=land,
        figure=f"SELECT count(n.t) / nullif(count(*), 0) FROM ({expected_sql(panel)}) AS e {_newest(panel)}",
        at_least=coverage,
        blocking=True,
        examples=f"{expected_sql(panel)} EXCEPT SELECT {keys} FROM {table} WHERE t = $newest ORDER BY {keys}",
    )
    yield TableRule(
        name="usual_rows",
        asset=asset,
        sentence=f"The newest {panel.time} has about as many rows as the {USUAL_PERIODS} before it; the "
        "figure is its number of rows over their median.",
        remedy=land,
        figure="SELECT (count(*) FILTER (t = $newest)) / nullif((SELECT median(found) FROM (SELECT count(*) "
        f"AS found FROM {table} WHERE {_earlier(USUAL_PERIODS)} GROUP BY t)), 0) FROM {table}",
        at_least=coverage,
        blocking=True,
    )
    yield TableRule(
        name="kept_rows",
        asset=asset,
        sentence="Cleaning has not lost rows; the figure is their number over that of the last run that "
        "kept this rule.",
        remedy="Rows that were there are rejected now, say by a static file that lists fewer keys: the check "
        "few_rejected (`turnover ui`, cleaned/rejected) names the rules they broke. If the loss is meant, "
        "lower TURNOVER_MINIMUM_KEPT for one run.",
        figure=f"SELECT count(*) / (SELECT r.figure FROM {CHECKS} AS r JOIN {CHECKS} AS k "
        f"USING (run_id, asset) WHERE asset = '{asset}' AND r.check_name = 'has_rows' AND r.figure > 0 "
        f"AND k.check_name = 'kept_rows' AND k.passed ORDER BY r.evaluated_at DESC LIMIT 1) FROM {table}",
        at_least=kept,
        blocking=True,
    )


def expected_sql(panel: PanelSpec) -> str:
    """SQL for the keys of the series expected in the newest period.

    Those that reported within `$alive` periods before it, and in one of `$alive` periods of its phase.
    """
    keys = ", ".join(panel.keys)
    return (
        f"SELECT {keys} FROM cleaned.{panel.series.name} WHERE t < $newest "
        f"AND t >= $newest - $alive * $cycle GROUP BY {keys} HAVING max(t) >= $newest - $alive "
        "AND count(*) FILTER (($newest - t) % $cycle = 0) > 0"
    )


def _newest(panel: PanelSpec) -> str:
    """SQL that joins the newest period's rows, as n, to keys."""
    keys = ", ".join(panel.keys)
    rows = f"SELECT {keys}, t FROM cleaned.{panel.series.name} WHERE t = $newest"
    return f"LEFT JOIN ({rows}) AS n USING ({keys})"


def _earlier(periods: str | int) -> str:
    """SQL condition for so many periods before the newest, of its phase."""
    return f"t < $newest AND t >= $newest - {periods} * $cycle AND ($newest - t) % $cycle = 0"


def _newest_period_rules(panel: PanelSpec) -> Iterator[TableRule]:
    """Warnings of the newest period's content."""
    table, asset = f"cleaned.{panel.series.name}", f"cleaned/{panel.series.name}"
    keys, columns = ", ".join(panel.keys), ", ".join((*panel.keys, panel.time, panel.target))
    yield TableRule(
        name="no_rows_ahead",
        asset=asset,
        sentence="No row lies after the newest period that counts as reported; the figure counts those.",
        remedy="A mistyped date, or a period of which little has landed. Correct the date, or land the rest.",
        figure=f"SELECT count(*) FROM {table} WHERE t > $newest",
        at_most=0,
        examples=f"SELECT {columns} FROM {table} WHERE t > $newest ORDER BY t DESC, {keys}",
    )
    steady = f"SELECT {keys} FROM {table} WHERE {_earlier('$alive')} GROUP BY {keys} HAVING count(*) = $alive"
    yield TableRule(
        name="no_series_vanished",
        asset=asset,
        sentence=f"Series that reported without a gap are there in the newest {panel.time}; the figure "
        "is the share of those that are not.",
        remedy="Ask whether they closed, or whether their rows are still to come.",
        figure=f"SELECT 1 - count(n.t) / nullif(count(*), 0) FROM ({steady}) AS e {_newest(panel)}",
        at_most=MOST_VANISHED,
        examples=f"{steady} EXCEPT SELECT {keys} FROM {table} WHERE t = $newest ORDER BY {keys}",
    )
    for name, what, condition, most in (
        ("few_negative", "negative values", f"{panel.target} < 0", MOST_NEGATIVE),
        ("few_zeros", "zeros", f"{panel.target} = 0", MOST_ZERO),
    ):
        share = f"avg(CASE WHEN {condition} THEN 1 ELSE 0 END)"
        yield TableRule(
            name=name,
            asset=asset,
            sentence=f"{what.capitalize()} are about as frequent in the newest {panel.time} as in the year "
            "before; the figure is the difference of the shares.",
            remedy="Ask where they come from, and land a file that restates them where they are wrong.",
            figure=f"SELECT {share} FILTER (t = $newest) - {share} FILTER (t < $newest) FROM {table} "
            "WHERE t <= $newest AND t >= $newest - $season AND ($newest - t) % $cycle = 0",
            at_most=most,
            examples=f"SELECT {columns} FROM {table} WHERE t = $newest AND {condition} ORDER BY {keys}",
        )


def _feed_rules(panel: PanelSpec) -> Iterator[TableRule]:
    """Warnings of what the files hold."""
    name, asset = panel.series.name, "cleaned/rejected"
    rejected = f"(SELECT count(*) FROM {REJECTED} WHERE action = 'row rejected' AND table_name = '{name}')"
    landed = f"FROM raw.files WHERE status = 'accepted' AND table_name = '{name}'"
    yield TableRule(
        name="few_rejected",
        asset=asset,
        sentence="Few rows are rejected; the figure is their share.",
        remedy="`turnover export rejected` lists them with file, line and reason.",
        figure=f"SELECT {rejected} / nullif({rejected} + count(*), 0) FROM cleaned.{name}",
        at_most=MOST_REJECTED,
        examples="SELECT rule, count(*) AS row_count, any_value(file) AS file, any_value(message) AS message "
        f"FROM {REJECTED} WHERE table_name = '{name}' GROUP BY rule ORDER BY row_count DESC, rule",
    )
    yield TableRule(
        name="few_superseded",
        asset=asset,
        sentence="Few rows are given again by a later file; the figure is their share of all that landed.",
        remedy="Ask for files with new and corrected rows only; what is sent again makes every run slower.",
        figure=f"SELECT (sum(row_count) - {rejected} - (SELECT count(*) FROM cleaned.{name})) "
        f"/ nullif(sum(row_count), 0) {landed}",
        at_most=MOST_SUPERSEDED,
    )
    refused = (
        "FROM raw.files AS b WHERE status = 'refused' AND NOT EXISTS (SELECT 1 FROM raw.files AS a "
        "WHERE a.status = 'accepted' AND a.name = b.name AND a.file_no > b.file_no)"
    )
    yield TableRule(
        name="no_file_refused",
        asset=asset,
        sentence="No file is refused; the figure counts those for which none of their name landed later.",
        remedy="Correct the file and land it again under its name.",
        figure=f"SELECT count(*) {refused}",
        at_most=0,
        examples=f"SELECT name, reason {refused} ORDER BY file_no DESC",
    )


def _grouped_rule(panel: PanelSpec) -> TableRule:
    name, value = panel.series.name, panel.target
    files = f"SELECT file_no FROM raw.files WHERE delimiter = ';' AND table_name = '{name}'"
    grouped = (
        f"FROM (SELECT file_no, any_value({value}) AS example FROM raw.{name} WHERE file_no IN ({files}) "
        f"AND contains({value}, '.') GROUP BY file_no HAVING count(*) >= {FEWEST_GROUPED} "
        f"AND bool_and(regexp_full_match(trim({value}), '{GROUPED}')))"
    )
    return TableRule(
        name="no_grouped_digits",
        asset="cleaned/rejected",
        sentence="No points stand for thousands; the figure counts files with fields between semicolons in "
        "which each value that has a point has three digits after it.",
        remedy="A point is read as the decimal point, so 1.234 is a little more than 1. If thousands are "
        "meant, write the files without these points, and land them in a new home.",
        figure=f"SELECT count(*) {grouped}",
        at_most=0,
        examples=f"SELECT name, example {grouped} JOIN raw.files USING (file_no) ORDER BY file_no DESC",
    )


def _live(panel: PanelSpec) -> str:
    # As for the features: what an adjustment counts as missing was not reported.
    known = f"{panel.target}_adjusted IS NOT NULL"
    return f"FROM cleaned.{panel.series.name} WHERE t <= $newest AND t > $newest - $alive AND {known}"


def _attributes_rule(panel: PanelSpec, table: StaticTable) -> TableRule:
    keys = ", ".join(table.keys)
    empty = " OR ".join(f"a.{column.name} IS NULL" for column in table.columns)
    lacking = (
        f"FROM (SELECT DISTINCT {keys} {_live(panel)}) AS e "
        f"LEFT JOIN cleaned.{table.name} AS a USING ({keys}) WHERE {empty}"
    )
    columns = ", ".join((*table.keys, *(column.name for column in table.columns)))
    return TableRule(
        name="attributes_known",
        asset=f"cleaned/{table.name}",
        sentence=f"Each {keys} of a series alive has all attributes; the figure counts those that do not.",
        remedy=f"Land a {table.name} file with them. Forecasts do without until then.",
        figure=f"SELECT count(*) {lacking}",
        at_most=0,
        examples=f"SELECT {columns} {lacking} ORDER BY {keys}",
    )


def _known_ahead_rule(panel: PanelSpec, table: CovariateTable) -> TableRule:
    keys = (*table.keys, "t")
    lacking = (
        f"FROM (SELECT DISTINCT {', '.join((*table.keys, '$newest + step AS t'))} "
        f"FROM (SELECT * {_live(panel)}) CROSS JOIN unnest(range(1, $horizon + 1)) AS h(step)) AS e "
        f"ANTI JOIN cleaned.{table.name} AS a USING ({', '.join(keys)})"
    )
    shown = ", ".join((*table.keys, f"{label_sql(panel, 't')} AS {panel.time}"))
    return TableRule(
        name="known_ahead",
        asset=f"cleaned/{table.name}",
        sentence=f"Values are there for each {panel.time} to forecast; the figure counts those that lack.",
        remedy=f"Land a {table.name} file that reaches as far as the forecasts. They do without until then.",
        figure=f"SELECT count(*) {lacking}",
        at_most=0,
        examples=f"SELECT {shown} {lacking} ORDER BY {', '.join(keys)}",
    )


def findings_rules() -> list[TableRule]:
    """A warning that names the findings which no run before had; they are known from then on."""
    unknown = (
        "FROM cleaned.findings WHERE finding_id NOT IN "
        f"(SELECT finding_id FROM {KNOWN_FINDINGS} WHERE first_run <> $run_id)"
    )
    return [
        TableRule(
            name="no_new_findings",
            asset="cleaned/findings",
            sentence="Nothing new is found wrong with the history; the figure counts new findings.",
            remedy="They are named below, the strongest first. `turnover adjustments` accepts or vetoes what "
            "mends them.",
            figure=f"SELECT count(*) {unknown}",
            at_most=0,
            examples=f"SELECT strength, sentence, finding_id {unknown} ORDER BY strength DESC, finding_id",
            afterwards=f"INSERT INTO {KNOWN_FINDINGS} SELECT finding_id, $run_id, $now FROM cleaned.findings "
            f"WHERE finding_id NOT IN (SELECT finding_id FROM {KNOWN_FINDINGS})",
        )
    ]


def forecast_rules(panel: PanelSpec) -> list[TableRule]:
    """The rules of the forecasts, the blocking ones first."""
    keys, asset = ", ".join(panel.keys), "forecasts/latest"
    # Counted from the cleaned table, independently of how the scoring rows were made.
    lacking = (
        f"FROM (SELECT DISTINCT {keys} {_live(panel)}) AS e LEFT JOIN (SELECT {keys}, "
        f"count(DISTINCT horizon) AS horizons FROM {FORECASTS} WHERE forecast IS NOT NULL GROUP BY {keys}) "
        f"AS f USING ({keys}) WHERE coalesce(horizons, 0) < $horizon"
    )
    below_zero = "OR lower_95 < 0" if panel.series.target.nonnegative else ""
    disordered = (
        f"FROM {FORECASTS} WHERE NOT coalesce(isfinite(forecast) AND lower_95 <= lower_80 AND "
        f"lower_80 <= forecast AND forecast <= upper_80 AND upper_80 <= upper_95, false) {below_zero}"
    )
    again = "The model or its intervals are at fault: `turnover ui` shows the run; what is published stays."
    return [
        TableRule(
            name="every_live_series",
            asset=asset,
            sentence="Every series alive has a forecast for every horizon; the figure counts those without.",
            remedy=again,
            figure=f"SELECT count(*) {lacking}",
            at_most=0,
            blocking=True,
            examples=f"SELECT {keys}, coalesce(horizons, 0) AS horizons {lacking} ORDER BY {keys}",
        ),
        TableRule(
            name="ordered_bounds",
            asset=asset,
            sentence="Forecasts are finite, inside their bounds, and not negative where the panel says so; "
            "the figure counts those that are not.",
            remedy=again,
            figure=f"SELECT count(*) {disordered}",
            at_most=0,
            blocking=True,
            examples=f"SELECT * {disordered} ORDER BY {keys}, horizon",
        ),
        _yearly_rule(panel),
    ]


def _yearly_rule(panel: PanelSpec) -> TableRule:
    days = panel.frequency.season * panel.frequency.days
    both = (
        f"FROM {FORECASTS} AS f JOIN cleaned.{panel.series.name} AS c ON "
        f"c.{panel.time} = CAST(f.{panel.time} AS DATE) - {days} AND "
        + " AND ".join(f"c.{key} = f.{key}" for key in panel.keys)
    )
    ratio = f"sum(f.forecast) / nullif(sum(c.{panel.target}), 0)"
    least, most = YEARLY_RATIO
    return TableRule(
        name="near_last_year",
        asset="forecasts/latest",
        sentence="The forecasts add up to about what the same series reported in the same periods of last "
        "year; the figure is the ratio.",
        remedy="See the picture of forecasts/latest, and whether the newest or last year's values are wrong.",
        figure=f"SELECT {ratio} {both}",
        at_least=least,
        at_most=most,
        examples=f"SELECT f.horizon, sum(f.forecast) AS forecast, sum(c.{panel.target}) AS last_year, "
        f"{ratio} AS ratio {both} GROUP BY f.horizon ORDER BY f.horizon",
    )
