"""The picture of monitoring, made as those of core/pictures.py are.

What belongs here: data in, PNG bytes out. What does not: the figures it shows.
"""

import pandas as pd
from matplotlib.ticker import PercentFormatter

from turnover_assets.core.pictures import COLOURS, _figure, _legend, _png

LINES = {
    "wape": ("published", COLOURS[0], "-"),
    "wape_seasonal_naive": ("seasonal naive", "0.55", "-"),
    "wape_promised": ("promised", COLOURS[1], "--"),
}


def accuracy_by_cutoff(table: pd.DataFrame) -> bytes:
    """WAPE of published forecasts by cutoff, beside seasonal naive and the promise, as PNG.

    Args:
        table: A row for each cutoff, oldest first: `cutoff` (dates), `wape`, `wape_seasonal_naive`,
            `wape_promised`, over the horizons that have outcomes.
    """
    figure, axes = _figure("WAPE of published forecasts by cutoff (lower is better)")
    for name, (label, colour, style) in LINES.items():
        axes.plot(
            table["cutoff"],
            table[name].astype(float),
            color=colour,
            linestyle=style,
            linewidth=1.4,
            marker="o",
            markersize=3,
            label=label,
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=0)
    figure.autofmt_xdate()
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    _legend(figure, axes)
    return _png(figure)
