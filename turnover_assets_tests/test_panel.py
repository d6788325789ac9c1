"""The panel: what a panel file may say, and that everything wrong in it is told at once."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from turnover_assets.errors import PanelError
from turnover_assets.panel import PanelSpec, default_panel, load_panel, parse_panel
from turnover_assets.panel_rules import SQL_WORDS
from turnover_assets_tests.factories import daily, make_panel, panel_data, walmart_like


def static(name: str = "shops", **changes: Any) -> dict[str, Any]:
    return {"name": name, "keys": ["shop"], "columns": [{"name": f"{name}_size"}]} | changes


def covariates(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "keys": ["shop"]} | changes


def series(**changes: Any) -> dict[str, Any]:
    return panel_data()["series"] | changes


def test_the_default_panel_is_that_of_the_case_study() -> None:
    panel = default_panel()

    assert panel.keys == ("store", "department")
    assert (panel.time, panel.target, panel.horizon) == ("week", "turnover", 8)
    assert panel.level_names == ("department", "store", "region")
    assert (panel.frequency.days, panel.frequency.season, panel.frequency.cycle) == (7, 52, 1)
    assert panel.tables["turnover"] == {
        "store": "but_num_business_unit",
        "department": "dpt_num_department",
        "week": "day_id",
        "turnover": "turnover",
    }
    assert next(iter(panel.tables["stores"])) == "store"


def test_columns_of_other_tables_follow_the_series_keys_and_their_own_names() -> None:
    panel = make_panel(
        static=[static(key_columns={"shop": "SHOP NO"})],
        covariates=[covariates("plans", time_column="Monday", columns=[{"name": "promo"}])],
    )

    assert panel.tables["shops"] == {"shop": "SHOP NO", "shops_size": "shops_size"}
    assert panel.tables["plans"] == {"shop": "shop", "week": "Monday", "promo": "promo"}


def test_without_levels_the_keys_are_the_levels_from_last_to_first() -> None:
    two_keys = series(keys=[{"name": "shop"}, {"name": "line_of_goods"}])

    panel = make_panel(series=two_keys)

    assert panel.level_names == ("line_of_goods", "shop")
    assert panel.report_level == "line_of_goods"


@pytest.mark.parametrize("panel", [default_panel(), walmart_like(), daily()], ids=lambda panel: panel.name)
def test_a_panel_written_out_reads_back_the_same(panel: PanelSpec) -> None:
    again = parse_panel(panel.model_dump(mode="json"), "again")

    assert again == panel
    assert again.digest == panel.digest


def test_the_digest_changes_with_any_content() -> None:
    panels = [
        make_panel(),
        make_panel(horizon=9),
        make_panel(missing=["-"]),
        make_panel(holidays={"country": "FR"}),
        make_panel(series=series(target={"name": "amount", "nonnegative": False})),
    ]

    assert len({panel.digest for panel in panels}) == len(panels)
    assert make_panel().digest == make_panel().digest


MISTAKES = [
    pytest.param({"horizon": 0}, ["horizon: Input should be greater than or equal to 1"], id="horizon"),
    pytest.param({"horizon": 51}, ["horizon: Input should be less than or equal to 50"], id="long horizon"),
    pytest.param(
        {"horizont": 8}, ["horizont: is not a field here; did you mean 'horizon'?"], id="unknown field"
    ),
    pytest.param(
        {"colour": "blue"},
        ["colour: is not a field here (known: name, horizon, missing, levels, frequency, series, static, "],
        id="unknown field like none",
    ),
    pytest.param(
        {"static": [static(columns=[{"name": "floor", "colum": "S"}])]},
        ["static.0.columns.0.colum: is not a field here; did you mean 'column'?"],
        id="unknown field of a column",
    ),
    pytest.param(
        {"holidays": {"country": "FR", "subdivison": "67"}},
        ["holidays.subdivison: is not a field here; did you mean 'subdivision'?"],
        id="unknown field of a table",
    ),
    pytest.param(
        {"levels": ["shp"]},
        ["'shp' is neither a series key nor an attribute (shop); did you mean 'shop'?"],
        id="level with a slip",
    ),
    pytest.param({"name": None}, ["name: Input should be a valid string"], id="no name"),
    pytest.param({"frequency": {"every": "month"}}, ["frequency.every: Input should be 'week'"], id="month"),
    pytest.param({"frequency": {"starts_on": "Samedi"}}, ["frequency.starts_on: "], id="weekday"),
    pytest.param({"series": 5}, ["series: Input should be a valid dictionary"], id="series a number"),
    pytest.param(
        {"series": series(keys=[])}, ["series.keys: Tuple should have at least 1 item"], id="no key"
    ),
    pytest.param(
        {"series": series(keys=[{"name": "shop", "type": "float"}])}, ["series.keys.0.type: "], id="key type"
    ),
    pytest.param(
        {"series": series(keys=[{"name": "Shop No"}])},
        ["series.keys: 'Shop No' is not a name"],
        id="not a name",
    ),
    pytest.param(
        {"series": series(keys=[{"name": "forecast"}])},
        ["'forecast' is taken by the platform"],
        id="reserved",
    ),
    pytest.param({"series": series(keys=[{"name": "order"}])}, ["'order' is a word of SQL"], id="SQL word"),
    pytest.param({"series": series(name="select")}, ["table name 'select' is a word of SQL"], id="SQL table"),
    pytest.param({"series": series(name="Sales!")}, ["table name 'Sales!' is not a name"], id="table name"),
    pytest.param({"series": series(name="rejected")}, ["table name 'rejected' is taken"], id="table taken"),
    pytest.param({"static": [static("sales")]}, ["table name 'sales' is taken"], id="table name twice"),
    pytest.param(
        {"series": series(keys=[{"name": "shop"}, {"name": "amount_adjusted"}])},
        ["'amount_adjusted' is taken by the platform"],
        id="made from the target",
    ),
    pytest.param(
        {"static": [static(columns=[{"name": "shop_id"}])]}, ["'shop_id' is taken"], id="made from a level"
    ),
    pytest.param(
        {"static": [static(columns=[{"name": "amount", "column": "x"}])]},
        ["the column name 'amount' is given 2 times"],
        id="column name twice",
    ),
    pytest.param(
        {"series": series(keys=[{"name": "shop"}, {"name": "aisle", "column": "shop"}])},
        ["series: the column 'shop' of the files is used 2 times"],
        id="one column of the files for two",
    ),
    pytest.param(
        {"static": [static(keys=["store"])]}, ["static.0.keys: 'store' is not a series key"], id="key"
    ),
    pytest.param(
        {"static": [static(keys="shop", key_columns={"shop": "s"})]}, ["static.0.keys: "], id="keys a text"
    ),
    pytest.param(
        {"static": [static(keys=5, key_columns={"shop": "s"})]}, ["static.0.keys: "], id="keys a number"
    ),
    pytest.param(
        {"static": [static(key_columns={"aisle": "a"})]},
        ["static.0.key_columns: 'aisle' is not among this table's keys"],
        id="renamed key",
    ),
    pytest.param(
        {"levels": ["region"]}, ["levels: 'region' is neither a series key nor an attribute"], id="level"
    ),
    pytest.param({"levels": ["shop", "shop"]}, ["levels: 'shop' is given more than once"], id="level twice"),
    pytest.param(
        {"holidays": {"country": "Atlantis"}},
        ["'Atlantis' is not known to the holidays package"],
        id="country",
    ),
    pytest.param(
        {"holidays": {"country": "FR", "subdivision": "Bayern"}},
        ["holidays.subdivision: 'Bayern' is not a part of FR"],
        id="subdivision",
    ),
    pytest.param(
        {
            "static": [static("b", columns=[{"name": "s"}, {"name": "u", "column": "S"}])],
            "covariates": [covariates("c", time_column="s", columns=[{"name": "v", "column": "S"}])],
        },
        ["files of 'b' and 'c' have the same columns (S, s, shop): no telling them apart"],
        id="static and covariates alike",
    ),
    pytest.param(
        {"covariates": [covariates("plan", columns=[{"name": "promo", "column": "amount"}])]},
        ["files of 'sales' and 'plan' have the same columns (amount, shop, week)"],
        id="as the series table",
    ),
]


@pytest.mark.parametrize(("changes", "messages"), MISTAKES)
def test_a_mistake_is_named_with_its_place(changes: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(PanelError, match=r"The panel file retailer\.toml has ") as caught:
        parse_panel(panel_data(**changes), "retailer.toml")

    assert [message for message in messages if message not in str(caught.value)] == []
    assert str(caught.value).endswith("docs/configuration.md describes every field.")


def test_tables_whose_columns_include_those_of_another_are_told_apart() -> None:
    more = static("more", columns=[{"name": "size", "column": "S"}, {"name": "age"}])
    less = static("less", columns=[{"name": "floor", "column": "S"}])

    panel = make_panel(static=[more, less])

    assert set(panel.tables["less"].values()) < set(panel.tables["more"].values())


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "retailer.toml"
    path.write_text(
        """
        name = "many"
        horizon = 0
        levels = ["regoin"]
        colour = "blue"
        [frequency]
        every = "hour"
        [series]
        name = "sales"
        keys = [{ name = "Shop" }, { name = "line" }]
        time = { name = "week" }
        target = { name = "week" }
        [[static]]
        name = "sales"
        keys = ["store"]
        columns = [{ name = "region" }]
        [holidays]
        country = "Utopia"
        """
    )

    with pytest.raises(PanelError, match="has 11 problems") as caught:
        load_panel(path)

    told = str(caught.value)
    expected = [
        "horizon: ",
        "colour: ",
        "frequency.every: ",
        "'Shop' is not a name",
        "'line' is taken",
        "'week' is given",
        "the column 'week' of the files",
        "table name 'sales' is taken",
        "'store' is not a series key",
        "'regoin'",
        "'Utopia'",
    ]
    assert [text for text in expected if text not in told] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"name = 'unfinished", "has 1 problem:\n  - is not TOML: ", id="not TOML"),
        pytest.param(b"name = '\xff'", "is not TOML: ", id="not UTF-8"),
        pytest.param(b"", "series: Field required", id="empty"),
    ],
)
def test_a_file_that_is_no_panel_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "panel.toml"
    path.write_bytes(content)

    with pytest.raises(PanelError, match=r"panel\.toml has") as caught:
        load_panel(path)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.toml", "No such file"), ("", "Is a directory")], ids=["missing", "folder"]
)
def test_a_panel_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(PanelError, match=rf"cannot be read \({reason}"):
        load_panel(tmp_path / name)


def test_every_word_that_duckdb_reserves_is_refused_as_a_name() -> None:
    reserved = duckdb.sql(
        "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
    ).fetchall()

    assert {word for (word,) in reserved} - SQL_WORDS == set()
