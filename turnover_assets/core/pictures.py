"""Pictures for people: small PNGs of tables, made without a display.

What belongs here: one function a picture, data in, PNG bytes out. What does not: where they are shown.
Colours are Okabe and Ito's, which colour-blind readers can tell apart. Pictures of pages are SVG whose lines
and letters have the colour of the text around them, so that they can be read on light and on dark.
"""

import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from PIL import Image

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
LARGEST = 8
SHADES = 256  # colours of a file: with a palette it has a third of the bytes and looks the same
DOTS_PER_INCH = 90
LONGEST_LABEL = 18
_INK = "#010203"  # stands for the colour of the text around an SVG
# Letters stay letters, and text is never read as a formula.
_INKED: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "turnover",
    "text.parse_math": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], _INK),
}
FEWEST_BARS = 5  # room is made for so many, so that a single one is not a wall of colour


def _figure(title: str, width: float = 7.2, height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    canvas, packed = FigureCanvasAgg(figure), io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    canvas.draw()  # type: ignore[no-untyped-call]  # once, where savefig would draw twice
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    pixels.convert("RGB").quantize(SHADES, Image.Quantize.FASTOCTREE).save(packed, "png", optimize=True)
    return packed.getvalue()


def _legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """A legend beside the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [_shortened(label) for label in labels],
        title=title,
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        frameon=False,
    )


def _shortened(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> BarContainer:
    """Horizontal bars of shares from the top downwards."""
    bars = axes.barh([name.replace("_", " ") for name in names], values, color=colours)
    axes.set_ylim(max(len(names), FEWEST_BARS) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return bars


def _amounts(axes: Axes) -> None:
    """Label the vertical axis with short amounts: 1.2M, 350k."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)


def _largest(table: pd.DataFrame, level: str, target: str) -> list[object]:
    totals = table.groupby(level)[target].sum().sort_values(ascending=False)
    return list(totals.index[:LARGEST])


def history(table: pd.DataFrame, time: str, level: str, target: str) -> bytes:
    """The target by period, a line for each of the largest members of a level."""
    figure, axes = _figure(f"{target.capitalize()} by {level} and {time}, as reported")
    for member, colour in zip(_largest(table, level, target), COLOURS, strict=False):
        own = table[table[level] == member]
        axes.plot(own[time], own[target], color=colour, linewidth=1.2, label=str(member))
    _amounts(axes)
    _legend(figure, axes, level)
    return _png(figure)


def forecast(
    past: pd.DataFrame, ahead: pd.DataFrame, time: str, target: str, last_year: pd.DataFrame
) -> bytes:
    """Total history, the forecast, and the same periods of last year.

    Args:
        past: Columns time and target: totals by period, the recent part.
        ahead: Columns time and `forecast`: totals by period ahead.
        time: Name of the time column.
        target: Name of the target column.
        last_year: Columns time and target, already moved to the periods ahead.
    """
    figure, axes = _figure(f"Total {target}: history and forecast")
    axes.plot(past[time], past[target], color=COLOURS[0], linewidth=1.4, label="reported")
    joined = pd.concat(
        [past.tail(1).rename(columns={target: "forecast"})[[time, "forecast"]], ahead[[time, "forecast"]]]
    )
    axes.plot(
        joined[time],
        joined["forecast"],
        color=COLOURS[1],
        linewidth=2,
        marker="o",
        markersize=3,
        label="forecast",
    )
    if len(last_year):
        axes.plot(
            last_year[time],
            last_year[target],
            color="0.55",
            linewidth=1,
            linestyle="--",
            label="last year",
        )
    _amounts(axes)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend(figure, axes)
    return _png(figure)


def before_and_after(table: pd.DataFrame, time: str, target: str) -> bytes:
    """Reported and adjusted totals of what each adjustment concerns, one below the other.

    Args:
        table: Columns `selector`, time, `reported`, `adjusted`.
        time: Name of the time column.
        target: Name of the target column.
    """
    selectors = list(table["selector"].unique())
    figure = Figure(figsize=(7.2, 0.6 + 1.5 * len(selectors)), layout="constrained")
    for axes, selector in zip(figure.subplots(len(selectors), squeeze=False)[:, 0], selectors, strict=True):
        own = table[table["selector"] == selector]
        axes.plot(own[time], own["reported"], color=COLOURS[1], linewidth=1.2, label=f"{target} reported")
        axes.plot(own[time], own["adjusted"], color=COLOURS[0], linewidth=1.2, label=f"{target} adjusted")
        axes.set_title(selector, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        _amounts(axes)
    _legend(figure, axes)
    return _png(figure)


def importance(shares: pd.Series, count: int = 15) -> bytes:
    """The most important features, as shares of the whole."""
    top = shares.head(count)
    figure, axes = _figure("What the model looks at", height=3.6)
    _bars(axes, list(top.index), top.tolist(), [COLOURS[0]] * len(top))
    return _png(figure)


def scores(table: pd.DataFrame) -> bytes:
    """WAPE of each candidate in the backtest, the chosen one marked."""
    ordered = table.sort_values("wape")
    figure, axes = _figure("WAPE in the backtest (lower is better)", height=2.4)
    colours = [COLOURS[1] if chosen else "0.7" for chosen in ordered["chosen"]]
    values = ordered["wape"].fillna(0.0).tolist()
    bars = _bars(axes, ordered["model"].tolist(), values, colours)
    labels = [f"{value:.1%}" if value == value else "not known" for value in ordered["wape"].tolist()]
    axes.bar_label(bars, labels=labels, fontsize=8, padding=3)
    axes.set_xlim(right=max(0.05, *values) * 1.15)
    return _png(figure)


def profile(table: pd.DataFrame, level: str) -> bytes:
    """Seasonal profile of the members of a level: index by week of the year, peaks marked."""
    members: Sequence[object] = list(table[level].unique())[:LARGEST]
    figure, axes = _figure(f"Season by {level} (1 is an average week; dots are peak weeks)")
    for member, colour in zip(members, COLOURS, strict=False):
        own = table[table[level] == member]
        axes.plot(own["week_of_year"], own["index"], color=colour, linewidth=1.2, label=str(member))
        peaks = own[own["peak"]]
        axes.scatter(peaks["week_of_year"], peaks["index"], color=colour, s=18, zorder=3)
    axes.axhline(1.0, color="0.6", linewidth=0.6)
    axes.set_xlabel("week of the year", fontsize=8)
    axes.set_xticks(np.arange(1, 53, 4))
    _legend(figure, axes, level)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    return _png(figure)


def monthly(table: pd.DataFrame, level: str, target: str) -> bytes:
    """The target by calendar year, a group of bars for each of the largest members of a level."""
    years = table.drop_duplicates(["year", level])[["year", level, f"{target}_year"]]
    members = _largest(table, level, target)
    figure, axes = _figure(f"{target.capitalize()} by {level} and calendar year, as reported")
    width = 0.8 / max(1, len(members))
    for i, (member, colour) in enumerate(zip(members, COLOURS, strict=False)):
        own = years[years[level] == member]
        axes.bar(
            own["year"] + (i - (len(members) - 1) / 2) * width,
            own[f"{target}_year"],
            width * 0.92,
            color=colour,
            label=str(member),
        )
    axes.set_xticks(sorted(years["year"].unique()))
    _amounts(axes)
    _legend(figure, axes, level)
    return _png(figure)


def _svg(figure: Figure) -> str:
    """The figure as an SVG element to stand inside a page; see _INKED."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _short(value: float) -> str:
    """A short amount: 1.2M, 350k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


@rc_context(_INKED)
def totals(table: pd.DataFrame) -> str:
    """Reported and adjusted totals by period, as SVG: columns `period`, `sum`, `sum_adjusted`."""
    figure, axes = _figure("", height=2.6)
    _both(axes, table, "sum", "sum_adjusted")
    _legend(figure, axes)
    return _svg(figure)


def _both(axes: Axes, table: pd.DataFrame, reported: str, adjusted: str) -> None:
    axes.plot(table["period"], table[adjusted], color=COLOURS[0], linewidth=2.2, label="adjusted")
    axes.plot(table["period"], table[reported], color=COLOURS[1], linewidth=1, label="reported")
    _amounts(axes)


@rc_context(_INKED)
def coverage(table: pd.DataFrame) -> str:
    """Series that reported by period, of those expected, as SVG: `period`, `rows`, `expected`."""
    figure, axes = _figure("", height=2.2)
    axes.fill_between(table["period"], table["expected"], color=COLOURS[1], alpha=0.7, label="missing")
    axes.fill_between(table["period"], table["rows"], color=COLOURS[5], label="reported")
    _amounts(axes)
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def distribution(table: pd.DataFrame, scale: float) -> str:
    """How often each amount occurs, as SVG; it shows negative amounts, and single ones far out.

    Args:
        table: `low` (the lower edge of a bin, in asinh(amount / scale)), `width`, `reported`, `adjusted`
            (rows in the bin).
        scale: The amount up to which the axis is about even; beyond it, it is logarithmic.
    """
    figure, axes = _figure("", height=2.6)
    edges = [*table["low"], table["low"].iloc[-1] + table["width"].iloc[-1]]
    axes.stairs(table["reported"], edges, fill=True, color=COLOURS[5], linewidth=0, label="reported")
    axes.stairs(table["adjusted"], edges, color=_INK, linewidth=1.2, label="adjusted")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    _amounts(axes)
    ticks = _ticks(scale * np.sinh(edges[0]), scale * np.sinh(edges[-1]), scale)
    axes.set_xticks(np.arcsinh(np.array(ticks) / scale), [_short(tick) for tick in ticks])
    axes.set_ylabel("rows", fontsize=8)
    _legend(figure, axes)
    return _svg(figure)


def _ticks(least: float, most: float, scale: float) -> list[float]:
    """Zero and powers of ten from about the scale outwards, inside the bounds."""
    powers = 10.0 ** np.arange(np.ceil(np.log10(scale)), 16)
    ticks = [*(-powers[::-1]), 0.0, *powers]
    return [tick for tick in ticks if least <= tick <= most]


@rc_context(_INKED)
def findings(found: Sequence[tuple[pd.DataFrame, date, date | None]]) -> list[str]:
    """Reported and adjusted values of a member, the time of a finding shaded, as an SVG of each finding.

    Args:
        found: Of each finding `period`, `reported`, `adjusted`, by period; its first period; and its last
            one, None where it goes on.
    """
    if not found:
        return []
    figure, axes = _figure("", height=2.2)  # one for all, since most of the time goes into making it
    figure.set_layout_engine(None)  # looking for the margins takes longer than drawing, and there are many
    figure.subplots_adjust(left=0.075, right=0.86, bottom=0.12, top=0.96)
    _both(axes, found[0][0], "reported", "adjusted")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.04), fontsize=8, frameon=False)
    margin = pd.Timedelta(days=3)  # so that a single period can be seen
    pictures = []
    for table, since, until in found:
        for line, column in zip(axes.lines, ("adjusted", "reported"), strict=True):
            line.set_data(table["period"], table[column])
        last = table["period"].iloc[-1] if until is None else pd.Timestamp(until)
        bounds: Any = (pd.Timestamp(since) - margin, last + margin)
        shade = axes.axvspan(*bounds, color=COLOURS[4], alpha=0.3, linewidth=0)
        axes.relim()
        axes.autoscale_view()
        pictures.append(_svg(figure))
        shade.remove()
    return pictures


def gaps(alive: np.ndarray, reported: np.ndarray) -> bytes:
    """A PNG with a pixel for each group of series and period: reported, missing, or not alive (clear).

    Args:
        alive: Series alive, groups by periods.
        reported: Those of them that reported, of the same shape.
    """
    missing = np.where(alive > 0, 1 - reported / np.maximum(alive, 1), 0.0)[..., None]
    there, lacking = (
        np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in (COLOURS[5], COLOURS[1])
    )
    weight = np.where(missing > 0, 0.4 + 0.6 * missing, 0.0)  # so that one missing of many can be seen
    colours = there * (1 - weight) + lacking * weight
    opaque = np.where(alive > 0, 255, 0)[..., None]
    packed = io.BytesIO()
    pixels = np.concatenate([colours, opaque], axis=2).astype(np.uint8)
    Image.fromarray(pixels, "RGBA").save(packed, "png", optimize=True)
    return packed.getvalue()
