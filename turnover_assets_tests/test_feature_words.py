"""Features in words: every feature of every panel has its own."""

import pytest

from turnover_assets.core.feature_words import _other, feature_words
from turnover_assets.core.features import feature_names, features
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests.factories import daily, walmart_like

PANELS = [default_panel(), walmart_like(), daily()]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_every_feature_has_words_of_its_own(panel: PanelSpec) -> None:
    words = feature_words(panel)

    assert list(words) == feature_names(panel)
    assert len(set(words.values())) == len(words)
    assert [text for text in words.values() if "_" in text or not text] == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_only_what_the_panel_names_is_called_by_its_name(panel: PanelSpec) -> None:
    words = feature_words(panel)
    named = [f.name for f in features(panel) if words[f.name] == _other(f.name) and f.name != "month"]

    assert [name for name in named if not name.startswith(("attribute_", "known_", "days_to_"))] == []


def test_words_fit_the_period() -> None:
    assert feature_words(daily())["lag_1"] == "1 day before the newest"
    assert feature_words(walmart_like())["known_is_holiday"] == "is holiday (known ahead)"
