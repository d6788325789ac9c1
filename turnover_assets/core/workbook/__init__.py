"""The workbook: one member's forecasts as an Excel file, for people who live in Excel.

What belongs here: frames in, the bytes of a file out. What does not: reading the published tables
(storage/workbook_source.py), and where files are kept or sent.

Invariants:
    - the same content gives the same bytes;
    - a text from a file or a ledger is written as text, whatever it begins with, and never as a formula;
    - every formula is written with the value that it has, so that a viewer that calculates nothing shows it.
"""

from turnover_assets.core.workbook.book import workbook
from turnover_assets.core.workbook.content import Content, Origin

__all__ = ["Content", "Origin", "workbook"]
