"""Cleaning: raw text becomes typed rows, unique on their key; what breaks a rule is kept apart.

What belongs here: the rules, and the SQL that applies them, for the three kinds of table a panel has.
What does not: reading files (storage/reader.py), judging values that are well formed (anomalies).

Invariants:
    - every raw row is either in the cleaned table, restated by a later one, or in cleaned.rejected;
    - a reported value that a later file changed is in cleaned.restatements, with both values;
    - reported values are never altered; `<target>_adjusted` stands beside them;
    - the result depends on the raw rows and the order of their files only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from turnover_assets.core.calendar import epoch, label_offset
from turnover_assets.core.restatements import record_restatements
from turnover_assets.panel import Column, PanelSpec, StaticTable

REJECTED = "cleaned.rejected"
INTEGER = r"[+-]?\d{1,18}(\.0*)?"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?"
ISO_DATE = r"\d{4}-\d{2}-\d{2}([ T]00:00(:00(\.0+)?)?)?"
SHOWN_TYPES = {"integer": "a whole number", "number": "a number", "text": "text", "flag": "true or false"}
LARGEST = 1e15  # beyond it a value is a slip, and one such would drown or overflow every sum it is in
YEARS = (1900, 2199)  # a year beyond them is a placeholder or a slip, and would stretch every series to it


@dataclass(frozen=True)
class Rule:
    """A named rule: the SQL condition under which a row breaks it, and the message to keep."""

    name: str
    broken: str
    message: str


def clean_all(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Rebuild every cleaned table from raw, in the order in which they need each other."""
    create_rejected(con)
    for static in panel.static:
        clean_static(con, panel, static.name)
    for covariates in panel.covariates:
        clean_covariates(con, panel, covariates.name)
    clean_series(con, panel)


def create_rejected(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table of rejected rows, empty."""
    con.execute(
        f"CREATE OR REPLACE TABLE {REJECTED} (table_name VARCHAR, file VARCHAR, line BIGINT, "
        "rule VARCHAR, message VARCHAR, action VARCHAR, raw_values VARCHAR, file_no INTEGER)"
    )


def clean_static(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> None:
    """Build cleaned.<name> for a table of attributes; bad rows are added to cleaned.rejected.

    An attribute that cannot be read leaves the row in place with that attribute empty, and is listed.
    """
    table = next(static for static in panel.static if static.name == name)
    columns = _key_columns(panel, table.keys) + list(table.columns)
    _clean(con, panel, name, columns, table.keys, _key_rules(panel, table.keys), with_time=False)


def clean_covariates(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> None:
    """Build cleaned.<name> for a table of values known ahead, unique on its keys and period."""
    table = next(table for table in panel.covariates if table.name == name)
    columns = _key_columns(panel, table.keys) + list(table.columns)
    rules = _key_rules(panel, table.keys) + _time_rules(panel)
    _clean(con, panel, name, columns, (*table.keys, "t"), rules, with_time=True)


def clean_series(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Build the cleaned series table, unique on series keys and period.

    Beside the panel's columns it has `t` (period index), `<target>_adjusted` and `adjustment_id`
    (equal to the reported value and NULL until an adjustment applies), `file_no` and `line`.
    The static tables must have been cleaned before.
    """
    target = panel.target
    columns = [*panel.series.keys, Column(name=target, type="number")]
    rules = [*_key_rules(panel, panel.keys), *_time_rules(panel), _future_rule(panel), *_target_rules(panel)]
    rules += [_known_key_rule(table) for table in panel.static if _is_binding(con, table)]
    _clean(con, panel, panel.series.name, columns, (*panel.keys, "t"), rules, with_time=True)
    con.execute(
        f"ALTER TABLE cleaned.{panel.series.name} ADD COLUMN {target}_adjusted DOUBLE;"
        f"ALTER TABLE cleaned.{panel.series.name} ADD COLUMN adjustment_id VARCHAR;"
        f"UPDATE cleaned.{panel.series.name} SET {target}_adjusted = {target}"
    )


def content_version(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> str:
    """Fingerprint of all cleaned values, whatever the order or the files they came in.

    Returns:
        16 hexadecimal digits; the same values always give the same ones.
    """
    parts = []
    for name in panel.tables:
        columns = ", ".join(_value_texts(con, name))
        parts.append(
            f"SELECT '{name}' AS n, count(*) AS rows, "
            f"bit_xor(md5_number(concat_ws('|', {columns}))) AS h FROM cleaned.{name}"
        )
    digest = con.execute(
        f"SELECT md5(string_agg(concat_ws(':', n, rows, h), ',' ORDER BY n) || ?) "
        f"FROM ({' UNION ALL '.join(parts)})",
        [panel.digest],
    ).fetchall()[0][0]
    return str(digest)[:16]


def _value_texts(con: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    rows = con.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'cleaned' "
        "AND table_name = ? AND column_name NOT IN ('file_no', 'line') ORDER BY ordinal_position",
        [name],
    ).fetchall()
    # With their lengths, so that no two rows give one text, whatever characters they hold.
    texts = [f"CAST({row[0]} AS VARCHAR)" for row in rows]
    return [f"coalesce(length({text}) || ':' || {text}, '')" for text in texts]


def _clean(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    name: str,
    columns: Sequence[Column],
    unique: Sequence[str],
    rules: Sequence[Rule],
    *,
    with_time: bool,
) -> None:
    """Type, judge, keep the latest row of each key, and list every row that broke a rule."""
    params = {"missing": ["", *(text.strip().lower() for text in panel.missing)]}
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE typed AS {_typed_sql(panel, name, columns, with_time)}", params
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {_judged_sql(unique, rules)}")
    kept = [column.name for column in columns]
    if with_time:
        kept[-1:-1] = [panel.time] if name == panel.series.name else []
        kept += ["t"] if name == panel.series.name else [panel.time, "t"]
    con.execute(
        f"CREATE OR REPLACE TABLE cleaned.{name} AS SELECT {', '.join(kept)}, file_no, line "
        f"FROM judged WHERE rule IS NULL "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(unique)} ORDER BY file_no DESC) = 1 "
        f"ORDER BY {', '.join(unique)}"
    )
    _list_rejected(con, panel, name, columns)
    if name == panel.series.name:
        record_restatements(con, panel)
    con.execute("DROP TABLE typed; DROP TABLE judged")


def _typed_sql(panel: PanelSpec, name: str, columns: Sequence[Column], with_time: bool) -> str:
    selected = [f"{_typed(c)} AS {c.name}" for c in columns]
    texts = [f"{_text(c.name)} AS {c.name}_text" for c in columns]
    if with_time:
        texts.append(f"{_text(panel.time)} AS {panel.time}_text")
        selected.append(f"{_date_sql(panel)} AS {panel.time}")
    inner = f"SELECT file_no, line, malformed, {', '.join(texts)} FROM raw.{name} AS r"
    period = f", {_period_sql(panel)} AS t" if with_time else ""
    return (
        f"SELECT *{period} FROM (SELECT x.*, f.name AS file, f.landed_at, {', '.join(selected)} "
        f"FROM ({inner}) AS x JOIN raw.files AS f USING (file_no))"
    )


def _text(name: str) -> str:
    """The raw text, with what stands for a missing value made NULL."""
    return f"CASE WHEN list_contains($missing, lower(trim(r.{name}))) THEN NULL ELSE trim(r.{name}) END"


def _typed(column: Column) -> str:
    text = f"x.{column.name}_text"
    if column.type == "integer":
        return (
            f"CASE WHEN regexp_full_match({text}, '{INTEGER}') "
            f"THEN TRY_CAST(split_part({text}, '.', 1) AS BIGINT) END"
        )
    if column.type == "number":
        # Files that separate fields by semicolons write decimals with a comma.
        plain = f"CASE WHEN f.delimiter = ';' THEN replace({text}, ',', '.') ELSE {text} END"
        number = f"CASE WHEN regexp_full_match({plain}, '{NUMBER}') THEN TRY_CAST({plain} AS DOUBLE) END"
        return f"CASE WHEN isfinite({number}) THEN {number} END"
    if column.type == "flag":
        return (
            f"CASE WHEN lower({text}) IN ('true', '1', 't', 'yes') THEN true "
            f"WHEN lower({text}) IN ('false', '0', 'f', 'no') THEN false END"
        )
    return text


def _date_sql(panel: PanelSpec) -> str:
    text, pattern = f"x.{panel.time}_text", panel.series.time.format
    if pattern:
        return f"CAST(TRY_STRPTIME({text}, {_literal(pattern)}) AS DATE)"
    return f"CASE WHEN regexp_full_match({text}, '{ISO_DATE}') THEN TRY_CAST(left({text}, 10) AS DATE) END"


def _period_sql(panel: PanelSpec) -> str:
    days = panel.frequency.days
    since = f"(date_diff('day', DATE '{epoch(panel)}', {panel.time}) - {label_offset(panel)})"
    return f"CASE WHEN {since} % {days} = 0 THEN CAST({since} // {days} AS INTEGER) END"


def _judged_sql(unique: Sequence[str], rules: Sequence[Rule]) -> str:
    """Each row with the first rule it breaks; of rows that repeat a key in one file, the last stays."""
    malformed = Rule("malformed_row", "malformed IS NOT NULL", "malformed")
    ordered = [malformed, *rules]
    names = " ".join(f"WHEN {rule.broken} THEN '{rule.name}'" for rule in ordered)
    messages = " ".join(f"WHEN {rule.broken} THEN {rule.message}" for rule in ordered)
    key = ", ".join(unique)
    return (
        f"SELECT * EXCLUDE (broken, broken_message, last_line), "
        "CASE WHEN broken IS NOT NULL THEN broken WHEN line < last_line THEN 'repeated_key' END AS rule, "
        "CASE WHEN broken IS NOT NULL THEN broken_message WHEN line < last_line THEN "
        "'the same key stands again in line ' || last_line || ' of this file; the later line counts' END "
        "AS message FROM (SELECT *, max(line) FILTER (broken IS NULL) "
        f"OVER (PARTITION BY file_no, {key}, broken IS NULL) AS last_line "
        f"FROM (SELECT *, CASE {names} END AS broken, CASE {messages} END AS broken_message FROM typed))"
    )


def _literal(text: str) -> str:
    """A text of the panel file as an SQL literal, whatever quotes it holds."""
    return "'" + text.replace("'", "''") + "'"


def _key_columns(panel: PanelSpec, keys: Sequence[str]) -> list[Column]:
    return [key for key in panel.series.keys if key.name in keys]


def _key_rules(panel: PanelSpec, keys: Sequence[str]) -> list[Rule]:
    rules = []
    for key in _key_columns(panel, keys):
        missing = _literal(f"{key.source} is missing")
        rules.append(Rule("key_missing", f"{key.name}_text IS NULL", missing))
        message = f"{_literal(f'{key.source} is not {SHOWN_TYPES[key.type]}: ')} || {key.name}_text"
        rules.append(Rule("key_unreadable", f"{key.name} IS NULL", message))
    return rules


def _time_rules(panel: PanelSpec) -> list[Rule]:
    time, source = panel.time, panel.series.time.source
    expected = panel.series.time.format or "YYYY-MM-DD"
    undated = _literal(f"{source} is not a date ({expected}): ")
    wrong_day = _literal(f", not the {panel.series.time.label} of a week that starts on ")
    weekday = f"{time} || ' is a ' || dayname({time}) || {wrong_day} || '{panel.frequency.starts_on}'"
    beyond = f"{time} || ' is not between {YEARS[0]} and {YEARS[1]}'"
    return [
        Rule("date_missing", f"{time}_text IS NULL", _literal(f"{source} is missing")),
        Rule("not_a_date", f"{time} IS NULL", f"{undated} || {time}_text"),
        Rule(
            "date_out_of_range",
            f"year({time}) NOT BETWEEN {YEARS[0]} AND {YEARS[1]}",
            f"{_literal(source + ' ')} || {beyond}",
        ),
        Rule("not_a_period", "t IS NULL", f"{_literal(source + ' ')} || {weekday}"),
    ]


def _future_rule(panel: PanelSpec) -> Rule:
    """What is reported for a period that had not begun when its file landed cannot be so.

    One such row would otherwise become the newest period of the whole panel. A day is allowed for time zones.
    """
    begins = f"({panel.time} - {label_offset(panel)})"
    source = _literal(f"{panel.series.time.source} ")
    return Rule(
        "date_in_future",
        f"{begins} > CAST(landed_at AS DATE) + 1",
        f"{source} || {panel.time} || ' had not begun when the file landed, on ' || CAST(landed_at AS DATE)",
    )


def _target_rules(panel: PanelSpec) -> list[Rule]:
    target, source = panel.target, panel.series.target.source
    unread = _literal(f"{source} is not a number: ")
    beyond = _literal(f"{source} is not between {-LARGEST:g} and {LARGEST:g}: ")
    return [
        Rule("value_missing", f"{target}_text IS NULL", _literal(f"{source} is missing")),
        Rule("not_a_number", f"{target} IS NULL", f"{unread} || {target}_text"),
        Rule("value_out_of_range", f"abs({target}) > {LARGEST}", f"{beyond} || {target}_text"),
    ]


def _is_binding(con: duckdb.DuckDBPyConnection, table: StaticTable) -> bool:
    """Whether rows must have their key in this table: not before its first file has landed."""
    listed = con.execute(f"SELECT count(*) FROM cleaned.{table.name}").fetchall()[0][0]
    return table.required and listed > 0


def _known_key_rule(table: StaticTable) -> Rule:
    keys = ", ".join(table.keys)
    shown = " || ', ' || ".join(f"'{key} ' || {key}" for key in table.keys)
    return Rule(
        f"unknown_{'_'.join(table.keys)}",
        f"({keys}) NOT IN (SELECT ({keys}) FROM cleaned.{table.name})",
        f"{shown} || ' is in no {table.name} file; land one that lists it and the row is taken up'",
    )


def _list_rejected(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, columns: Sequence[Column]
) -> None:
    texts = [f"{c.name}_text" for c in columns]
    if f"{panel.time}_text" in _columns_of(con, "judged"):
        texts.append(f"{panel.time}_text")
    shown = "concat_ws(', ', " + ", ".join(f"'{t[:-5]}=' || coalesce({t}, '')" for t in texts) + ")"
    con.execute(
        f"INSERT INTO {REJECTED} SELECT '{name}', file, line, rule, message, 'row rejected', "
        f"CASE WHEN malformed IS NULL THEN {shown} ELSE malformed END, file_no "
        "FROM judged WHERE rule IS NOT NULL ORDER BY file_no, line"
    )
    if name == panel.series.name:
        return
    for column in columns:
        message = f"{_literal(f'{column.source} is not of type {column.type}: ')} || {column.name}_text"
        con.execute(
            f"INSERT INTO {REJECTED} SELECT '{name}', file, line, 'attribute_unreadable', {message}, "
            f"'value left empty', {shown}, file_no FROM judged "
            f"WHERE rule IS NULL AND {column.name} IS NULL AND {column.name}_text IS NOT NULL "
            "ORDER BY file_no, line"
        )


def _columns_of(con: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()}
