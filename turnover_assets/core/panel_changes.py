"""What sets a panel apart from the one that a home was built with, as far as the home cannot follow.

What belongs here: the differences between two panels that change what landed rows mean or which columns the
tables have. What does not: where the earlier panel comes from (storage/home_panel.py), and differences that
only change what is made of the rows (horizon, levels, holidays, missing values, sign and unit of the target):
those are made anew by the next run.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from turnover_assets.panel import Column, CovariateTable, PanelSpec, StaticTable


def layout_changes(before: PanelSpec, now: PanelSpec, landed: Collection[str]) -> list[tuple[str, str]]:
    """What a home that was built with one panel cannot take over from another.

    Args:
        before: The panel that the newest accepted file was read with.
        now: The panel to be used.
        landed: Names of the tables of which files were accepted.

    Returns:
        Pairs of (place in the panel file, what changed there); empty where the home can go on.
    """
    found = list(_changed_facts(_series_facts(before), _series_facts(now)))
    for name in sorted({*landed} - {before.series.name}):
        found += _table_changes(before, now, name)
    return found


def unfed_tables(known: Iterable[PanelSpec], now: PanelSpec) -> list[str]:
    """Tables whose columns, as they are called in the files, none of the known panels had for that table."""
    fed = [panel.tables for panel in known]
    return [
        name for name, columns in now.tables.items() if not any(columns == tables.get(name) for tables in fed)
    ]


def changed_sources(before: PanelSpec, now: PanelSpec, table: str) -> str:
    """What columns are called in the files: of a new table all, else those that were called otherwise."""
    columns, earlier = now.tables[table], before.tables.get(table, {})
    changed = {name: source for name, source in columns.items() if earlier.get(name, source) != source}
    if changed:
        return ", ".join(f"{source} (was {earlier[name]})" for name, source in changed.items())
    return ", ".join(columns.values())


def place_of(panel: PanelSpec, table: str) -> str:
    """Where a table stands in the panel file, as a person would say it."""
    if table == panel.series.name:
        return "series"
    return f"{'static' if table in {t.name for t in panel.static} else 'covariates'} {table!r}"


def _series_facts(panel: PanelSpec) -> dict[str, str | None]:
    """What all rows of the series table rest on, by place in the panel file."""
    series, frequency = panel.series, panel.frequency
    return {
        "frequency": "days" if frequency.every == "day" else f"weeks from {frequency.starts_on}",
        "series.name": series.name,
        "series.keys": ", ".join(f"{key.name} ({key.type})" for key in series.keys),
        "series.time.name": series.time.name,
        "series.time.label": series.time.label,
        "series.time.format": series.time.format,
        "series.target.name": series.target.name,
    }


def _changed_facts(
    before: Mapping[str, str | None], now: Mapping[str, str | None]
) -> Iterator[tuple[str, str]]:
    for place, was in before.items():
        if now[place] != was:
            yield place, f"was {was or 'left out'}, is {now[place] or 'left out'}"


def _table_changes(before: PanelSpec, now: PanelSpec, name: str) -> Iterator[tuple[str, str]]:
    """What changed of a table beside the series table of which files have landed."""
    if name not in now.tables or name not in before.tables or name == now.series.name:
        yield name, "the table is gone, but files of it have landed"
        return
    place = place_of(now, name)
    if place_of(before, name) != place:
        yield place, f"was {place_of(before, name)}"
        return
    keys, keys_now = (_table(panel, name).keys for panel in (before, now))
    if keys != keys_now:
        yield f"{place}, keys", f"were {', '.join(keys) or 'none'}, are {', '.join(keys_now) or 'none'}"
    yield from _column_changes(f"{place}, columns", _columns(before, name), _columns(now, name))


def _table(panel: PanelSpec, name: str) -> StaticTable | CovariateTable:
    tables: tuple[StaticTable | CovariateTable, ...] = (*panel.static, *panel.covariates)
    return next(table for table in tables if table.name == name)


def _columns(panel: PanelSpec, name: str) -> dict[str, Column]:
    return {column.name: column for column in _table(panel, name).columns}


def _column_changes(
    place: str, before: Mapping[str, Column], now: Mapping[str, Column]
) -> Iterator[tuple[str, str]]:
    """Columns renamed (still called the same in the files), removed, added and of another type."""
    gone = {name: column for name, column in before.items() if name not in now}
    new = {name: column for name, column in now.items() if name not in before}
    for name, column in gone.items():
        same = next((other for other in new.values() if other.source == column.source), None)
        if same:
            del new[same.name]
            yield place, f"{name!r} is renamed to {same.name!r}"
        else:
            yield place, f"{name!r} is removed"
    for name in new:
        yield place, f"{name!r} is added"
    for name in (name for name in before if name in now):
        if before[name].type != now[name].type:
            yield place, f"{name!r} was of type {before[name].type}, is of type {now[name].type}"
    kept, kept_now = ([n for n in side if n in before and n in now] for side in (before, now))
    if kept != kept_now:
        yield place, f"stood in the order {', '.join(kept)}, stand in the order {', '.join(kept_now)}"
