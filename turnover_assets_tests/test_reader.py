"""The reader of landed files: formats, delimiters, line numbers, malformed rows and refusals."""

import csv
import datetime as dt
import gzip
import hashlib
import io
import os
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import PanelSpec, default_panel, parse_panel
from turnover_assets.storage import _csv, _parquet, reader
from turnover_assets.storage.reader import FileHead, fingerprint, read_batches, read_head, recognise

NAMES = ("day_id", "but_num_business_unit", "dpt_num_department", "turnover")
HEADER = ",".join(NAMES)
GOOD = f"{HEADER}\n2017-06-10,53,88,635.47\n2017-06-10,154,117,1.62\n"
PANEL = default_panel()
VALUES = ("week", "store", "department", "turnover")


@pytest.fixture
def land(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes a file whose name says nothing."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "landed"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def land_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Writes a parquet file of the series table, with some of its columns replaced."""

    def write(**columns: pa.Array) -> Path:
        size = len(next(iter(columns.values()))) if columns else 1
        usual = {
            "day_id": ["2017-06-10"] * size,
            "but_num_business_unit": range(size),
            "dpt_num_department": [88] * size,
            "turnover": [1.5] * size,
        }
        path = tmp_path / "landed"
        pq.write_table(pa.table(usual | columns), path)
        return path

    return write


def read(path: Path, panel: PanelSpec = PANEL) -> tuple[FileHead, list[dict[str, object]]]:
    head = read_head(path, panel)
    return head, [row for batch in read_batches(path, panel, head) for row in batch.to_pylist()]


def rows_of(path: Path, panel: PanelSpec = PANEL) -> list[dict[str, object]]:
    return read(path, panel)[1]


def two_covariates(first: list[str], second: list[str]) -> PanelSpec:
    """A panel with two covariate tables of the given columns in the files."""
    tables = [
        {"name": name, "columns": [{"name": f"{name}_{i}", "column": c} for i, c in enumerate(columns)]}
        for name, columns in (("first", first), ("second", second))
    ]
    series = {
        "name": "sales",
        "keys": [{"name": "shop"}],
        "time": {"name": "week"},
        "target": {"name": "amount"},
    }
    return parse_panel({"name": "two", "series": series, "covariates": tables}, "test")


WALMART = parse_panel(
    {
        "name": "walmart",
        "frequency": {"every": "week", "starts_on": "saturday"},
        "series": {
            "name": "sales",
            "keys": [
                {"name": "store", "column": "Store", "type": "integer"},
                {"name": "dept", "column": "Dept", "type": "integer"},
            ],
            "time": {"name": "week", "column": "Date", "label": "end"},
            "target": {"name": "sales", "column": "Weekly_Sales", "nonnegative": False},
        },
        "static": [
            {
                "name": "stores",
                "keys": ["store"],
                "columns": [{"name": "kind", "column": "Type"}, {"name": "size", "column": "Size"}],
            }
        ],
        "covariates": [
            {
                "name": "features",
                "keys": ["store"],
                "columns": [
                    {"name": "temperature", "column": "Temperature", "type": "number"},
                    {"name": "is_holiday", "column": "IsHoliday", "type": "flag"},
                ],
            }
        ],
    },
    "test",
)


# --- what a file is


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        pytest.param(str.encode, "csv", id="csv"),
        pytest.param(lambda text: gzip.compress(text.encode()), "csv.gz", id="csv.gz"),
        pytest.param(
            lambda text: gzip.compress(text[:40].encode()) + gzip.compress(text[40:].encode()),
            "csv.gz",
            id="gzip of several members",
        ),
    ],
)
def test_the_format_is_told_by_the_content(
    land: Callable[[bytes], Path], pack: Callable[[str], bytes], expected: str
) -> None:
    path = land(pack(GOOD))

    head, rows = read(path)

    assert head == FileHead("turnover", expected, ",", NAMES, ())
    assert rows == [
        {
            "line": 2,
            "store": "53",
            "department": "88",
            "week": "2017-06-10",
            "turnover": "635.47",
            "malformed": None,
        },
        {
            "line": 3,
            "store": "154",
            "department": "117",
            "week": "2017-06-10",
            "turnover": "1.62",
            "malformed": None,
        },
    ]


def test_a_parquet_file_is_told_by_its_content_and_numbers_its_rows(
    land_parquet: Callable[..., Path],
) -> None:
    path = land_parquet(turnover=pa.array([1.5, None]), note=pa.array(["a", "b"]))

    head, rows = read(path)

    assert head == FileHead("turnover", "parquet", None, (*NAMES, "note"), ("note",))
    assert [(row["line"], row["store"], row["turnover"]) for row in rows] == [(1, "0", "1.5"), (2, "1", None)]


def test_batches_have_the_columns_of_the_table_in_the_panels_order(land: Callable[[str], Path]) -> None:
    path = land(GOOD)

    (batch,) = read_batches(path, PANEL, read_head(path, PANEL))

    assert batch.column_names == ["line", *PANEL.tables["turnover"], "malformed"]
    assert batch.schema.types == [pa.int64(), *[pa.string()] * 5]


def test_extra_columns_are_reported_and_left_out(land: Callable[[str], Path]) -> None:
    path = land(f"comment,{HEADER},comment\nx,2017-06-10,53,88,1,y\n")

    head, rows = read(path)

    assert head.extra_columns == ("comment", "comment")
    assert [rows[0][name] for name in VALUES] == ["2017-06-10", "53", "88", "1"]


@pytest.mark.parametrize(
    ("header", "row", "delimiter"),
    [
        pytest.param(HEADER, "2017-06-10,53,88,1", ",", id="comma"),
        pytest.param(HEADER.replace(",", ";"), "2017-06-10;53;88;1", ";", id="semicolon"),
        pytest.param(
            '"' + '","'.join(NAMES) + '"', '"2017-06-10","53","88","1"', ",", id="comma, all quoted"
        ),
        pytest.param(
            '"' + '";"'.join(NAMES) + '"', '"2017-06-10";"53";"88";"1"', ";", id="semicolon, all quoted"
        ),
        pytest.param(
            HEADER.replace(",", ";") + ";a,b,c,d,e,f,g",
            "2017-06-10;53;88;1;x",
            ";",
            id="the one that fits wins",
        ),
        pytest.param(" , ".join(NAMES), " 2017-06-10\t, 53 ,88 ,  1", ",", id="white space around"),
    ],
)
def test_the_delimiter_is_told_by_the_header(
    land: Callable[[str], Path], header: str, row: str, delimiter: str
) -> None:
    path = land(f"{header}\n{row}\n")

    head, rows = read(path)

    assert head.delimiter == delimiter
    assert [rows[0][name] for name in VALUES] == ["2017-06-10", "53", "88", "1"]
    assert rows[0]["malformed"] is None


# --- lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["no BOM", "BOM"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(
    land: Callable[[bytes], Path], end: str, bom: bytes
) -> None:
    path = land(bom + GOOD.replace("\n", end).encode())

    assert [(row["line"], row["turnover"]) for row in rows_of(path)] == [(2, "635.47"), (3, "1.62")]


def test_blank_lines_quoted_line_ends_and_mixed_line_ends_keep_physical_line_numbers(
    land: Callable[[str], Path],
) -> None:
    path = land(f'\n{HEADER}\r\n\r2017-06-10,1,1,"a\nb\r\nc"\n   \r\n2017-06-10,2,1,2\r2017-06-10,3,1,3')

    rows = rows_of(path)

    assert [(row["line"], row["store"]) for row in rows] == [(4, "1"), (8, "2"), (9, "3")]
    assert rows[0]["turnover"] == "a\nb\r\nc"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("block", [1, 2, 7, 64], ids=lambda size: f"blocks of {size}")
def test_lines_and_characters_across_blocks_stay_whole(
    land: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, end: str, block: int
) -> None:
    monkeypatch.setattr(_csv, "BLOCK_BYTES", block)
    path = land(end.join([HEADER, *(f"2017-06-10,{i},1,é€{'x' * i}" for i in range(20))]))

    rows = rows_of(path)

    assert [(row["line"], row["turnover"]) for row in rows] == [(i + 2, f"é€{'x' * i}") for i in range(20)]


def test_rows_come_in_batches_of_bounded_size(
    land: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 4)
    path = land(HEADER + "".join(f"\n2017-06-10,{i},1,1" for i in range(10)))

    batches = list(read_batches(path, PANEL, read_head(path, PANEL)))

    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [line for batch in batches for line in batch["line"].to_pylist()] == list(range(2, 12))


@pytest.mark.parametrize("limit", ["BATCH_CELLS", "BATCH_BYTES"])
def test_a_batch_of_wide_or_long_rows_ends_early_and_no_row_is_lost(
    land: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(_csv, limit, 1_000)
    monkeypatch.setattr(_csv, "BLOCK_BYTES", 100)
    path = land(HEADER + "".join(f"\n2017-06-10,{i},88,1" for i in range(2_000)) + "\n")

    batches = list(read_batches(path, PANEL, read_head(path, PANEL)))

    assert 5 < len(batches) < 2_000
    assert [row["store"] for batch in batches for row in batch.to_pylist()] == [str(i) for i in range(2_000)]


def test_values_are_stripped_but_not_interpreted(land: Callable[[str], Path]) -> None:
    path = land(f"{HEADER}\n NA ,\t,null,NaN\n")

    assert [rows_of(path)[0][name] for name in VALUES] == ["NA", "", "null", "NaN"]


# --- malformed rows


@pytest.mark.parametrize(
    ("row", "values", "problem"),
    [
        pytest.param(
            "2017-06-10,53,88",
            ["2017-06-10", "53", "88", None],
            "3 fields instead of 4: 2017-06-10,53,88",
            id="too few",
        ),
        pytest.param("x", ["x", None, None, None], "1 field instead of 4: x", id="one field"),
        pytest.param(
            "2017-06-10,53,88,635,47",
            ["2017-06-10", "53", "88", "635"],
            "5 fields instead of 4: 2017-06-10,53,88,635,47",
            id="too many",
        ),
        pytest.param(
            '"a\nb", 1',
            ["a\nb", "1", None, None],
            '2 fields instead of 4: "a\nb", 1',
            id="raw text over lines",
        ),
    ],
)
def test_a_row_with_the_wrong_number_of_fields_is_kept_as_malformed(
    land: Callable[[str], Path], row: str, values: list[str | None], problem: str
) -> None:
    path = land(f"{HEADER}\n2017-06-10,1,1,1\n{row}\r\n2017-06-10,2,1,1\n")

    good, bad, after = rows_of(path)

    assert (bad["line"], [bad[name] for name in VALUES], bad["malformed"]) == (3, values, problem)
    assert (good["malformed"], after["malformed"], after["store"]) == (None, None, "2")


def test_the_text_of_a_malformed_row_is_cut(land: Callable[[str], Path]) -> None:
    path = land(f"{HEADER}\n{'x' * 5000},1\n")

    problem = rows_of(path)[0]["malformed"]

    assert isinstance(problem, str)
    assert len(problem) == 200
    assert problem.startswith("2 fields instead of 4: xxx")


# --- refusals


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", r"is empty: there is no header", id="no byte"),
        pytest.param(b"\n \r\n\r", r"is empty: there is no header", id="blank lines"),
        pytest.param(b"\xef\xbb\xbf", r"is empty: there is no header", id="only a BOM"),
        pytest.param(gzip.compress(b""), r"is empty: there is no header", id="gzip of nothing"),
        pytest.param(HEADER.encode(), r"a header but no row of data", id="only a header"),
        pytest.param(f"{HEADER}\n\n  \n".encode(), r"a header but no row of data", id="header, blank lines"),
        pytest.param(GOOD.encode("utf-16"), r"is UTF-16 text; UTF-8 is expected", id="UTF-16 LE"),
        pytest.param(
            b"\xfe\xff" + GOOD.encode("utf-16-be"), r"is UTF-16 text; UTF-8 is expected", id="UTF-16 BE"
        ),
        pytest.param(
            gzip.compress(GOOD.encode("utf-16")), r"is UTF-16 text; UTF-8 is expected", id="UTF-16 in gzip"
        ),
        pytest.param(GOOD.encode("utf-16-le"), r"line 1 holds a NUL byte", id="UTF-16 without BOM"),
        pytest.param(GOOD.replace("154", "1\0").encode(), r"line 3 holds a NUL byte", id="NUL"),
        pytest.param(
            GOOD.replace("154", "1é").encode("latin-1"),
            r"line 3 holds the byte 0xe9.*UTF-8 is expected",
            id="Latin-1",
        ),
        pytest.param(
            GOOD.replace("\n", "\r").replace("154", "1é").encode("latin-1"),
            r"line 3 holds the byte 0xe9",
            id="Latin-1, CR",
        ),
        pytest.param(
            f'{HEADER}\n1,1,1,1\n1,1,1,"open\n2,2,2,2\n'.encode(), r"starts in line 3 cannot", id="open quote"
        ),
        pytest.param(
            f'{HEADER}\n1,1,1,1\n1,"1"1,1,1\n'.encode(), r"starts in line 3 cannot", id="text after quote"
        ),
        pytest.param(
            f'{HEADER}\n1,1,1,1\n1,1,1,"'.encode(), r"starts in line 3 cannot", id="quote at the end"
        ),
        pytest.param(f'"{HEADER}\n1,1,1,1\n'.encode(), r"starts in line 1 cannot", id="open quote in header"),
        pytest.param(
            f"{HEADER}\n1,1,1,{'9' * 200_000}\n".encode(),
            r"line 2 cannot be read \(field larger",
            id="long field",
        ),
        pytest.param(
            f"{HEADER}\n1,1,1,1\n".encode() + b'"\n",' * 700_000,
            r"starts in line 3 is longer than 1048576 characters",
            id="row over many lines",
        ),
        pytest.param(
            f"{HEADER}{',x' * 10_000}\n1,1,1,1\n".encode(), r"names 10004 columns", id="too many columns"
        ),
        pytest.param(b"x" * 3_000_000, r"line 1 is longer than 1048576 bytes", id="long line"),
        pytest.param(
            f"{HEADER},turnover\n1,1,1,1,1\n".encode(), r"the column 'turnover' more than once", id="twice"
        ),
        pytest.param(b"PK\x03\x04rest", r"is a zip archive or an Excel workbook", id="zip"),
        pytest.param(gzip.compress(gzip.compress(GOOD.encode())), r"is gzip inside gzip", id="gzip in gzip"),
        pytest.param(gzip.compress(b"PAR1rest"), r"is parquet inside gzip", id="parquet in gzip"),
        pytest.param(b"\x1f\x8b", r"gzip file is truncated", id="gzip magic only"),
        pytest.param(b"\x1f\x8b\x00\x00" * 9, r"gzip file is corrupt", id="gzip header"),
        pytest.param(gzip.compress(GOOD.encode())[:-1], r"truncated; land it again", id="truncated gzip"),
        pytest.param(
            gzip.compress(GOOD.encode())[:-8] + b"\0" * 8,
            r"corrupt \(CRC.*land it again",
            id="gzip with wrong CRC",
        ),
        pytest.param(b"PAR1", r"parquet file is truncated or corrupt", id="parquet magic only"),
        pytest.param(b"PAR1" + b"\0" * 99, r"parquet file is truncated or corrupt", id="parquet without end"),
    ],
)
def test_a_broken_file_is_refused_with_a_reason(
    land: Callable[[bytes], Path], content: bytes, reason: str
) -> None:
    path = land(content)

    with pytest.raises(UnreadableFileError, match=reason) as caught:
        rows_of(path)

    assert caught.value.reason == str(caught.value)


def test_a_gzip_truncated_in_its_middle_raises_after_the_batches_before(
    land: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 10_000)
    numbers = random.Random(0)
    text = HEADER + "".join(f"\n2017-06-10,{i},1,{numbers.random()}" for i in range(100_000))
    packed = gzip.compress(text.encode())
    path = land(packed[: int(len(packed) * 0.8)])

    batches = read_batches(path, PANEL, read_head(path, PANEL))
    first = next(batches)

    assert len(first) == 10_000
    with pytest.raises(UnreadableFileError, match=r"truncated; land it again"):
        list(batches)


def test_a_bad_byte_far_into_a_file_is_reported_with_its_line(land: Callable[[bytes], Path]) -> None:
    lines = [HEADER.encode(), *[b"2017-06-10,53,88,635.47"] * 200_000]
    lines[150_000] = b"2017-06-10,53,88,\xff"
    path = land(b"\r\n".join(lines))

    with pytest.raises(UnreadableFileError, match=r"line 150001 holds the byte 0xff"):
        rows_of(path)


def test_a_file_that_changed_after_its_head_was_read_is_refused(land: Callable[[str], Path]) -> None:
    path = land(GOOD)
    head = read_head(path, PANEL)
    land(f"other,{GOOD}")

    with pytest.raises(UnreadableFileError, match=r"changed while it was being read"):
        list(read_batches(path, PANEL, head))


@pytest.mark.parametrize(
    "call", [lambda path: read_head(path, PANEL), fingerprint], ids=["head", "fingerprint"]
)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: None, r"cannot be read \(No such file", id="vanished"),
        pytest.param(lambda path: path.mkdir(), r"cannot be read \(Is a directory\)", id="directory"),
        pytest.param(os.mkfifo, r"cannot be read \(Not a regular file\)", id="pipe"),
        pytest.param(lambda path: path.symlink_to(path), r"cannot be read \(Too many levels", id="link loop"),
    ],
)
def test_what_the_system_cannot_read_is_refused_with_its_reason(
    tmp_path: Path, call: Callable[[Path], object], make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "landed"
    make(path)

    with pytest.raises(UnreadableFileError, match=reason):
        call(path)


def test_a_file_that_vanished_after_its_head_was_read_is_refused(land: Callable[[str], Path]) -> None:
    path = land(GOOD)
    head = read_head(path, PANEL)
    path.unlink()

    with pytest.raises(UnreadableFileError, match=r"cannot be read \(No such file"):
        list(read_batches(path, PANEL, head))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(land: Callable[[str], Path]) -> None:
    path = land(GOOD)
    path.chmod(0)

    with pytest.raises(UnreadableFileError, match=r"cannot be read \(Permission denied\)"):
        read_head(path, PANEL)


# --- kinds


def test_of_several_kinds_that_fit_the_one_that_needs_most_columns_is_taken() -> None:
    panel = two_covariates(["a"], ["a", "b"])

    assert recognise(["week", "a", "b", "c"], panel) == "second"
    assert recognise([" week", "a "], panel) == "first"


def test_kinds_that_fit_alike_are_refused_as_ambiguous() -> None:
    panel = two_covariates(["a"], ["b"])

    with pytest.raises(UnreadableFileError, match=r"several kinds of file alike \('first', 'second'\)"):
        recognise(["week", "a", "b"], panel)


def test_what_is_reported_is_not_taken_for_a_plan() -> None:
    panel = two_covariates(["promo", "price", "school"], ["weather"])
    reported = list(panel.tables[panel.series.name].values())
    target = panel.tables[panel.series.name][panel.target]
    told = f"holds the columns of '{panel.series.name}' and all of 'first'.*two files.*'promo'.*'{target}'"

    with pytest.raises(UnreadableFileError, match=told):
        recognise([*reported, "promo", "price", "school"], panel)

    assert recognise([*reported, "weather"], panel) == panel.series.name
    assert recognise([*reported[:-1], "promo", "price", "school"], panel) == "first"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        pytest.param(
            NAMES[:3],
            r"fits no known kind of file: nearest is 'turnover', which lacks the column 'turnover' "
            r"\(found: day_id, but_num_business_unit, dpt_num_department\)$",
            id="one missing",
        ),
        pytest.param(
            ["but_num_business_unit", "but_postcode", "but_latitude", "but_longitude"],
            r"nearest is 'stores', which lacks the columns 'but_region_idr_region', 'zod_idr_zone_dgr'",
            id="two missing",
        ),
        pytest.param(
            ["day_id", "but_num_business_unit", "dpt_num_department", "Turnover"],
            r"lacks the column 'turnover' \(found: .*Turnover\); it would fit but for upper and lower case",
            id="case of one",
        ),
        pytest.param(
            [name.upper() for name in PANEL.tables["stores"].values()],
            r"nearest is 'stores'.*it would fit but for upper and lower case",
            id="case of all",
        ),
        pytest.param(["2017-06-10", "53", "88", "635.47"], r"\(found: 2017-06-10, 53", id="no header"),
        pytest.param(["\t".join(NAMES)], "separated by tabs; commas or semicolons are expected$", id="tabs"),
        pytest.param(["|".join(NAMES)], "separated by vertical bars; commas", id="bars"),
        pytest.param(
            [f"column{i}" for i in range(999)], r"\(found: column0, .{380,400}…\)$", id="many columns"
        ),
    ],
)
def test_a_file_of_no_known_kind_is_refused_with_the_nearest_kind(columns: list[str], reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason):
        recognise(columns, PANEL)


# --- parquet


DAY, MOMENT = dt.datetime(2017, 6, 10), dt.datetime(2017, 6, 10, 1, 2, 3, 40_000)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        pytest.param(
            pa.array([0.1, 635.4720837823365, 1e-7, 1e300, 53.0, 123456789012.0, -2.0, None]),
            ["0.1", "635.4720837823365", "1e-7", "1e+300", "53", "123456789012", "-2", None],
            id="float64",
        ),
        pytest.param(
            pa.array([float("nan"), float("inf"), -float("inf")]), ["NaN", "inf", "-inf"], id="not finite"
        ),
        pytest.param(pa.array([0.1, 2.0], pa.float32()), ["0.1", "2"], id="float32"),
        pytest.param(pa.array([0.5, 2.0], pa.float16()), ["0.5", "2"], id="float16"),
        pytest.param(pa.array([2**63 - 1, -5, None]), ["9223372036854775807", "-5", None], id="int64"),
        pytest.param(pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"], id="uint64"),
        pytest.param(pa.array([True, False, None]), ["true", "false", None], id="bool"),
        pytest.param(
            pa.array([Decimal("0.0000001"), Decimal("-12.5"), None], pa.decimal128(20, 7)),
            ["0.0000001", "-12.5000000", None],
            id="decimal",
        ),
        pytest.param(pa.array([DAY.date(), None]), ["2017-06-10", None], id="date"),
        pytest.param(
            pa.array([DAY, MOMENT, None], pa.timestamp("ns")),
            ["2017-06-10", "2017-06-10T01:02:03.04", None],
            id="timestamp",
        ),
        pytest.param(
            pa.array([DAY + dt.timedelta(hours=7)]), ["2017-06-10T07:00:00"], id="timestamp, whole hour"
        ),
        pytest.param(
            pa.array([DAY, DAY - dt.timedelta(hours=2)], pa.timestamp("ms", "+02:00")),
            ["2017-06-10T02:00:00+02:00", "2017-06-10"],
            id="timestamp with offset",
        ),
        pytest.param(
            pa.array([DAY, MOMENT], pa.timestamp("us", "UTC")),
            ["2017-06-10", "2017-06-10T01:02:03.04Z"],
            id="timestamp in UTC",
        ),
        pytest.param(pa.array(["a", " b ", "", None]), ["a", "b", "", None], id="text is stripped"),
        pytest.param(
            pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"], id="dictionary"
        ),
        pytest.param(pa.array(["a"], pa.large_string()), ["a"], id="large text"),
        pytest.param(pa.array([b"a"]), ["a"], id="bytes that are text"),
        pytest.param(pa.array([b"ab"], pa.binary(2)), ["ab"], id="bytes of one length"),
        pytest.param(pa.array(["a", None], pa.string_view()), ["a", None], id="views of text"),
        pytest.param(pa.nulls(2), [None, None], id="nulls"),
    ],
)
def test_parquet_values_become_text_without_loss(
    land_parquet: Callable[..., Path], values: pa.Array, texts: list[str | None]
) -> None:
    path = land_parquet(turnover=values)

    rows = rows_of(path)

    assert [row["turnover"] for row in rows] == texts
    assert all(row["malformed"] is None for row in rows)


@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
@settings(max_examples=50)
def test_parquet_floats_read_back_to_the_same_number(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = tmp_path_factory.mktemp("floats") / "landed"
    pq.write_table(pa.table(dict.fromkeys(NAMES, values)), path)

    assert [float(str(row["turnover"])) for row in rows_of(path)] == values


def test_parquet_rows_are_numbered_through_batches_and_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 30)
    path = tmp_path / "landed"
    pq.write_table(pa.table({f" {name} ": range(100) for name in NAMES}), path, row_group_size=40)

    rows = rows_of(path)

    assert [(row["line"], row["store"]) for row in rows] == [(i + 1, str(i)) for i in range(100)]


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_parquet_rows_with_long_texts_come_in_smaller_batches(tmp_path: Path, use_dictionary: bool) -> None:
    path, longest = tmp_path / "landed", _parquet.LONGEST_TEXT
    texts = [str(row) if row % 3 else str(row % 2) * longest for row in range(900)]
    columns = pa.table(dict.fromkeys(NAMES, range(900))).set_column(3, NAMES[3], [texts])
    pq.write_table(columns, path, compression="zstd", row_group_size=400, use_dictionary=use_dictionary)

    batches = list(read_batches(path, PANEL, read_head(path, PANEL)))
    rows = [row for batch in batches for row in batch.to_pylist()]

    assert [(row["line"], row["store"]) for row in rows] == [(i + 1, str(i)) for i in range(900)]
    assert [row["turnover"] for row in rows] == texts
    assert 1 < len(batches) < 10
    assert max(batch.nbytes for batch in batches) < 1.5 * _parquet.BATCH_BYTES


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(
            pa.array(["a" * 131_073]), r"'turnover' holds a text of 131073 bytes, of at most", id="long text"
        ),
        pytest.param(
            pa.array([b"a" * 131_073], pa.binary(131_073)), r"'turnover' of type fixed_size", id="long bytes"
        ),
        pytest.param(
            pa.array([[1]]), r"the column 'turnover' of type list.* cannot be read as text", id="list"
        ),
        pytest.param(pa.array([b"\xff"]), r"the column 'turnover' of type binary cannot", id="bytes"),
        pytest.param(pa.array([], pa.float64()), r"a header but no row of data", id="no row"),
    ],
)
def test_parquet_that_is_no_table_of_values_is_refused(
    land_parquet: Callable[..., Path], values: pa.Array, reason: str
) -> None:
    path = land_parquet(turnover=values)

    with pytest.raises(UnreadableFileError, match=reason):
        rows_of(path)


def test_a_truncated_parquet_file_is_refused(land_parquet: Callable[..., Path]) -> None:
    path = land_parquet()
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(UnreadableFileError, match=r"parquet file is truncated or corrupt .*land it again"):
        read_head(path, PANEL)


def test_parquet_with_a_needed_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "landed"
    pq.write_table(pa.table([pa.array([1])] * 5, names=[*NAMES, "turnover "]), path)

    with pytest.raises(UnreadableFileError, match=r"the column 'turnover' more than once"):
        read_head(path, PANEL)


# --- properties


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
LAYOUTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;"),
        "end": st.sampled_from(["\n", "\r\n", "\r"]),
        "quote_all": st.booleans(),
    }
)


def written(rows: list[list[str]], delimiter: str, end: str, quote_all: bool) -> tuple[bytes, list[int]]:
    """A csv file and the line in which each of its records starts.

    Written by hand: before Python 3.13, csv.writer leaves a lone CR unquoted.
    """

    def cell(text: str) -> str:
        special = quote_all or set(text) & set(',;"\r\n')
        return '"' + text.replace('"', '""') + '"' if special else text

    content, starts = b"", []
    for row in rows:
        starts.append(len((content + b"x").splitlines()))
        content += (delimiter.join(cell(text) for text in row) + end).encode()
    return content, starts


@given(
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=12),
    layout=LAYOUTS,
    bom=st.booleans(),
    packed=st.booleans(),
    block=st.sampled_from([3, 50, 1 << 20]),
)
@settings(max_examples=200)
def test_what_was_written_is_read_back_with_its_line_numbers(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    layout: dict[str, object],
    bom: bool,
    packed: bool,
    block: int,
) -> None:
    content, starts = written([list(NAMES), *rows], **layout)
    content = b"\xef\xbb\xbf" * bom + content
    path = tmp_path_factory.mktemp("round") / "landed"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_csv, "BLOCK_BYTES", block)
        head, got = read(path)

    assert (head.delimiter, head.format) == (layout["delimiter"], "csv.gz" if packed else "csv")
    assert [[row[name] for name in VALUES] for row in got] == [[cell.strip() for cell in row] for row in rows]
    assert [row["line"] for row in got] == starts[1:]
    assert all(row["malformed"] is None for row in got)


def valid_files() -> Iterator[tuple[str, bytes]]:
    rows = [[f"2017-06-{1 + i % 28:02}", str(i), f' "{i}" ', f"{i * 1.7}"] for i in range(60)]
    text, _ = written([list(NAMES), *rows], ",", "\r\n", False)
    yield "csv", text
    yield "gz", gzip.compress(text, mtime=0)
    for name, options in (
        ("parquet", {}),
        ("plain parquet", {"compression": "none", "use_dictionary": False, "write_page_checksum": True}),
    ):
        sink = io.BytesIO()
        columns = [pa.array(column) for column in zip(*rows, strict=True)]
        pq.write_table(
            pa.table([*columns[:3], pa.array([float(row[3]) for row in rows])], NAMES), sink, **options
        )
        yield name, sink.getvalue()


def mutated(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice([0, 1, 1, 3, 20])):
        at = dice.randrange(len(changed))
        match dice.randrange(3):
            case 0:
                changed[at] = dice.randrange(256)
            case 1:
                del changed[at : at + dice.randrange(1, 9)]
            case _:
                changed[at:at] = dice.choice([b"\0", b'"', b"\r", b"\n", b",", b";", b"\xff", b"\xc3"])
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.3 else changed)


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in valid_files()])
def test_a_damaged_file_is_read_or_refused_but_never_anything_else(
    land: Callable[[bytes], Path], content: bytes
) -> None:
    dice = random.Random(20170610)
    reasons = []
    for _ in range(400):
        damaged = mutated(content, dice)
        path = land(damaged)
        try:
            rows = rows_of(path)
        except UnreadableFileError as error:
            reasons.append(error.reason)
        else:
            assert rows
        assert path.read_bytes() == damaged
    assert 0 < len(reasons) < 400
    assert all(0 < len(reason) < 1000 for reason in reasons)


# --- fingerprint


def test_the_fingerprint_is_the_sha256_of_the_bytes(land: Callable[[str], Path]) -> None:
    assert fingerprint(land(GOOD)) == hashlib.sha256(GOOD.encode()).hexdigest()


# --- real files


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "panel", "table", "file_format"),
    [
        pytest.param("decathlon/history/train.csv.gz", PANEL, "turnover", "csv.gz", id="history"),
        pytest.param("decathlon/history/bu_feat.csv.gz", PANEL, "stores", "csv.gz", id="store features"),
        pytest.param("decathlon/weekly/turnover_2017-06-17.csv", PANEL, "turnover", "csv", id="one week"),
        pytest.param("walmart/train.csv.gz", WALMART, "sales", "csv.gz", id="other retailer's sales"),
        pytest.param("walmart/features.csv.gz", WALMART, "features", "csv.gz", id="other's features"),
        pytest.param("walmart/stores.csv", WALMART, "stores", "csv", id="other's stores, CR only"),
    ],
)
def test_real_files_are_read_whole(
    real_data: Path, file: str, panel: PanelSpec, table: str, file_format: str
) -> None:
    path = real_data / file
    content = path.read_bytes()
    text = gzip.decompress(content) if file_format == "csv.gz" else content
    expected = list(csv.DictReader(io.StringIO(text.decode(), newline="")))

    head = read_head(path, panel)
    got = pa.concat_tables(read_batches(path, panel, head))

    assert (head.table, head.format, head.delimiter) == (table, file_format, ",")
    assert len(got) == len(expected) > 0
    assert got["malformed"].null_count == len(got)
    assert got["line"].to_pylist() == list(range(2, len(got) + 2))
    for name, source in panel.tables[table].items():
        assert got[name].to_pylist() == [row[source] for row in expected]
