"""A home and a panel that is not the one it was built with."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import dagster as dg
import pytest

from turnover_assets.backtesting import BacktestOrder, hold_backtest
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import sensors
from turnover_assets.errors import PanelChangedError
from turnover_assets.maintenance import rebuild_warehouse, search_parameters
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.landing_folder import scan
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed, land_text, quiet
from turnover_assets_tests.other_retailers import PANELS

US_STORES = (PANELS / "us-stores.toml").read_text("utf-8")
SALES = "Store,Dept,Date,Weekly_Sales\n1,1,2030-01-04,5\n"
STORES = "Store,Type,Size\n1,A,9\n"
CLOSURES = (
    '[[covariates]]\nname = "closures"\nkeys = ["store"]\n'
    'columns = [{ name = "closed_days", column = "Closed", type = "number" }]\n'
)
CLOSED = "Store,Date,Closed\n1,2030-01-04,2\n"


def settings_with(home: Path, old: str = "", new: str = "", more: str = "") -> Settings:
    """A home whose panel is that of the US stores, with a text replaced and more of it at its end."""
    home.mkdir(exist_ok=True)
    assert old in US_STORES
    panel = home.parent / f"{sha256((old + new + more).encode()).hexdigest()[:8]}.toml"
    panel.write_text(US_STORES.replace(old, new, 1) + more, "utf-8")
    return load_settings(home=home, panel=panel)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which sales and stores have landed, but no plans."""
    settings = settings_with(tmp_path / "var")
    warehouse = Warehouse(settings.warehouse_path)
    for name, content in {"sales.csv": SALES, "stores.csv": STORES}.items():
        land_text(tmp_path / "files", warehouse, settings.panel_spec, name, content)
    return settings.home


CHANGES = {
    "key of another type": (
        'name = "store", column = "Store", type = "integer"',
        'name = "store", column = "Store", type = "text"',
        "series.keys: was store (integer), department (integer), is store (text), department (integer)",
    ),
    "key added": (
        "keys = [\n",
        'keys = [\n  { name = "banner" },\n',
        "series.keys: was store (integer), department (integer), is banner (text), store (integer)",
    ),
    "days in place of weeks": (
        'every = "week"',
        'every = "day"',
        "frequency: was weeks from saturday, is days",
    ),
    "week from another day": (
        '"saturday"',
        '"sunday"',
        "frequency: was weeks from saturday, is weeks from sunday",
    ),
    "label": ('label = "end"', 'label = "start"', "series.time.label: was end, is start"),
    "dates": (
        'label = "end"',
        'label = "end", format = "%d.%m.%Y"',
        "series.time.format: was left out, is %d.%m.%Y",
    ),
    "target renamed": (
        'name = "weekly_sales"',
        'name = "revenue"',
        "series.target.name: was weekly_sales, is revenue",
    ),
    "series renamed": ('name = "sales"', 'name = "turnover"', "series.name: was sales, is turnover"),
    "attribute renamed": ('name = "size"', 'name = "area"', "static 'stores', columns: 'size' is renamed"),
    "attribute removed": (
        '  { name = "size", column = "Size", type = "integer" },\n',
        "",
        "static 'stores', columns: 'size' is removed",
    ),
    "attribute added": (
        '  { name = "size"',
        '  { name = "floors" },\n  { name = "size"',
        "static 'stores', columns: 'floors' is added",
    ),
    "attribute of another type": (
        '"Size", type = "integer"',
        '"Size", type = "text"',
        "static 'stores', columns: 'size' was of type integer, is of type text",
    ),
    "table renamed": ('name = "stores"', 'name = "shops"', "stores: the table is gone, but files"),
    "attribute that no file has": (
        'column = "Size"',
        'column = "Sqft"',
        "static 'stores': no file has its columns: Sqft (was Size)",
    ),
    "target that no file has": (
        '"Weekly_Sales"',
        '"Revenue"',
        "series: no file has its columns: Revenue (was Weekly_Sales)",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), CHANGES.values(), ids=CHANGES.keys())
def test_what_changed_in_the_panel_is_told_with_its_place(home: Path, old: str, new: str, told: str) -> None:
    settings = settings_with(home, old, new)

    with pytest.raises(PanelChangedError) as caught:
        check_panel(settings, lambda: scan(home.parent / "files"))

    assert f"  - {told}" in str(caught.value)
    assert len(caught.value.problems) == 1
    assert str(home) in str(caught.value)
    assert "TURNOVER_HOME" in str(caught.value)


HARMLESS = {
    "horizon": ("horizon = 8", "horizon = 4"),
    "levels": ('"department", "store", "store_type"]', '"department"]'),
    "holidays": ('country = "US"', 'country = "CA"'),
    "sign and unit": ('nonnegative = true, unit = "USD"', 'nonnegative = false, unit = "EUR"'),
    "missing values": ('["", "NA"]', '["", "-"]'),
    "a table of which no file has landed is gone": (US_STORES[US_STORES.index("[[covariates]]") :], ""),
}


@pytest.mark.parametrize(("old", "new"), HARMLESS.values(), ids=HARMLESS.keys())
def test_a_change_that_the_home_can_follow_goes_on(home: Path, old: str, new: str) -> None:
    check_panel(settings_with(home, old, new))


def test_all_changes_are_told_at_once(home: Path) -> None:
    settings = settings_with(home, 'label = "end"', 'label = "start"')
    text = settings.panel.read_text("utf-8") if settings.panel else ""
    changed = home.parent / "two.toml"
    changed.write_text(text.replace('name = "size"', 'name = "area"'))

    with pytest.raises(PanelChangedError) as caught:
        check_panel(load_settings(home=home, panel=changed))

    assert [where for where, _ in caught.value.problems] == ["series.time.label", "static 'stores', columns"]


def test_a_table_that_the_home_does_not_know_waits_for_its_first_file(home: Path) -> None:
    settings, files = settings_with(home, more=CLOSURES), home.parent / "files"

    with pytest.raises(
        PanelChangedError, match=r"covariates 'closures': no file has its columns: Store, Date, Closed\n"
    ):
        check_panel(settings, lambda: scan(files))
    (files / "closed.csv").write_text(CLOSED)
    check_panel(settings, lambda: scan(files))
    land_text(files, Warehouse(settings.warehouse_path), settings.panel_spec, "closed.csv", CLOSED)
    check_panel(settings)


def test_a_new_home_takes_any_panel(tmp_path: Path) -> None:
    check_panel(settings_with(tmp_path / "var", 'label = "end"', 'label = "start"'))


# What refuses ------------------------------------------------------------------------------------

REGION, RENAMED = 'column = "but_region_idr_region"', 'column = "region_of_the_shop"'


@pytest.fixture
def renamed(copied: Landed, tmp_path: Path) -> Settings:
    """A home with published forecasts, and a panel that calls an attribute as no file does."""
    default = Path(sensors.__file__).parents[1] / "panels" / "default.toml"
    panel = tmp_path / "renamed.toml"
    panel.write_text(default.read_text("utf-8").replace(REGION, RENAMED))
    shown = copied.settings.model_dump(exclude={"panel", "landing"})
    return load_settings(**shown, panel=panel, landing=copied.folder)


COMMANDS: dict[str, Callable[[Settings], object]] = {
    "run": lambda settings: bring_up_to_date(settings, settings.landing_path, quiet),
    "run --retrain": lambda settings: bring_up_to_date(settings, settings.landing_path, quiet, retrain=True),
    "rebuild": lambda settings: rebuild_warehouse(settings, quiet),
    "backtest": lambda settings: hold_backtest(settings, BacktestOrder()),
    "tune": lambda settings: search_parameters(settings, {}, quiet),
}


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file that holds a home's data; locks and what is remembered of files aside."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".json", ".db-shm", ".db-wal")
    }


def test_every_command_refuses_and_changes_nothing(renamed: Settings) -> None:
    before = contents(renamed.home)

    for command in COMMANDS.values():
        with pytest.raises(PanelChangedError, match=r"static 'stores': .*region_of_the_shop"):
            command(renamed)

    assert contents(renamed.home) == before


@pytest.mark.parametrize("name", ["landing_sensor", "refresh_sensor", "retrain_sensor"])
def test_every_sensor_says_so_at_its_tick(renamed: Settings, name: str) -> None:
    (sensor,) = (made for made in sensors.build(renamed) if made.name == name)

    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, definitions=build_definitions(renamed)) as context,
    ):
        tick = sensor.evaluate_tick(context)

    assert tick.run_requests in (None, [])
    assert "region_of_the_shop" in (tick.skip_message or "")
