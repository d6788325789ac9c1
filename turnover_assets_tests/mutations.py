"""Damaged files: valid ones of each format, and what transfers, editors and exports do to them.

What belongs here: seeds, damages, and `mutant`, which gives the n-th damaged file, always the same. What
does not: what the reader should make of them (test_reader_fuzz.py, benchmarks/reader_fuzz.py).
"""

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER = ("day_id", "but_num_business_unit", "dpt_num_department", "turnover")
STORES = (
    "but_num_business_unit,but_postcode,but_latitude,but_longitude,but_region_idr_region,zod_idr_zone_dgr"
)
INSERTS = (b"\0", b'"', b'""', b"\r", b"\n", b"\r\n", b",", b";", b"\t", b"\xff", b"\xc3", b"\xe2\x80\xa8")
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff")
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "cp500", "utf-7")
FIRST_SATURDAY = date(2015, 1, 3)
Damage = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Mutant:
    """A damaged file: the seed it came from, the names of the damages, in order, and its bytes."""

    seed: str
    damages: tuple[str, ...]
    content: bytes


# Seeds -------------------------------------------------------------------------------------------


def _rows(count: int = 60) -> list[tuple[date, int, int, float]]:
    return [
        (FIRST_SATURDAY + timedelta(weeks=i % 7), i // 7, 73 + 15 * (i % 3), i * 12.7 - 20)
        for i in range(count)
    ]


def _csv(delimiter: str = ",", end: str = "\n", quote: str = "") -> bytes:
    lines = [HEADER, *_rows()]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines).encode()


def _stores() -> bytes:
    return (
        STORES + "\n" + "".join(f'{i},"01{i:03} Évry",{40 + i / 9},{i},{i % 9},\n' for i in range(40))
    ).encode()


def _parquet(keys: pa.DataType, **options: Any) -> bytes:
    days, stores, departments, values = (list(column) for column in zip(*_rows(), strict=True))
    table = pa.table(
        [pa.array(days), pa.array(stores, keys), pa.array(departments, keys), pa.array(values)], list(HEADER)
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _odd_parquet() -> bytes:
    days, stores, departments, values = zip(*_rows(), strict=True)
    table = pa.table(
        [
            pa.array([datetime(day.year, day.month, day.day) for day in days], pa.timestamp("us", "UTC")),
            pa.array([str(store) for store in stores]).dictionary_encode(),
            pa.array([float(department) for department in departments]),
            pa.array([Decimal(str(round(value, 2))) for value in values], pa.decimal128(12, 2)),
            pa.array([[1, 2]] * len(days)),
        ],
        [*HEADER, "note"],
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=17)
    return sink.getvalue()


@cache
def seeds() -> Mapping[str, bytes]:
    """Valid files of each format, each accepted as it is."""
    text = _csv()
    return {
        "csv": text,
        "csv semicolons, CR LF": _csv(";", "\r\n"),
        "csv quoted, with BOM": b"\xef\xbb\xbf" + _csv(",", "\r\n", '"'),
        "csv CR": _csv(",", "\r"),
        "csv stores": _stores(),
        "gz": gzip.compress(text, mtime=0),
        "gz of two members": gzip.compress(text[:300], mtime=0) + gzip.compress(text[300:], mtime=0),
        "gz stored": gzip.compress(text, compresslevel=0, mtime=0),
        "parquet": _parquet(pa.int64()),
        "parquet with checksums": _parquet(
            pa.int32(), compression="none", use_dictionary=False, write_page_checksum=True
        ),
        "parquet text, gzip, v2": _parquet(pa.float64(), compression="gzip", data_page_version="2.0"),
        "parquet of odd types": _odd_parquet(),
    }


# Damages to any bytes ----------------------------------------------------------------------------


def _flip(content: bytes, dice: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 5, 30])):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, dice: Random) -> bytes:
    at, length = dice.randrange(len(content)), dice.choice([1, 4, 16, 100])
    fill = dice.choice([b"\0" * length, b"\xff" * length, dice.randbytes(length)])
    return content[:at] + fill + content[at + length :]


def _truncate(content: bytes, dice: Random) -> bytes:
    return content[: dice.randrange(len(content))]


def _behead(content: bytes, dice: Random) -> bytes:
    return content[dice.choice([1, 2, 3, 4, 8, dice.randrange(len(content))]) :]


def _insert(content: bytes, dice: Random) -> bytes:
    for _ in range(dice.choice([1, 1, 3])):
        at = dice.randrange(len(content) + 1)
        content = content[:at] + dice.choice([*INSERTS, *BOMS, dice.randbytes(8)]) + content[at:]
    return content


def _cut_out(content: bytes, dice: Random) -> bytes:
    at = dice.randrange(len(content))
    return content[:at] + content[at + dice.choice([1, 3, 50, 500]) :]


def _repeat(content: bytes, dice: Random) -> bytes:
    first, last = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return (
        content[:last]
        + content[first:last] * (20 if len(content) < 10_000 and dice.random() < 0.3 else 1)
        + content[last:]
    )


def _splice(content: bytes, dice: Random) -> bytes:
    other = dice.choice(list(seeds().values()))
    return content[: dice.randrange(len(content))] + other[dice.randrange(len(other)) :]


def _append(content: bytes, dice: Random) -> bytes:
    return content + dice.choice(
        [content, b"\0" * 512, b"\n\n \n", b"\x1a", dice.choice(list(seeds().values()))]
    )


def _compress(content: bytes, dice: Random) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


# Damages to text ---------------------------------------------------------------------------------


def _prefix_bom(content: bytes, dice: Random) -> bytes:
    return dice.choice(BOMS) + content


def _mix_line_ends(content: bytes, dice: Random) -> bytes:
    ends = (b"\n", b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xc2\x85")
    return b"".join(line + dice.choice(ends) for line in content.splitlines())


def _swap_delimiters(content: bytes, dice: Random) -> bytes:
    share, marks = dice.choice([0.02, 0.5, 1.0]), b",;\t|"
    return bytes(dice.choice(marks) if byte in b",;" and dice.random() < share else byte for byte in content)


def _open_quotes(content: bytes, dice: Random) -> bytes:
    places = [i for i, byte in enumerate(content) if byte in b",;\n"] or [0]
    for at in sorted(dice.sample(places, min(len(places), dice.choice([1, 2, 9]))), reverse=True):
        content = content[: at + 1] + b'"' + content[at + 1 :]
    return content


def _close_no_quotes(content: bytes, dice: Random) -> bytes:
    at = content.rfind(b'"', 0, dice.randrange(len(content)) + 1)
    return content[:at] + content[at + 1 :] if at >= 0 else content + b'"'


def _huge_field(content: bytes, dice: Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    filler = dice.choice([b"9", b"x", b",", b'"', b" ", b"\n"])
    return content[:at] + filler * dice.choice([5_000, 131_073, 1_100_000]) + content[at:]


def _double_header(content: bytes, dice: Random) -> bytes:
    header, rest = content.splitlines(keepends=True)[0], content.splitlines(keepends=True)[1:]
    names = header.rstrip(b"\r\n")
    twice = [
        header + header,
        names + b"," + names + b"\n",
        names + b"," + dice.choice(names.split(b",")) + b"\n",
    ]
    return dice.choice(twice) + b"".join(rest)


def _rename_header(content: bytes, dice: Random) -> bytes:
    name = dice.choice(HEADER).encode()
    return content.replace(
        name, dice.choice([name.upper(), b"", name[:-1], b" " + name + b"\t", "é".encode()]), 1
    )


def _recode(content: bytes, dice: Random) -> bytes:
    text = content.decode("utf-8", "replace").replace("day_id", dice.choice(["day_id", "day_id,été"]), 1)
    return text.encode(dice.choice(ENCODINGS), "replace")


def _shuffle_lines(content: bytes, dice: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    dice.shuffle(lines)
    return b"".join(lines)


# Damages to parquet ------------------------------------------------------------------------------


def _footer(content: bytes, dice: Random) -> bytes:
    """Bytes changed in the metadata only, where counts, sizes, offsets, types and names stand."""
    length = int.from_bytes(content[-8:-4], "little")
    start, changed = max(len(content) - 8 - length, 0), bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 6])):
        changed[dice.randrange(start, max(len(content) - 8, start + 1))] = dice.choice(
            [0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)]
        )
    return bytes(changed)


def _footer_length(content: bytes, dice: Random) -> bytes:
    length = dice.choice([0, 1, len(content), 2**31 - 1, 2**32 - 1, dice.randrange(2 * len(content))])
    return content[:-8] + length.to_bytes(4, "little") + content[-4:]


def _page_headers(content: bytes, dice: Random) -> bytes:
    """Bytes changed near the front, where the first page headers stand."""
    changed = bytearray(content)
    for _ in range(dice.choice([1, 2, 4])):
        changed[min(4 + dice.randrange(60), len(changed) - 1)] = dice.randrange(256)
    return bytes(changed)


ANY = (_flip, _overwrite, _truncate, _behead, _insert, _cut_out, _repeat, _splice, _append, _compress)
TEXT = (
    _prefix_bom,
    _mix_line_ends,
    _swap_delimiters,
    _open_quotes,
    _close_no_quotes,
    _huge_field,
    _double_header,
    _rename_header,
    _recode,
    _shuffle_lines,
)
PARQUET = (_footer, _footer, _footer_length, _page_headers)


def mutant(number: int) -> Mutant:
    """The damaged file of a number: a seed with one to three damages, the same at every call.

    A gzip file is damaged inside or outside, each half of the time.
    """
    dice = Random(number)
    name, content = dice.choice(list(seeds().items()))
    inside = name.startswith("gz") and dice.random() < 0.5
    if inside:
        content = gzip.decompress(content)
    own: tuple[Damage, ...] = TEXT if inside or name.startswith("csv") else ()
    if name.startswith("parquet"):
        own = PARQUET
    damages = []
    for _ in range(dice.choice([1, 1, 2, 3])):
        damage = dice.choice(own if own and dice.random() < 0.6 else ANY)
        content = damage(content or b"\n", dice)
        damages.append(damage.__name__.strip("_"))
    return Mutant(name, tuple(damages), gzip.compress(content, 1, mtime=0) if inside else content)
