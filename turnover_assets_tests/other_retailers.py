"""Files of two other retailers, as they would drop them: weeks that end on Fridays, and days.

What belongs here: synthetic files in the layout of the two example panels of the documentation, and what went
into them. What does not: files of the default panel (core/samples.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from turnover_assets.runner import Outcome, bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets_tests.factories import quiet

PANELS = Path(__file__).resolve().parent.parent / "docs" / "panels"
FIRST_FRIDAY = date(2010, 2, 5)
FIRST_DAY = date(2022, 1, 3)
AHEAD = 10  # weeks for which plans reach past the last week of sales
DAYS_AHEAD = 20
PROMOTION_LIFT = 1.6
SCHOOL_IS_OUT_LIFT = 1.3


@dataclass(frozen=True)
class OtherRetailer:
    """A home with published forecasts of another retailer.

    Attributes:
        settings: The settings it ran with.
        folder: The files.
        outcome: What the run said.
        sales: What was written as sales, with canonical columns and `datetime.date`s.
    """

    settings: Settings
    folder: Path
    outcome: Outcome
    sales: pd.DataFrame


def run_on(root: Path, panel: str, sales: pd.DataFrame, **settings: Any) -> OtherRetailer:
    """Run a panel of the documentation on root/files, to published forecasts."""
    chosen = load_settings(home=root / "var", panel=PANELS / f"{panel}.toml", **settings)
    return OtherRetailer(chosen, root / "files", bring_up_to_date(chosen, root / "files", quiet), sales)


# Weeks labelled by their Friday ------------------------------------------------------------------


def write_us_stores(folder: Path, weeks: int = 134, seed: int = 5) -> pd.DataFrame:
    """Sales by store and department, values by store and week, and stores with CR for line ends.

    Some sales are negative, values are missing as `NA` or as nothing, the plans reach past the last week of
    sales, and department 9 opened half a year before it.

    Returns:
        The sales: `store`, `department`, `week` (the Friday), `weekly_sales`.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    fridays = [FIRST_FRIDAY + timedelta(weeks=t) for t in range(weeks + AHEAD)]
    sizes = {1: ("A", 151315), 2: ("A", 202307), 3: ("B", 37392)}
    rows = [
        (store, department, friday, _weekly(rng, size * share, friday))
        for store, (_, size) in sizes.items()
        for department, share in ((1, 0.1), (7, 0.05), (9, 0.0005))
        for friday in fridays[weeks - 30 if department == 9 else 0 : weeks]
    ]
    sales = pd.DataFrame(rows, columns=["store", "department", "week", "weekly_sales"])
    train = sales.set_axis(["Store", "Dept", "Date", "Weekly_Sales"], axis=1)
    train["IsHoliday"] = [holiday_week(friday) for friday in sales["week"]]
    train.to_csv(folder / "train.csv.gz", index=False)
    plans = [
        _plans(rng, store, friday, late=i > weeks // 2) for store in sizes for i, friday in enumerate(fridays)
    ]
    header = "Store,Date,Temperature,Fuel_Price," + ",".join(f"MarkDown{i}" for i in range(1, 6))
    lines = [f"{header},CPI,Unemployment,IsHoliday", *plans]
    (folder / "features.csv").write_text("\n".join(lines) + "\n")
    listed = [f"{store},{kind},{size}" for store, (kind, size) in sizes.items()]
    (folder / "stores.csv").write_bytes("\r".join(["Store,Type,Size", *listed, ""]).encode())
    return sales


def _weekly(rng: np.random.Generator, level: float, friday: date) -> float:
    """An amount with a season and noise; small departments take back more than they sell now and then."""
    season = 1 + 0.3 * np.sin(2 * np.pi * friday.timetuple().tm_yday / 365)
    noise = rng.normal(0, 0.8 if level < 200 else 0.05)
    return round(float(level * season * (1 + noise + 0.5 * holiday_week(friday))), 2)


def holiday_week(friday: date) -> bool:
    """Whether the week that ends on a Friday is one of the year's four holiday weeks."""
    return (friday.month, friday.day // 7) in ((2, 1), (9, 1), (11, 3), (12, 4))


def _plans(rng: np.random.Generator, store: int, friday: date, *, late: bool) -> str:
    """A line of plans; markdowns are written from half of the history on, and not all of them."""
    markdowns = [f"{rng.gamma(2, 500):.2f}" if late and rng.random() < 0.7 else "NA" for _ in range(5)]
    facts = f"{rng.normal(60, 15):.2f},2.572,{','.join(markdowns)},211.09,{'8.106' if late else ''}"
    return f"{store},{friday},{facts},{'TRUE' if holiday_week(friday) else 'FALSE'}"


# Days --------------------------------------------------------------------------------------------


def write_daily_shops(folder: Path, days: int = 800, seed: int = 6) -> pd.DataFrame:
    """Net amounts by shop and day, shops, promotions by shop and day, and school holidays for all.

    Shops are closed on Sundays, except for the one at the station; the kiosk's refunds make some of its days
    negative; what is planned reaches past the last day of sales.

    Returns:
        The sales: `shop`, `sold_on`, `amount`.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    calendar = [FIRST_DAY + timedelta(days=t) for t in range(days + DAYS_AHEAD)]
    shops = {
        "Köln-1": ("Köln", 900),
        "Köln-2": ("Köln", 2500),
        "Station": ("Bonn", 1500),
        "Kiosk": ("Bonn", 25),
    }
    promoted = {(shop, day): is_promoted(shop, day) for shop in shops for day in calendar}
    rows = [
        (shop, day, _daily(rng, level, day, promoted=promoted[shop, day]))
        for shop, (_, level) in shops.items()
        for day in calendar[:days]
        if day.weekday() != 6 or shop == "Station"
    ]
    sales = pd.DataFrame(rows, columns=["shop", "sold_on", "amount"])
    _write(folder / "sales.csv", "shop_code,date,net_amount", ((s, _dated(d), a) for s, d, a in rows))
    _write(folder / "shops.csv", "code,city", ((shop, city) for shop, (city, _) in shops.items()))
    plans = ((shop, _dated(day), "yes" if on else "no") for (shop, day), on in promoted.items())
    _write(folder / "promotions.csv", "shop_code,day,promo", plans)
    school = ((_dated(day), int(school_is_out(day))) for day in calendar)
    _write(folder / "school.csv", "day,school_holiday", school)
    return sales


def _daily(rng: np.random.Generator, level: float, day: date, *, promoted: bool) -> float:
    weekday = (0.8, 0.85, 0.9, 1.0, 1.3, 1.6, 0.7)[day.weekday()]
    season = 1 + 0.15 * np.sin(2 * np.pi * day.timetuple().tm_yday / 365)
    lift = (PROMOTION_LIFT if promoted else 1.0) * (SCHOOL_IS_OUT_LIFT if school_is_out(day) else 1.0)
    noise = rng.normal(1.0, 0.6 if level < 100 else 0.08)
    return round(float(level * weekday * season * lift * noise), 2)


def is_promoted(shop: str, day: date) -> bool:
    """Whether a shop has an offer: about one in six spells of five days, other ones in each shop."""
    spell = (day - FIRST_DAY).days // 5
    return bool(np.random.default_rng([spell, *shop.encode()]).random() < 1 / 6)


def school_is_out(day: date) -> bool:
    """Whether schools are closed: two weeks that begin elsewhere each year, as moving holidays do."""
    begin = date(day.year, 3, 1) + timedelta(days=(day.year * 11) % 40)
    return begin <= day < begin + timedelta(days=14)


def _dated(day: date) -> str:
    return day.strftime("%d/%m/%Y")


def _write(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
