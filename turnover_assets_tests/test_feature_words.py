"""Features in plain words: every one has its own, in every kind of panel."""

from collections import Counter
from pathlib import Path

import pytest

from turnover_assets.core import feature_words as module
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.features import feature_names, features
from turnover_assets.panel import PanelSpec, default_panel, load_panel
from turnover_assets_tests.factories import daily, make_panel, walmart_like
from turnover_assets_tests.other_retailers import PANELS

ALL = {
    "default": default_panel(),
    "walmart-like": walmart_like(),
    "daily": daily(),
    "smallest": make_panel(),
    "us-stores": load_panel(Path(PANELS / "us-stores.toml")),
    "daily-shops": load_panel(Path(PANELS / "daily-shops.toml")),
}


@pytest.mark.parametrize("panel", ALL.values(), ids=ALL.keys())
def test_every_feature_has_words_and_no_two_the_same(
    panel: PanelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = feature_words(panel)
    monkeypatch.setattr(module, "_spaced", lambda name: f"[{name}]")
    fallen_back = [name for name, told in feature_words(panel).items() if told == f"[{name}]"]

    assert list(words) == feature_names(panel)
    assert fallen_back == []
    assert [told for told, count in Counter(words.values()).items() if count > 1] == []
    assert [told for told in words.values() if "_" in told or not told.strip()] == []


@pytest.mark.parametrize("panel", ALL.values(), ids=ALL.keys())
def test_the_numbers_in_words_are_those_of_the_name(panel: PanelSpec) -> None:
    words, every = feature_words(panel), panel.frequency.every

    for feature in features(panel):
        kind, _, length = feature.name.rpartition("_")
        if kind.split("_")[0] in ("mean", "pooled") or kind.endswith("growth"):
            assert f"newest {length} {every}s" in words[feature.name]


@pytest.mark.parametrize(
    ("panel", "name", "told"),
    [
        ("default", "lag_0", "newest week"),
        ("default", "lag_1", "1 week before the newest"),
        ("default", "year_ago_same", "same week last year"),
        ("default", "year_ago_minus_2", "2 weeks before the same week last year"),
        ("default", "around_2_narrow", "mean within 1 week of the same week 2 years ago"),
        ("default", "pooled_department_same_4", "newest 4 weeks times same week of all years, department"),
        ("default", "store_code", "which store"),
        ("default", "days_to_easter_monday", "days to Easter Monday"),
        ("default", "attribute_latitude", "latitude (attribute)"),
        ("daily-shops", "year_ago_plus_1", "1 week after the same day last year"),
        ("daily-shops", "cycle_2", "same weekday, 2 weeks before the newest known"),
        ("daily-shops", "holidays", "holidays on the day"),
        ("us-stores", "known_markdown_1", "markdown 1 (known ahead)"),
        ("us-stores", "store_type_shape_1", "last year's season, store type"),
    ],
)
def test_words_say_what_a_feature_is(panel: str, name: str, told: str) -> None:
    assert feature_words(ALL[panel])[name] == told
