"""Pictures: every one is a small PNG, whatever it is given, and tells its members apart."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from turnover_assets.core import pictures

MOST_BYTES = 50_000  # every value of an event's metadata is stored three times
WEEKS = pd.date_range("2015-01-03", periods=130, freq="W-SAT")


def season(member: int, periods: int) -> np.ndarray:
    return 1.3 + np.sin(np.arange(periods) / 52 * 2 * np.pi + member)


def history_table(members: int, shift: float = 0.0) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "week": WEEKS,
                "department": f"department of a long name {i}",
                "turnover": 1e6 / (i + 1) * season(i, len(WEEKS)) - shift,
            }
        )
        for i in range(members)
    ]
    return pd.concat(parts, ignore_index=True)


def draw_history(members: int, shift: float) -> bytes:
    return pictures.history(history_table(members, shift), "week", "department", "turnover")


def draw_monthly(members: int, shift: float) -> bytes:
    table = history_table(members, shift)
    table["year"], table["month"] = table["week"].dt.year, table["week"].dt.month
    table = table.groupby(["year", "month", "department"], as_index=False)["turnover"].sum()
    table["turnover_year"] = table.groupby(["year", "department"])["turnover"].transform("sum")
    return pictures.monthly(table, "department", "turnover")


def draw_profile(members: int, shift: float) -> bytes:
    parts = [
        pd.DataFrame({"department": i, "week_of_year": np.arange(1, 53), "index": season(i, 52) - shift})
        for i in range(members)
    ]
    table = pd.concat(parts, ignore_index=True)
    return pictures.profile(table.assign(peak=table["index"] > 2.2), "department")


def draw_forecast(members: int, shift: float) -> bytes:
    past = history_table(members, shift).groupby("week", as_index=False)["turnover"].sum().tail(60)
    weeks = WEEKS[-1] + pd.to_timedelta(7 * np.arange(1, 9), "D")
    ahead = pd.DataFrame({"week": weeks, "forecast": 1e6 * season(0, 8) - shift})
    last_year = pd.DataFrame({"week": weeks, "turnover": 9e5 * season(0, 8)})
    return pictures.forecast(
        past, ahead, "week", "turnover", last_year if members > 1 else last_year.iloc[:0]
    )


def draw_importance(members: int, shift: float) -> bytes:
    shares = np.linspace(2.0, 1.0, 3 * members)
    return pictures.importance(
        pd.Series(shares / shares.sum(), [f"recent_shape_{i}" for i in range(3 * members)])
    )


def draw_scores(members: int, shift: float) -> bytes:
    names = [f"candidate_of_a_long_name_{i}" for i in range(members)]
    wape = np.linspace(0.2, 1.4, members)
    return pictures.scores(pd.DataFrame({"model": names, "wape": wape, "chosen": wape == wape[0]}))


DRAWN = (draw_history, draw_monthly, draw_profile, draw_forecast, draw_importance, draw_scores)
every_picture = pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@every_picture
@pytest.mark.parametrize(
    ("members", "shift"), [(1, 0.0), (12, 0.0), (4, 1.2e6)], ids=["one", "twelve", "negative values"]
)
def test_a_picture_is_a_small_png_that_is_not_empty(
    draw: Callable[[int, float], bytes], members: int, shift: float
) -> None:
    content = draw(members, shift)

    image = opened(content)
    assert image.format == "PNG"
    assert len(content) < MOST_BYTES
    assert image.width >= 2 * image.height >= 400
    assert np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).shape[0] > 10


@every_picture
def test_the_same_table_gives_the_same_bytes(draw: Callable[[int, float], bytes]) -> None:
    assert draw(3, 0.0) == draw(3, 0.0)


@pytest.mark.parametrize("draw", [draw_history, draw_monthly, draw_profile], ids=lambda draw: draw.__name__)
def test_the_eight_members_keep_colours_that_can_be_told_apart(draw: Callable[[int, float], bytes]) -> None:
    pixels = np.asarray(opened(draw(12, 0.0)).convert("RGB"), dtype=int).reshape(-1, 3)

    wanted = 255 * np.array([to_rgb(colour) for colour in pictures.COLOURS])
    farthest = [np.abs(pixels - colour).max(axis=1).min() for colour in wanted]
    assert max(farthest) <= 12


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (950, "950"), (350_000, "350k"), (1_200_000, "1.2M"), (-2_500_000, "-2.5M"), (3e9, "3G")],
)
def test_amounts_are_short(value: float, expected: str) -> None:
    _, axes = pictures._figure("title")
    pictures._amounts(axes)

    assert axes.yaxis.get_major_formatter()(value, 0) == expected


def test_scores_that_are_not_known_are_drawn_all_the_same() -> None:
    table = pd.DataFrame({"model": ["a", "b"], "wape": [np.nan, np.nan], "chosen": [True, False]})

    assert opened(pictures.scores(table)).format == "PNG"


def test_the_table_is_not_changed() -> None:
    table = history_table(9)
    before = table.copy(deep=True)

    pictures.history(table, "week", "department", "turnover")

    pd.testing.assert_frame_equal(table, before)


# SVG for pages -----------------------------------------------------------------------------------


def a_history(periods: int = 60) -> pd.DataFrame:
    values = 1e5 * season(0, periods)
    return pd.DataFrame({"period": WEEKS[:periods], "reported": values * 2, "adjusted": values})


def svgs() -> dict[str, str]:
    history = a_history()
    totals = history.rename(columns={"reported": "sum", "adjusted": "sum_adjusted"})
    counts = history.assign(rows=5, expected=6)
    bins = pd.DataFrame({"low": [-1.0, 0.0, 1.0], "width": 1.0, "reported": [1, 0, 9], "adjusted": [0, 1, 9]})
    return {
        "totals": pictures.totals(totals),
        "coverage": pictures.coverage(counts),
        "distribution": pictures.distribution(bins, 100.0),
        "finding": pictures.findings([(history, WEEKS[5].date(), WEEKS[9].date())])[0],
    }


def test_pictures_of_pages_take_their_colour_from_the_text_around_them() -> None:
    for name, svg in svgs().items():
        assert svg.startswith("<svg"), name
        assert "currentColor" in svg, name
        assert pictures._INK not in svg, name
        assert "<text" in svg, name
        assert len(svg) < 40_000, name


def test_pictures_of_pages_are_the_same_for_the_same_table() -> None:
    assert svgs() == svgs()


def test_drawing_for_pages_leaves_other_pictures_as_they_are() -> None:
    before = draw_scores(3, 0.0)
    svgs()

    assert draw_scores(3, 0.0) == before


def test_a_finding_that_goes_on_is_shaded_to_the_end() -> None:
    history, since = a_history(), WEEKS[5].date()

    ongoing, to_the_end, ended = pictures.findings(
        [(history, since, until) for until in (None, WEEKS[59].date(), WEEKS[20].date())]
    )

    assert ongoing == to_the_end
    assert ongoing != ended


def test_the_picture_of_a_finding_does_not_depend_on_those_before_it() -> None:
    short = a_history(30).assign(adjusted=lambda table: -1e6 * table["adjusted"])
    parts = [(a_history(), WEEKS[5].date(), None), (short, WEEKS[2].date(), WEEKS[2].date())]

    assert pictures.findings(parts) == [pictures.findings([part])[0] for part in parts]
    assert pictures.findings([]) == []


def test_the_map_of_gaps_tells_reported_missing_and_not_alive_apart() -> None:
    alive = np.array([[4.0, 4.0, 4.0, 0.0]])
    image = opened(pictures.gaps(alive, np.array([[4.0, 3.0, 0.0, 0.0]])))

    pixels = np.asarray(image, dtype=int)[0]
    reported, one_missing, missing, not_alive = pixels
    assert image.size == (4, 1)
    assert reported.tolist() == [0x56, 0xB4, 0xE9, 255]
    assert missing.tolist() == [0xD5, 0x5E, 0x00, 255]
    assert reported[0] + 30 < one_missing[0] < missing[0]
    assert not_alive[3] == 0
