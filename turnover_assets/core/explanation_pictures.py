"""Pictures of what the model does on the whole, made as those of pictures.py are.

What belongs here: importance and partial plots. What does not: the figures they show.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from turnover_assets.core.pictures import COLOURS, _png

MOST_BARS = 12
COLUMNS = 3  # partial plots beside one another
LINE = 30  # characters


def importance_picture(groups: pd.Series, features: pd.Series, words: Mapping[str, str]) -> bytes:
    """What moves the forecasts, by group, and the features that the model relies on most.

    Args:
        groups: Share of each group, largest first (explanations.effect_shares).
        features: Share of each feature, largest first (Candidate.importance); may be empty.
        words: What features are called (feature_words); others are shown by their names.
    """
    panels = [(title, shares) for title, shares in _titled(groups, features) if len(shares)]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    if not panels:
        return _nothing(figure)
    for axes, (title, shares) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        top = shares.head(MOST_BARS)
        axes.barh([_told(name, words) for name in top.index], top.to_numpy(), color=COLOURS[0])
        axes.set_ylim(max(len(top), 5) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _plain(axes, title)
    return _png(figure)


def partial_plots(table: pd.DataFrame, words: Mapping[str, str]) -> bytes:
    """The mean forecast over each feature, one small plot a feature.

    Args:
        table: What partial_dependence.partial_dependence gives; all plots share the vertical axis.
        words: What features are called (feature_words); others are shown by their names.
    """
    features: Sequence[str] = list(dict.fromkeys(table["feature"]))
    if not features:
        return _nothing(Figure(figsize=(7.2, 3.4)))
    lines = max(1, -(-len(features) // COLUMNS))
    figure = Figure(figsize=(7.2, 0.5 + 1.7 * max(2, lines)), layout="constrained")
    figure.suptitle(
        "Mean forecast as one feature changes (1 is an average period)", x=0.01, ha="left", fontsize=11
    )
    grid = np.ravel(figure.subplots(lines, COLUMNS, sharey=True, squeeze=False))
    for axes, feature in zip(grid, features, strict=False):
        own = table[table["feature"] == feature]
        axes.plot(own["value"], own["forecast"], color=COLOURS[0], linewidth=1.5, marker="o", markersize=2.5)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        _plain(axes, _told(feature, words))
    for axes in grid[len(features) :]:
        axes.set_axis_off()
    return _png(figure)


def _nothing(figure: Figure) -> bytes:
    figure.text(0.02, 0.9, "Nothing to show: this candidate ranks no features.", fontsize=10)
    return _png(figure)


def _titled(groups: pd.Series, features: pd.Series) -> list[tuple[str, pd.Series]]:
    return [
        ("What sets forecasts apart from last year", groups[groups > 0]),
        ("What the model relies on", features[features > 0]),
    ]


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _told(name: object, words: Mapping[str, str]) -> str:
    """A feature or group in words, in lines that have room beside or above a plot."""
    return fill(words.get(str(name), str(name).replace("_", " ")), LINE)
