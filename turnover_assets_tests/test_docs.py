"""The documentation is held against the code: settings, panel fields, examples, links."""

import re
from pathlib import Path
from types import UnionType
from typing import get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from turnover_assets import panel as panels
from turnover_assets.panel import PanelSpec, load_panel
from turnover_assets.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGURATION = REPOSITORY / "docs" / "configuration.md"
EXAMPLES = sorted((REPOSITORY / "docs" / "panels").glob("*.toml"))
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "benchmarks").glob("*.md")),
]
# Where each part of a panel file is described, by the heading of its table.
SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": PanelSpec,
    "`[frequency]`": panels.Frequency,
    "`[series]`": panels.SeriesTable,
    "`time`": panels.TimeColumn,
    "`target`": panels.Target,
    "`keys` and `columns`": panels.Column,
    "`[[static]]`": panels.StaticTable,
    "`[[covariates]]`": panels.CovariateTable,
    "`[holidays]`": panels.HolidayCalendar,
}
# Defaults that the page says in words.
WORDS = {
    ("PanelSpec", "frequency"): "weeks from Monday",
    ("PanelSpec", "static"): "none",
    ("PanelSpec", "covariates"): "none",
    ("TimeColumn", "column"): "the name",
    ("Target", "column"): "the name",
    ("Column", "column"): "the name",
    ("CovariateTable", "time_column"): "that of the series",
}
BOUNDS = {"gt": "above", "ge": "at least", "le": "at most", "lt": "below"}


def table_rows(text: str) -> dict[str, list[str]]:
    """Cells of the rows of all tables in a text, by the code in the first cell."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in lines}


def section(heading: str) -> str:
    """The text under a heading of the configuration page, up to the next heading."""
    _, found, rest = CONFIGURATION.read_text("utf-8").partition(f"\n### {heading}\n")
    assert found, f"docs/configuration.md has no heading {heading!r}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def shown_default(model: type[BaseModel], name: str) -> str:
    info = model.model_fields[name]
    if (model.__name__, name) in WORDS:
        return WORDS[model.__name__, name]
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return "`" + str(list(value) if isinstance(value, tuple) else value).replace("'", '"') + "`"


def models_within(annotation: object) -> set[type[BaseModel]]:
    """The models that a field's annotation names, however deep."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        return {annotation}
    parts = getattr(annotation, "__args__", ()) if annotation is not UnionType else ()
    return set().union(*(models_within(part) for part in parts))


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_described_with_its_default_and_bounds(name: str) -> None:
    info = Settings.model_fields[name]
    expected = "not set" if info.default is None else f"`{info.default}`"

    default, meaning, bounds = table_rows(CONFIGURATION.read_text("utf-8"))[f"TURNOVER_{name.upper()}"]

    assert default == expected
    assert meaning
    for constraint in info.metadata:
        for attribute, word in BOUNDS.items():
            if (bound := getattr(constraint, attribute, None)) is not None:
                assert f"{word} {bound}" in bounds


def test_no_setting_is_described_that_there_is_not() -> None:
    named = set(re.findall(r"TURNOVER_[A-Z_]+", CONFIGURATION.read_text("utf-8")))

    assert named == {f"TURNOVER_{name.upper()}" for name in Settings.model_fields}


def test_every_part_of_a_panel_has_its_section() -> None:
    reached, todo = set(), [PanelSpec]
    while todo:
        model = todo.pop()
        reached.add(model)
        inner = set().union(*(models_within(info.annotation) for info in model.model_fields.values()))
        todo += inner - reached

    assert reached == set(SECTIONS.values())


@pytest.mark.parametrize("heading", list(SECTIONS))
def test_every_field_of_a_panel_is_described_with_its_default(heading: str) -> None:
    model = SECTIONS[heading]

    rows = table_rows(section(heading))

    assert set(rows) == set(model.model_fields)
    assert {name: cells[1] for name, cells in rows.items()} == {
        name: shown_default(model, name) for name in model.model_fields
    }
    assert all(len(cells) == 4 and all(cells) for cells in rows.values())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_panel_can_be_used_and_is_referred_to(path: Path) -> None:
    assert load_panel(path).tables
    assert f"panels/{path.name}" in links(CONFIGURATION)


def test_the_examples_cover_weeks_and_days() -> None:
    assert {load_panel(path).frequency.every for path in EXAMPLES} == {"week", "day"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_no_page_names_a_place_on_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text("utf-8")

    assert str(REPOSITORY) not in text
    assert str(Path.home()) + "/" not in text
