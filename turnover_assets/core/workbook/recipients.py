"""Who gets which workbook by e-mail: workbook_recipients.toml, validated.

What belongs here: what the file says. What does not: reading it (storage/workbook_files.py), and sending.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.alerts.channels import ADDRESS
from turnover_assets.errors import RecipientsError
from turnover_assets.panel import PanelSpec

ALL = "all"  # stands for the member of the total, which has no name
Book = tuple[str, str]  # level and member


def parse_recipients(data: Mapping[str, Any], panel: PanelSpec, source: str) -> dict[str, list[Book]]:
    """The workbooks that each address gets.

    Args:
        data: The file as plain data: for each level a table from members to lists of addresses. The total's
            member is `all`.
        panel: The panel.
        source: The file.

    Returns:
        For each address, in order, level and member of its workbooks, in the order of the file.

    Raises:
        RecipientsError: With everything that is wrong in the file.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> parse_recipients({"region": {"65": ["a@example.com"]}}, default_panel(), "recipients")
        {'a@example.com': [('region', '65')]}
    """
    if problems := list(_slips(data, panel)):
        raise RecipientsError(source, problems)
    found: dict[str, list[Book]] = {}
    for level, members in data.items():
        for member, addresses in members.items():
            book = (level, "" if level == TOTAL else member)
            for address in dict.fromkeys(addresses):
                found.setdefault(address, []).append(book)
    return dict(sorted(found.items()))


def _slips(data: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    levels = [*panel.level_names, TOTAL]
    for level, members in data.items():
        if level not in levels:
            yield level, f"is no level; there are {', '.join(levels)}"
        elif not isinstance(members, Mapping):
            yield level, "is no table; write it as [region] with a line for each member below"
        else:
            for member, addresses in members.items():
                yield from _address_slips(level, member, addresses)


def _address_slips(level: str, member: str, addresses: Any) -> Iterator[tuple[str, str]]:
    place = f"{level}.{member}"
    if level == TOTAL and member != ALL:
        yield place, f"is no member of the total; write {ALL} = [...]"
    if not isinstance(addresses, list) or not addresses:
        yield place, 'is no list of addresses; write it as ["name@example.com"]'
        return
    for address in addresses:
        if not isinstance(address, str) or not ADDRESS.fullmatch(address):
            yield place, f"{address!r} is no plain address, such as planning@example.com"
