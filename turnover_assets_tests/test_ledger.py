"""The steward's ledger: what is refused, and that adding to the file loses nothing a person wrote."""

import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnover_assets.core.calendar import index_of
from turnover_assets.core.ledger import Ledger, Veto, _CorrectionFields, parse_ledger
from turnover_assets.errors import HomeError, LedgerError, TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.ledger import NO_LEDGER, add_entry, ledger_version, read_ledger
from turnover_assets_tests.factories import as_nobody, daily, default_panel, walmart_like

TODAY = date(2026, 11, 21)
SATURDAYS = [date(2016, 1, 2), date(2016, 1, 9), date(2016, 1, 16)]


def veto(**changes: Any) -> dict[str, Any]:
    fields = {
        "where": {"store": 12},
        "since": SATURDAYS[0],
        "until": SATURDAYS[1],
        "reason": "the shop was rebuilt",
        "who": "m.rossi",
        "when": TODAY,
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


def adjustment(**changes: Any) -> dict[str, Any]:
    remedy = {} if {"value", "missing"} & changes.keys() else {"factor": 2.0}
    return veto(**{"where": {"department": 127}, **remedy, **changes})


def parsed(panel: PanelSpec | None = None, **data: Any) -> Ledger:
    return parse_ledger(data, panel or default_panel(), "adjustments.toml", TODAY)


def problems(panel: PanelSpec | None = None, **data: Any) -> list[tuple[str, str]]:
    with pytest.raises(LedgerError, match="Correct them and try again") as caught:
        parsed(panel, **data)
    return list(caught.value.problems)


# What is read ------------------------------------------------------------------------------------


def test_an_empty_ledger_has_no_entries() -> None:
    assert parsed() == Ledger()


def test_an_entry_is_read_with_the_periods_that_its_days_label() -> None:
    panel = default_panel()

    ledger = parsed(adjustment=[adjustment(until=None)], veto=[veto()])

    (correction,), (mistake,) = ledger.corrections, ledger.vetoes
    assert (correction.where, correction.factor, correction.value) == ({"department": 127}, 2.0, None)
    assert (correction.since, correction.until) == (index_of(panel, SATURDAYS[0]), None)
    assert (mistake.since, mistake.until) == (correction.since, correction.since + 1)
    assert (mistake.reason, mistake.who, mistake.when) == ("the shop was rebuilt", "m.rossi", TODAY)


@pytest.mark.parametrize(
    ("panel", "where", "since", "wrong", "nearest"),
    [
        (walmart_like(), {"kind": "A"}, date(2010, 2, 5), date(2010, 2, 6), "2010-02-05 and 2010-02-12"),
        (walmart_like(), {"size": 151315}, date(2010, 2, 5), date(2010, 2, 11), "2010-02-05 and 2010-02-12"),
        (default_panel(), {"region": 3}, date(2016, 1, 9), date(2016, 1, 8), "2016-01-02 and 2016-01-09"),
        (daily(), {"shop": "côte d'or"}, date(2021, 3, 7), None, ""),
    ],
    ids=["text of a week's end", "number", "week's start", "day"],
)
def test_any_panel_has_its_own_members_and_periods(
    panel: PanelSpec, where: Mapping[str, Any], since: date, wrong: date | None, nearest: str
) -> None:
    entry = veto(where=where, since=since, until=None)

    assert parsed(panel, veto=[entry]).vetoes[0].where == where
    if wrong:
        (found,) = problems(panel, veto=[entry | {"since": wrong}])
        assert found == ("veto 1, since", f"{wrong} is no week; the nearest are {nearest}")


def test_all_series_are_named_in_so_many_words() -> None:
    assert parsed(adjustment=[adjustment(where=None, all=True)]).corrections[0].where == {}


def test_the_ledger_in_the_documentation_is_valid_and_shows_every_field() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text("utf-8")
    text = page.partition("\n## Ledger of adjustments\n")[2].partition("\n## ")[0]
    example = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])

    described = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]

    ledger = parsed(**example)
    assert (len(ledger.corrections), len(ledger.vetoes)) == (2, 1)
    assert sorted(described) == sorted(
        field.alias or name for name, field in _CorrectionFields.model_fields.items()
    )


# What is refused ---------------------------------------------------------------------------------

ONE_MISTAKE = {
    "unknown field": ({"faktor": 2.0}, "faktor", "is no field of such an entry"),
    "no reason": ({"reason": None}, "reason", "is left out"),
    "empty who": ({"who": " "}, "who", "is empty"),
    "no when": ({"when": None}, "when", "is left out"),
    "when in the future": ({"when": date(2026, 11, 23)}, "when", "2026-11-23 lies in the future"),
    "text for a date": ({"since": "2016-01-02"}, "since", "is not a date"),
    "time for a date": ({"until": "2016-01-09T00:00:00"}, "until", "is not a date"),
    "no place": ({"where": {}}, "where", "names nothing"),
    "all and a place": ({"all": True}, "all", "stands beside a where"),
    "unknown name": ({"where": {"dept": 127}}, "where", "'dept' is neither a series key nor an attribute"),
    "member of another type": ({"where": {"store": "12"}}, "where", "store is a whole number in this panel"),
    "flag for a number": ({"where": {"store": True}}, "where", "store is a whole number in this panel"),
    "endless number": ({"where": {"store": 10**30}}, "where", "more than 18 digits"),
    "no label": ({"until": date(2016, 1, 10)}, "until", "the nearest are 2016-01-09 and 2016-01-16"),
    "year one": ({"since": date(1, 1, 1)}, "since", "is not between 1900 and 2199"),
    "end before begin": ({"since": SATURDAYS[2]}, "until", "2016-01-09 lies before since, 2016-01-16"),
    "factor 0": ({"factor": 0}, "factor", "0 is out of range"),
    "factor nan": ({"factor": float("nan")}, "factor", "nan is out of range"),
    "factor inf": ({"factor": float("-inf")}, "factor", "-inf is out of range"),
    "factor as text": ({"factor": "2"}, "factor", "valid number"),
    "two remedies": ({"factor": 2.0, "missing": True}, "", "gives factor and missing"),
    "no remedy": ({"missing": False}, "", "gives no remedy"),
    "value for many series": ({"value": 3.0}, "value", "is for one series; name all of store, department"),
    "value for ever": (
        {"value": 3.0, "until": None, "where": {"store": 1, "department": 2}},
        "value",
        "needs an until",
    ),
    "value nan": (
        {"value": float("nan"), "where": {"store": 1, "department": 2}},
        "value",
        "Input should be a finite number",
    ),
}


@pytest.mark.parametrize(("changes", "field", "what"), ONE_MISTAKE.values(), ids=ONE_MISTAKE.keys())
def test_a_mistake_is_named_with_its_place(changes: dict[str, Any], field: str, what: str) -> None:
    (found,) = problems(adjustment=[adjustment(where={"store": 7}), adjustment(**changes)])

    assert found[0] == (f"adjustment 2, {field}" if field else "adjustment 2")
    assert what in found[1]


def test_all_mistakes_of_all_entries_are_listed_at_once() -> None:
    one = adjustment(where={"dept": 1}, factor=0, reason=None, when=date(2027, 1, 1))
    two = veto(since=date(2016, 1, 3), until=date(2016, 1, 1), factor=2.0)

    found = problems(adjustment=[one], veto=[veto(), two], vetos=[])

    assert [place for place, _ in found] == [
        "vetos",
        "adjustment 1, reason",
        "adjustment 1, where",
        "adjustment 1, when",
        "adjustment 1, factor",
        "veto 2, factor",
        "veto 2, since",
        "veto 2, until",
        "veto 2, until",
    ]


@pytest.mark.parametrize("data", [{"a": 1}, [1], "x"], ids=["table", "numbers", "text"])
def test_entries_that_are_no_blocks_are_refused(data: object) -> None:
    (found,) = problems(veto=data)

    assert found == ("veto", "is not written as [[veto]], one such block for each entry")


@pytest.mark.parametrize("changes", [{}, {"factor": 3.0}, {"since": SATURDAYS[1], "until": None}])
def test_entries_on_the_same_place_and_periods_contradict_each_other(changes: dict[str, Any]) -> None:
    (found,) = problems(adjustment=[adjustment(), adjustment(where={"store": 1}), adjustment(**changes)])

    assert found[0] == "adjustment 3"
    assert "concerns the same as adjustment 1" in found[1]


def test_entries_apart_in_place_or_time_agree_and_a_veto_may_stand_beside_one() -> None:
    later = adjustment(since=SATURDAYS[2], until=None)

    ledger = parsed(
        adjustment=[adjustment(), later, adjustment(where={"store": 1, "department": 127})],
        veto=[veto(where={"department": 127}), veto(where={"department": 127})],
    )

    assert (len(ledger.corrections), len(ledger.vetoes)) == (3, 2)


# What entries say --------------------------------------------------------------------------------


def test_as_of_a_day_only_what_was_decided_by_then_is_known() -> None:
    days = [date(2020, 5, day) for day in (1, 2, 3)]
    ledger = parsed(
        adjustment=[adjustment(when=day, where={"store": n}) for n, day in enumerate(days)],
        veto=[veto(when=day) for day in days],
    )

    known = ledger.known_by(days[1])

    assert [entry.when for entry in known.corrections] == days[:2]
    assert [entry.when for entry in known.vetoes] == days[:2]


def test_the_id_of_an_entry_is_that_of_its_content() -> None:
    where = {"store": 1, "department": 2}
    turned = dict(reversed(where.items()))
    ids = [
        parsed(adjustment=[adjustment(**changes)]).corrections[0].correction_id
        for changes in ({"where": where}, {"where": turned}, {"where": where, "reason": "another"})
    ]

    assert ids[0] == ids[1] != ids[2]


periods = st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6))).filter(
    lambda p: p[1] is None or p[0] <= p[1]
)


@given(periods, periods)
def test_periods_overlap_where_they_have_one_in_common(
    one: tuple[int, int | None], other: tuple[int, int | None]
) -> None:
    entry = Veto({}, *one, "", "", TODAY)
    sets = [
        {t for t in range(9) if since <= t <= (8 if until is None else until)}
        for since, until in (one, other)
    ]

    assert entry.overlaps(*other) == bool(sets[0] & sets[1])


# The file ----------------------------------------------------------------------------------------


def test_without_a_file_there_are_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.toml"

    assert read_ledger(path, default_panel()) == Ledger(version=NO_LEDGER)
    assert ledger_version(path) == NO_LEDGER


def test_every_change_of_the_file_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.toml"
    path.write_text("# nothing yet\n")

    assert NO_LEDGER != ledger_version(path) == read_ledger(path, default_panel()).version


@pytest.mark.parametrize(
    "content", [b"[[veto]", b"\xff\xfe", b"a = 1\na = 2"], ids=["open", "bytes", "twice"]
)
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adjustments.toml"
    path.write_bytes(content)

    with pytest.raises(LedgerError, match="is not TOML"):
        read_ledger(path, default_panel())


def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        read_ledger(tmp_path, default_panel())


WRITTEN = """\
# What Rossi found  (keep!)
[[veto]]  # the first
where = {  store = 5 }
since = 2016-01-02
reason = '''two
lines'''
who = "x"
when = 2020-01-01
"""
comments = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30), max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    notes=comments,
    reason=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    factor=st.floats(1e-6, 1e6),
    end=st.sampled_from(["", "\n", "\n\n# the end"]),
    lines=st.sampled_from(["\n", "\r\n"]),
)
def test_adding_keeps_every_byte_and_every_entry(
    tmp_path: Path, notes: list[str], reason: str, factor: float, end: str, lines: str
) -> None:
    path = tmp_path / "adjustments.toml"
    text = "".join(f"# {note}\n" for note in notes) + WRITTEN.rstrip("\n") + end
    before = text.replace("\n", lines).encode()
    path.write_bytes(before)

    add_entry(
        path, default_panel(), "adjustment", adjustment(reason=reason, factor=factor, when=date(2020, 1, 1))
    )
    add_entry(path, default_panel(), "veto", veto(when=date(2020, 1, 1)))

    after = path.read_bytes()
    assert after.startswith(before)
    ledger = read_ledger(path, default_panel())
    assert [entry.where for entry in ledger.vetoes] == [{"store": 5}, {"store": 12}]
    assert [entry.factor for entry in ledger.corrections] == [factor]
    assert tomllib.loads(after.decode())["adjustment"][0]["reason"].split() == reason.split()


def test_a_new_ledger_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.toml"

    added = add_entry(path, default_panel(), "veto", veto(when=date(2020, 1, 1)))

    assert path.read_text().startswith("# What is known to be wrong")
    assert path.read_text().endswith(f"\n\n{added}")
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["adjustments.toml"]


def test_two_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.toml"

    def add(store: int) -> None:
        add_entry(path, default_panel(), "veto", veto(where={"store": store}, when=date(2020, 1, 1)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))

    stores = [entry.where["store"] for entry in read_ledger(path, default_panel()).vetoes]
    assert sorted(stores) == list(range(16))


@pytest.mark.parametrize(
    ("before", "error", "match"),
    [
        ("[[veto]]\n", LedgerError, "veto 1, since: is left out"),
        ("adjustment = []\n", TurnoverError, "The entry was not added"),
    ],
    ids=["a ledger that is wrong", "a ledger that cannot be added to"],
)
def test_what_would_not_be_valid_is_not_written(
    tmp_path: Path, before: str, error: type[Exception], match: str
) -> None:
    path = tmp_path / "adjustments.toml"
    path.write_text(before)

    with pytest.raises(error, match=match):
        add_entry(path, default_panel(), "adjustment", adjustment(when=date(2020, 1, 1)))

    assert path.read_text() == before


def test_an_entry_that_contradicts_one_is_not_added(tmp_path: Path) -> None:
    path, entry = tmp_path / "adjustments.toml", adjustment(when=date(2020, 1, 1))
    add_entry(path, default_panel(), "adjustment", entry)
    before = path.read_bytes()

    with pytest.raises(TurnoverError, match="adjustment 2: concerns the same as adjustment 1"):
        add_entry(path, default_panel(), "adjustment", entry)

    assert path.read_bytes() == before


def test_a_link_stays_a_link_and_rights_stay(tmp_path: Path) -> None:
    kept, path = tmp_path / "kept.toml", tmp_path / "adjustments.toml"
    kept.write_text(WRITTEN)
    kept.chmod(0o640)
    path.symlink_to(kept)

    add_entry(path, default_panel(), "veto", veto(when=date(2020, 1, 1)))

    assert path.is_symlink()
    assert kept.read_text().startswith(WRITTEN)
    assert kept.stat().st_mode & 0o777 == 0o640
    assert len(read_ledger(path, default_panel()).vetoes) == 2


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    path = tmp_path / "adjustments.toml"

    told = as_nobody(lambda: _told(path))

    assert told.startswith(HomeError.__name__)
    assert "cannot be written" in told


def _told(path: Path) -> str:
    try:
        return add_entry(path, default_panel(), "veto", veto(when=date(2020, 1, 1)))
    except TurnoverError as error:
        return f"{type(error).__name__}: {error}"
