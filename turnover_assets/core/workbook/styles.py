"""How cells look: one place for fonts, colours and number formats.

What belongs here: formats by name. What does not: which cell has which.
"""

from typing import Any

from xlsxwriter.format import Format
from xlsxwriter.workbook import Workbook

INK, PALE_INK = "#1F3A4D", "#5B7083"
BLUE, ORANGE, GREY, BAND = "#1F6FA8", "#C55A11", "#8A9BA8", "#BBD7EA"  # told apart by the colour-blind too
UP = {"bg_color": "#DCEBF7", "font_color": "#12507B"}
DOWN = {"bg_color": "#FBE3D2", "font_color": "#8A3A00"}
GROWTH = "+0.0%;-0.0%;0.0%"
MIDDLE = {"valign": "vcenter"}
TOTAL = {"bold": True, "top": 1, "top_color": INK, "font_color": INK}
BIG = {"bold": True, "font_size": 16, "font_color": INK, "align": "left"}
# Formats without decimals of their own; those of AMOUNTS and SUMS get theirs by how large amounts are.
NAMED: dict[str, dict[str, Any]] = {
    "title": {"bold": True, "font_size": 18, "font_color": INK},
    "subtitle": {"font_color": PALE_INK},
    "heading": {"bold": True, "font_size": 13, "font_color": INK, **MIDDLE},
    "header": {
        "bold": True,
        "font_color": "#FFFFFF",
        "bg_color": INK,
        "text_wrap": True,
        "align": "center",
        "valign": "vcenter",
        "border": 1,
        "border_color": "#FFFFFF",
    },
    "line": {"font_color": INK},
    "label": {"font_color": PALE_INK, **MIDDLE},
    "text": MIDDLE,
    "wrapped": {"text_wrap": True, "indent": 1, **MIDDLE},
    "remark": {"font_color": PALE_INK, "indent": 1, **MIDDLE},
    "date": {"num_format": "yyyy-mm-dd", "align": "left", **MIDDLE},
    "whole": {"num_format": "#,##0", **MIDDLE},
    "key": {"num_format": "0", "align": "left", **MIDDLE},
    "growth": {"num_format": GROWTH, **MIDDLE},
    "share": {"num_format": "0.0%", **MIDDLE},
    "figure": {"num_format": "0.00", **MIDDLE},
    "share_input": {"num_format": "0%", "bg_color": "#FFF8DC", "border": 1, "border_color": GREY},
    "big_growth": {"num_format": GROWTH, **BIG},
    "total_text": TOTAL,
    "total_key": TOTAL,
    "total_date": TOTAL,
    "total_growth": {"num_format": GROWTH, **TOTAL},
}
AMOUNTS: dict[str, dict[str, Any]] = {
    "amount": MIDDLE,
    "difference": MIDDLE,
    "amount_input": {"bg_color": "#FFF8DC", "border": 1, "border_color": GREY},
}
SUMS: dict[str, dict[str, Any]] = {
    "sum": MIDDLE,
    "sum_difference": MIDDLE,
    "big_sum": BIG,
    "big_difference": BIG,
    "total_amount": TOTAL,
    "total_difference": TOTAL,
    "total_sum": TOTAL,
    "total_sum_difference": TOTAL,
}


def decimals_for(usual: float) -> int:
    """Digits after the point of amounts of a usual size.

    Example:
        >>> [decimals_for(usual) for usual in (2.5, 80.0, 25_000.0)]
        [2, 1, 0]
    """
    return 0 if usual >= 1000 else 1 if usual >= 10 else 2


class Styles:
    """The formats of a workbook, made when they are first asked for.

    Args:
        book: The workbook.
        amount: Usual size of an amount of a series.
        sum_: Usual size of a sum.
    """

    def __init__(self, book: Workbook, amount: float, sum_: float) -> None:
        self._book = book
        self._named = NAMED | _numbers(AMOUNTS, decimals_for(amount)) | _numbers(SUMS, decimals_for(sum_))
        self._made: dict[tuple[str, bool], Format] = {}

    def __call__(self, name: str, *, quoted: bool = False) -> Format:
        """A format by its name.

        Args:
            name: Its name.
            quoted: Mark the cell's content as text, so that it stays text where a person edits it.
        """
        key = (name, quoted)
        if key not in self._made:
            made = self._book.add_format(self._named[name])
            if quoted:
                made.set_quote_prefix()
            self._made[key] = made
        return self._made[key]

    def total(self, style: str) -> str:
        """Name of the style of a total below cells of a style."""
        name = f"total_{style}"
        return name if name in self._named else "total_text"

    def look(self, looks: dict[str, Any]) -> Format:
        """A format of its own, for a condition."""
        return self._book.add_format(looks)


def _numbers(styles: dict[str, dict[str, Any]], decimals: int) -> dict[str, dict[str, Any]]:
    """Styles with the format of their numbers; differences have a sign."""
    amount = "#,##0" + (f".{'0' * decimals}" if decimals else "")
    signed = f"+{amount};-{amount};{amount}"
    return {
        name: {"num_format": signed if "difference" in name else amount, **style}
        for name, style in styles.items()
    }
