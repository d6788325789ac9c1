"""Parts of the web page by themselves: scales, places on the map, classes of change, locales, lists."""

import re
from datetime import date, timedelta
from itertools import pairwise
from math import cos, radians
from types import SimpleNamespace
from typing import Any

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.serving.dashboard import places
from turnover_assets.serving.dashboard.accuracy_words import Accuracy
from turnover_assets.serving.dashboard.charts import Chart, Line, bars, nice_scale, spark
from turnover_assets.serving.dashboard.formats import OFFERED, Formats, chosen_locale, locale_choices
from turnover_assets.serving.dashboard.lists import Row, columns, cut
from turnover_assets.serving.dashboard.pages.series import group_title
from turnover_assets.serving.dashboard.places import change_class
from turnover_assets.serving.dashboard.shown import Member
from turnover_assets_tests.factories import default_panel

AMOUNTS = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-9)
ENGLISH = Formats(Locale.parse("en"), "", "week", 0)


@given(st.lists(AMOUNTS, max_size=20))
def test_a_scale_holds_every_value_and_zero_and_its_ticks_are_even(values: list[float]) -> None:
    low, high, ticks = nice_scale(values)

    nothing = 1e-8 * (high - low)
    assert low <= min([0.0, *values]) + nothing
    assert high >= max([0.0, *values]) - nothing
    steps = [b - a for a, b in pairwise(ticks)]
    assert steps
    assert max(steps) == pytest.approx(min(steps))
    assert len(ticks) <= 10


@given(st.lists(st.none() | AMOUNTS, min_size=1, max_size=40), st.integers(0, 40))
def test_drawings_stay_within_their_square_whatever_is_missing(
    values: list[float | None], begin: int
) -> None:
    periods = [date(2030, 1, 5) + timedelta(weeks=k) for k in range(len(values))]
    chart = Chart("c", "t", "s", periods, [Line("reported", "R", values)], begin=min(begin, len(values) - 1))

    drawn = chart.drawing(ENGLISH)

    numbers = [
        float(number) for _, path in drawn.lines for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)
    ]
    assert all(-0.1 <= number <= 1000.1 for number in numbers)
    assert all(0 <= tick.share <= 100 for tick in (*drawn.y_ticks, *drawn.x_ticks))


@given(st.lists(st.none() | AMOUNTS, max_size=30), st.integers(0, 30))
def test_sparklines_are_drawn_of_anything(values: list[float | None], ahead: int) -> None:
    drawn = spark(values, ahead)

    assert "nan" not in drawn.known + drawn.ahead


def test_bars_share_a_scale_that_holds_zero() -> None:
    found = bars([100.0, -50.0, 0.0])

    assert [(bar.begin, bar.width, bar.negative) for bar in found] == [
        (33.33, 66.67, False),
        (0.0, 33.33, True),
        (33.33, 0.0, False),
    ]


@pytest.mark.parametrize(
    ("change", "kind"),
    [(-0.15, "down-2"), (-0.051, "down-2"), (-0.05, "down-1"), (0.0, "same"), (0.05, "up-2"), (0.15, "up-3")],
)
def test_changes_fall_into_classes_by_their_lower_ends(change: float, kind: str) -> None:
    assert change_class(change) == kind


def member(name: str, forecast: float) -> Member:
    return Member("store", name, 1, forecast, forecast, None, None, 100.0, (), 0, None)


class Places:
    """A snapshot whose stores are at places."""

    def __init__(self, spots: dict[str, tuple[float, float]]) -> None:
        self.members = {"store": {name: member(name, 100.0 + k) for k, name in enumerate(spots)}}
        rows = [{"name": name, "longitude": x, "latitude": y} for name, (x, y) in spots.items()]
        self.view = SimpleNamespace(has=lambda _: True, records=lambda _: rows)


def test_the_map_keeps_directions_and_distances_and_names_who_is_far_away() -> None:
    spots = {"1": (0.0, 45.0), "2": (2.0, 45.0), "3": (0.0, 47.0), "4": (1.0, 46.0), "5": (55.0, -21.0)}
    shown: Any = Places(spots)

    found = places.map_of(shown, default_panel())

    assert found is not None
    at = {place.member.name: place for place in found.places}
    assert [m.name for m in found.elsewhere] == ["5"]
    assert at["2"].x > at["1"].x
    assert at["3"].y < at["1"].y  # north is up
    ratio = (at["2"].x - at["1"].x) / (at["1"].y - at["3"].y)
    assert ratio == pytest.approx(cos(radians(46)), rel=0.01)
    assert all(0 <= p.x <= places.WIDTH and 0 <= p.y <= found.height for p in found.places)


def test_there_is_no_map_of_a_single_place() -> None:
    shown: Any = Places({"1": (0.0, 45.0)})

    assert places.map_of(shown, default_panel()) is None


@pytest.mark.parametrize(
    ("bias", "coverage", "verdicts"),
    [(None, None, ("plain", "plain")), (0.01, 0.8, ("good", "good")), (-0.2, 0.5, ("look", "look"))],
)
def test_what_is_not_known_yet_is_neither_good_nor_bad(
    bias: float | None, coverage: float | None, verdicts: tuple[str, str]
) -> None:
    found = Accuracy(bias=bias, coverage_80=coverage)

    assert (found.bias_verdict, found.coverage_verdict) == verdicts


@pytest.mark.parametrize("name", OFFERED)
def test_every_locale_that_is_offered_writes_every_kind_of_value(name: str) -> None:
    formats = Formats(Locale.parse(name), "EUR", "week", 0)

    for value in (0.0, -0.3, 12.5, 549_830.7, 6_229_213.9, -1e9):
        written = formats.money(value)
        assert len(written) <= 22, written
        assert "00000" not in written.replace("\N{NO-BREAK SPACE}", "") or value in (-1e9,)
    assert formats.change(0.1).startswith("+")
    assert formats.change(-0.0001)[0] != "-"
    assert formats.date(date(2030, 12, 31))
    assert name in dict(locale_choices())


@pytest.mark.parametrize(
    ("wanted", "accepted", "found"),
    [
        ("", "", "en"),
        ("", "*", "en"),
        ("", "de-AT,de;q=0.9", "de_AT"),
        ("", "xx, fr;q=0.5, it;q=0.7", "it"),
        ("", "en;q=zero, es", "es"),
        ("pt_BR", "de", "pt_BR"),
        ("../etc", "de", "de"),
        ("", "," * 10_000, "en"),
    ],
)
def test_the_locale_is_the_best_that_is_offered(wanted: str, accepted: str, found: str) -> None:
    assert chosen_locale(wanted, accepted) == found


def test_long_lists_are_cut_into_pages_that_miss_nothing() -> None:
    rows = [Row(f"Store {k}", f"/{k}", 1.0, float(k), None, None, None) for k in range(1000)]
    known = columns("week", 8)

    pages = [cut(rows, known, "-forecast", "", number) for number in (1, 2, 3)]

    assert [row.title for page in pages for row in page.rows] == [f"Store {k}" for k in reversed(range(1000))]
    assert (pages[0].pages, pages[0].count, pages[0].is_whole) == (3, 1000, False)
    assert cut(rows, known, "-forecast", "", 99).number == 3
    assert cut(rows, known, "nonsense", "store 99", 1).count == 11  # 99 and 990 to 999


@pytest.mark.parametrize(
    ("group", "beside_last_year", "beside_the_average"),
    [
        ("season", "Last year was unusual for the season", "The season"),
        ("store", "The trend of its store", "Its store"),
        ("recent level", "The last weeks", "The last weeks"),
    ],
)
def test_an_effect_is_called_by_what_the_forecast_is_compared_with(
    group: str, beside_last_year: str, beside_the_average: str
) -> None:
    """As its sentence does: beside an average week, season and store have effects of their own."""
    assert group_title(default_panel(), group, with_year=True) == beside_last_year
    assert group_title(default_panel(), group, with_year=False) == beside_the_average
