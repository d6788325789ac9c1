"""Numbers and dates as the reader writes them.

What belongs here: choosing a locale, and writing amounts, shares and dates in it. What does not: words, which
are English.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent

from turnover_assets.panel import PanelSpec

DEFAULT = "en"
OFFERED = (
    *("en", "en_GB", "bg", "cs", "da", "de", "de_AT", "de_CH", "el", "es", "et", "fi", "fr", "fr_CH", "hr"),
    *("hu", "it", "it_CH", "ja", "ko", "lt", "lv", "nb", "nl", "pl", "pt", "pt_BR", "ro", "sk", "sl", "sv"),
    *("tr", "uk", "zh"),
)
# Numbers in sentences, from 1 on, have at most so many digits, but not fewer decimals than these.
SENTENCE_DIGITS, LEAST_DECIMALS = 4, 2
NONE = "\N{EN DASH}"
LARGE = 100_000  # amounts from which on they are written short
MANYFOLD = 9.995  # a change beyond which only that it is so large is of interest
SIZES = (100.0, 10.0)  # amounts that are usually smaller are written with one decimal more
LONGEST = 500  # characters of the header that are looked at
# A number as explanations and findings write it, in English: with groups, or with decimals.
ENGLISH = re.compile(r"(?<![\w.,-])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+)(?![\w-]|[.,]\d)")
PER_CENT = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?) ?%")
ISO_DATE = re.compile(r"(?<![\w-])(\d{4})-(\d{2})-(\d{2})(?![\w-])")


def chosen_locale(wanted: str, accepted: str) -> str:
    """The locale of a reader.

    Args:
        wanted: What was chosen; empty where nothing was.
        accepted: The header Accept-Language.

    Example:
        >>> chosen_locale("", "fr-CA,fr;q=0.8,en;q=0.5"), chosen_locale("de_CH", "en"), chosen_locale("x", "")
        ('fr', 'de_CH', 'en')
    """
    if wanted in OFFERED:
        return wanted
    names = [name.replace("-", "_") for name in _by_preference(accepted[:LONGEST])]
    return negotiate_locale(names, OFFERED, sep="_") or DEFAULT


def _by_preference(accepted: str) -> list[str]:
    """The languages of an Accept-Language header, the most wanted first."""
    found = list[tuple[float, str]]()
    for part in accepted.split(","):
        name, _, rest = part.strip().partition(";")
        weight = re.fullmatch(r"\s*q=(\d(?:\.\d+)?)\s*", rest)
        if name and (weight or not rest):
            found.append((-float(weight[1]) if weight else -1.0, name))
    return [name for weight, name in sorted(found, key=lambda pair: pair[0]) if weight]


@lru_cache
def locale_choices() -> tuple[tuple[str, str], ...]:
    """The locales to choose from: name, and how it is called and writes."""
    day, found = date(2030, 12, 31), list[tuple[str, str]]()
    for name in OFFERED:
        locale = Locale.parse(name)
        called = locale.get_display_name() or name
        number, shown_day = format_decimal(1234.5, locale=locale), format_date(day, "short", locale)
        found.append((name, f"{called[:1].upper()}{called[1:]}: {number}, {shown_day}"))
    return tuple(found)


@dataclass(frozen=True)
class Formats:
    """How values are written.

    Attributes:
        locale: The reader's.
        unit: Unit of the target; empty where it has none.
        every: What a period is called.
        decimals: Decimals of amounts.
    """

    locale: Locale
    unit: str
    every: str
    decimals: int

    @classmethod
    def of(cls, panel: PanelSpec, locale: str, usual: float) -> "Formats":
        """The formats of a panel whose forecasts are usually of a size."""
        try:
            parsed = Locale.parse(locale)
        except (ValueError, UnknownLocaleError):
            parsed = Locale.parse(DEFAULT)
        return cls(parsed, panel.series.target.unit, panel.frequency.every, _decimals(usual))

    def sized(self, usual: float) -> "Formats":
        """The same for amounts that are usually of another size."""
        return replace(self, decimals=_decimals(usual))

    @property
    def tag(self) -> str:
        """The locale as browsers name it."""
        return str(self.locale).replace("_", "-")

    @property
    def is_currency(self) -> bool:
        """Whether the unit is the code of a currency that the locale knows."""
        return self.unit in self.locale.currencies

    def number(self, value: float | None, decimals: int = 0) -> str:
        """A number."""
        if value is None:
            return NONE
        pattern = f"#,##0.{'0' * decimals}" if decimals else "#,##0"
        return _minus(format_decimal(value, pattern, self.locale), _is_zero(value, decimals))

    def amount(self, value: float | None) -> str:
        """An amount without its unit, for tables whose head names it."""
        return self.number(value, self.decimals)

    def money(self, value: float | None) -> str:
        """An amount with its unit, short where it is long."""
        if value is None:
            return NONE
        text = self.amount(value) if abs(value) < LARGE else self._compact(float(f"{value:.3g}"), 2)
        return f"{text} {self._symbol()}".strip()

    def short(self, value: float) -> str:
        """An amount in a few letters, for scales."""
        return self._compact(value, 1)

    def _compact(self, value: float, decimals: int) -> str:
        """A number with the locale's word for thousands or millions, where it has one."""
        whole = self.number(value)
        found = format_compact_decimal(value, locale=self.locale, fraction_digits=decimals)
        return whole if len(found) > len(whole) else _minus(found, is_zero=False)

    def _symbol(self) -> str:
        if not self.is_currency:
            return self.unit
        written = format_currency(0, self.unit, "¤", self.locale, currency_digits=False)
        return written.replace("0", "").strip() or self.unit

    def share(self, value: float | None, decimals: int = 1) -> str:
        """A share in per cent."""
        if value is None:
            return NONE
        pattern = self.locale.percent_formats[None].pattern
        pattern = pattern.replace("#,##0", f"#,##0.{'0' * decimals}" if decimals else "#,##0")
        return _minus(format_percent(value, pattern, self.locale), _is_zero(value * 100, decimals))

    def change(self, value: float | None, decimals: int = 1) -> str:
        """A relative change, with its sign."""
        if value is None:
            return NONE
        if value > MANYFOLD:
            return f"> +{self.share(9.99, 0)}"
        text = self.share(value, decimals)
        return f"+{text}" if value > 0 and not _is_zero(value * 100, decimals) else text

    def signed(self, value: float | None) -> str:
        """A difference of amounts, with its sign."""
        if value is None:
            return NONE
        text = self.amount(value)
        return f"+{text}" if value > 0 and not _is_zero(value, self.decimals) else text

    def date(self, day: date | None) -> str:
        """A date."""
        return NONE if day is None else format_date(day, "medium", self.locale)

    def time(self, moment: datetime | None) -> str:
        """A time, in UTC."""
        if moment is None:
            return NONE
        return f"{format_datetime(moment.astimezone(UTC), 'medium', locale=self.locale)} UTC"

    def ago(self, passed: timedelta) -> str:
        """How long ago something was, in English words."""
        return f"{format_timedelta(passed, threshold=1.2, locale=DEFAULT)} ago"

    def range_name(self, width: int) -> str:
        """What the range that is meant to hold a share of outcomes is called."""
        return f"{self.share(width / 100, 0)} range"

    def words(self, text: str) -> str:
        """A sentence that was written in English, with its numbers and dates as the reader writes them.

        Example:
            >>> from turnover_assets.panel import default_panel
            >>> german = Formats.of(default_panel(), "de", 100.0)
            >>> german.words("1,840.5 expected in 2030-06-01, 1.5 above 1,470; store 3")
            '1.840,5 expected in 01.06.2030, 1,5 above 1.470; store 3'
            >>> Formats.of(default_panel(), "en", 100.0).words("12 % above it")
            '12% above it'
        """
        numbers = ENGLISH.sub(self._number_word, PER_CENT.sub(self._share_word, text))
        return ISO_DATE.sub(self._date_word, numbers)

    def _share_word(self, found: re.Match[str]) -> str:
        return self.share(float(found[1]) / 100, len(found[1].partition(".")[2]))

    def _number_word(self, found: re.Match[str]) -> str:
        plain = found[1].replace(",", "")
        value, decimals = float(plain), len(plain.partition(".")[2])
        most = max(LEAST_DECIMALS, SENTENCE_DIGITS - len(str(int(value))))
        return self.number(value, decimals if value < 1 else min(decimals, most))

    def _date_word(self, found: re.Match[str]) -> str:
        try:
            return self.date(date(int(found[1]), int(found[2]), int(found[3])))
        except ValueError:
            return found[0]


def _decimals(usual: float) -> int:
    """Decimals of amounts that are usually of a size; none where the size is not known."""
    return sum(0 < usual < size for size in SIZES)


def _is_zero(value: float, decimals: int) -> bool:
    return round(abs(value), decimals) == 0


def _minus(text: str, is_zero: bool) -> str:
    """A true minus sign, and none before a zero."""
    text = text.replace("-", "\N{MINUS SIGN}")
    return text.replace("\N{MINUS SIGN}", "") if is_zero else text


def usual_size(values: Sequence[float]) -> float:
    """The median of sizes; 0 of none."""
    ordered = sorted(abs(value) for value in values)
    return ordered[len(ordered) // 2] if ordered else 0.0
