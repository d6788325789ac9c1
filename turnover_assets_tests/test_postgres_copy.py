"""The copy in Postgres: one snapshot at any moment, right types, and what others made on it stays."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psycopg2
import pytest
from pydantic import SecretStr

from turnover_assets.core.published_keys import published_keys
from turnover_assets.errors import PostgresCopyError
from turnover_assets.storage import snapshots
from turnover_assets.storage.postgres_copy import Database, Parts
from turnover_assets.storage.postgres_tables import short_name
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.factories import Landed, free_port
from turnover_assets_tests.servers import PostgresServer, connected
from turnover_assets_tests.waiting import wait_until

KEYS = {"forecasts": ("store", "horizon"), "stores": ("store",)}
ROWS = 2000
Publish = Callable[..., Snapshot]

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database of one's own."""
    name = f"test_{uuid4().hex[:12]}"
    with connected(postgres.url("postgres")) as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    with connected(postgres.url("postgres")) as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def publish(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> Publish:
    """Publishes snapshots; queries are by table."""

    def work(**queries: str) -> Snapshot:
        facts = {"cutoff": "2024-06-29", "model": {"version": 3}, "panel": "shops"}
        return snapshots.publish(con, tmp_path / "published", queries, facts)

    return work


def numbered(publish: Publish, number: int, rows: int = ROWS) -> Snapshot:
    """A snapshot each of whose rows has its number; the more it has, the more rows there are."""
    return publish(
        forecasts=f"SELECT i AS store, 1 AS horizon, {number} AS number FROM range({rows + number}) AS t(i)",
        stores=f"SELECT i AS store, {number} AS number FROM range({rows + number}) AS t(i)",
    )


def database(url: str, schema: str = "turnover") -> Database:
    return Database(SecretStr(url), schema)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with connected(url) as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


# What is copied ----------------------------------------------------------------------------------


def test_every_published_table_of_a_home_is_copied_whole(landed: Landed, url: str) -> None:
    assert landed.outcome.snapshot is not None
    snapshot = snapshots.current(landed.settings.published_path)

    done = database(url).copy(snapshot, published_keys(landed.settings.panel_spec))

    counted = {
        name: rows(url, f'SELECT count(*) FROM turnover."{name}"')[0][0] for name in snapshot.facts["tables"]
    }
    assert counted == done.tables == {name: t["rows"] for name, t in snapshot.facts["tables"].items()}
    with duckdb.connect() as con:
        for name in ("forecasts", "turnover", "explanations", "files"):
            expected = con.execute(f"SELECT * FROM '{snapshot.path(name)}'").fetchall()
            found = rows(url, f'SELECT * FROM turnover."{name}"')
            assert sorted(map(repr, map(_same_zone, found))) == sorted(map(repr, map(_same_zone, expected)))


def _same_zone(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.timestamp() if hasattr(value, "timestamp") else value for value in row)


def test_the_keys_of_published_tables_are_keys(landed: Landed, plain: Landed) -> None:
    for home in (landed, plain):
        snapshot = snapshots.current(home.settings.published_path)
        keys = published_keys(home.settings.panel_spec)
        with duckdb.connect() as con:
            for name in {*keys} & {*snapshot.facts["tables"]}:
                columns = ", ".join(f'"{column}"' for column in keys[name])
                missing = " OR ".join(f'"{column}" IS NULL' for column in keys[name])
                found = con.execute(
                    f"SELECT count(*), count(DISTINCT ({columns})), count(*) FILTER (WHERE {missing}) "
                    f"FROM '{snapshot.path(name)}'"
                ).fetchall()[0]
                assert found == (found[0], found[0], 0), name


VALUES = {
    "whole numbers": ("i", "bigint", "SELECT 9007199254740993::BIGINT AS v UNION ALL SELECT -1"),
    "small ones": ("s", "bigint", "SELECT 7::TINYINT AS v"),
    "unsigned": ("u", "numeric", "SELECT 18446744073709551615::UBIGINT AS v"),
    "doubles": (
        "d",
        "double precision",
        "SELECT unnest([0.1, 1e-300, 'nan', 'inf', '-inf', NULL, 1.7976931348623157e308]::DOUBLE[]) AS v",
    ),
    "decimals": ("n", "numeric(20,4)", "SELECT 1234567890123456.7891::DECIMAL(20, 4) AS v"),
    "truths": ("b", "boolean", "SELECT unnest([true, false, NULL]) AS v"),
    "dates": ("t", "date", "SELECT unnest([DATE '2024-02-29', DATE '0001-01-01', NULL]) AS v"),
    "moments": (
        "z",
        "timestamp with time zone",
        "SELECT TIMESTAMPTZ '2024-03-31 02:30:00.123456+02' AS v UNION ALL SELECT NULL",
    ),
    "local moments": (
        "l",
        "timestamp without time zone",
        "SELECT TIMESTAMP '2024-03-31 02:30:00.123456' AS v",
    ),
}


@pytest.mark.parametrize(("name", "kind", "query"), VALUES.values(), ids=VALUES.keys())
def test_values_come_back_as_they_were(url: str, publish: Publish, name: str, kind: str, query: str) -> None:
    snapshot = publish(things=query)

    database(url).copy(snapshot, {})

    with duckdb.connect() as con:
        expected = con.execute(f"SELECT * FROM '{snapshot.path('things')}'").fetchall()
    found = rows(url, "SELECT v FROM turnover.things")
    assert sorted(map(_shown, found)) == sorted(map(_shown, expected))
    typed = (
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'turnover.things'::regclass AND attname = 'v'"
    )
    assert rows(url, typed) == [(kind,)]


def _shown(row: tuple[Any, ...]) -> str:
    return repr(_same_zone(tuple(Decimal(v) if isinstance(v, int) and v > 2**63 else v for v in row)))


TEXTS = [
    "",
    "a,b",
    'say "so"',
    "two\nlines",
    "\\.",
    "\\N",
    "NULL",
    "null",
    "Ça, là",
    "€ 🛒",
    " x ",
    "\r\n",
    ";",
]


def test_texts_come_back_as_they_were(url: str, con: duckdb.DuckDBPyConnection, publish: Publish) -> None:
    con.execute("CREATE TABLE texts (no INTEGER, v VARCHAR)")
    for number, text in enumerate([*TEXTS, None, "a\0b"]):
        con.execute("INSERT INTO texts VALUES (?, ?)", [number, text])

    database(url).copy(publish(texts="SELECT v, no FROM texts"), {"texts": ("no",)})

    found = [v for (v,) in rows(url, "SELECT v FROM turnover.texts ORDER BY no")]
    assert found == [*TEXTS, None, "a\ufffdb"]


def test_the_copy_says_what_it_is(url: str, publish: Publish) -> None:
    snapshot = numbered(publish, 1)

    database(url).copy(snapshot, KEYS)

    told = rows(
        url, "SELECT id, cutoff::text, model_version, panel, tables->'stores'->>'rows' FROM turnover.snapshot"
    )
    assert told == [(snapshot.name, "2024-06-29", 3, "shops", str(ROWS + 1))]
    assert database(url).current() == snapshot.name


def test_a_snapshot_is_copied_once_and_only_what_changed(url: str, publish: Publish) -> None:
    first = publish(same="SELECT 1 AS a", other="SELECT 1 AS a")
    second = publish(same="SELECT 1 AS a", other="SELECT 2 AS a")

    done = [database(url).copy(each, {}).tables for each in (first, first, second)]

    assert done == [{"same": 1, "other": 1}, {}, {"other": 1}]
    assert rows(url, "SELECT same.a, other.a FROM turnover.same, turnover.other") == [(1, 2)]


def test_tables_have_their_keys_and_figures_for_the_planner(url: str, publish: Publish) -> None:
    database(url).copy(numbered(publish, 1), KEYS)

    keys = rows(
        url,
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p'",
    )
    assert ("turnover.forecasts", "PRIMARY KEY (store, horizon)") in keys
    assert rows(url, "SELECT reltuples FROM pg_class WHERE oid = 'turnover.stores'::regclass") == [
        (ROWS + 1,)
    ]


def test_another_schema_is_another_copy(url: str, publish: Publish) -> None:
    for number, schema in ((1, "turnover"), (2, "second")):
        database(url, schema).copy(numbered(publish, number), KEYS)

    for number, schema in ((1, "turnover"), (2, "second")):
        assert rows(url, f"SELECT DISTINCT number FROM {schema}.stores") == [(number,)]


def test_long_names_are_cut_but_stay_apart() -> None:
    long = "a" * 70

    assert short_name("forecasts") == "forecasts"
    assert len({short_name(long), short_name(long + "b"), short_name("é" * 40)}) == 3
    assert max(len(short_name(name).encode()) for name in (long, "é" * 40)) <= 63


# One snapshot at any moment ----------------------------------------------------------------------


ONE_ROW = """
SELECT (SELECT id FROM turnover.snapshot),
    (SELECT array_agg(DISTINCT number) || count(*) FROM turnover.forecasts),
    (SELECT array_agg(DISTINCT number) || count(*) FROM turnover.stores)
"""
STEPS = [
    "SELECT id FROM turnover.snapshot",
    "SELECT array_agg(DISTINCT number) || count(*) FROM turnover.forecasts",
    "SELECT array_agg(DISTINCT number) || count(*) FROM turnover.stores",
]


def read_in_steps(url: str, over: threading.Event) -> Iterator[tuple[Any, ...]]:
    """Read table after table in one transaction, again and again."""
    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        while not over.is_set():
            with connection, connection.cursor() as cursor:
                found: list[Any] = []
                for step in STEPS:
                    cursor.execute(step)
                    found += cursor.fetchone()
                    time.sleep(0.01)  # for the copy to go on meanwhile
                yield tuple(found)


def read_at_once(url: str, over: threading.Event) -> Iterator[tuple[Any, ...]]:
    """Read everything in one statement, again and again."""
    with connected(url) as cursor:
        while not over.is_set():
            cursor.execute(ONE_ROW)
            yield cursor.fetchone()


def test_a_reader_never_sees_a_mix_nor_fails(url: str, publish: Publish) -> None:
    made = {number: numbered(publish, number) for number in (1, 2, 3, 4)}
    database(url).copy(made[1], KEYS)
    over = threading.Event()

    def all_of(read: Callable[..., Iterator[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        return list(read(url, over))

    with ThreadPoolExecutor() as pool:
        reading = [pool.submit(all_of, read) for read in (read_in_steps, read_in_steps, read_at_once)]
        for number in (2, 3, 4, 1) * 3:
            database(url).copy(made[number], KEYS)
        over.set()
        seen = {repr(row) for each in reading for row in each.result()}

    allowed = {
        repr((each.name, [number, ROWS + number], [number, ROWS + number])) for number, each in made.items()
    }
    assert seen <= allowed
    assert len(seen) > 1


def test_who_began_to_read_before_goes_on_to_see_what_was_there(url: str, publish: Publish) -> None:
    database(url).copy(numbered(publish, 1), KEYS)

    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            database(url).copy(numbered(publish, 2), KEYS)
            cursor.execute("SELECT count(*), max(number) FROM turnover.stores")
            assert cursor.fetchone() == (ROWS + 1, 1)


KILLED = """
import sys
from pathlib import Path
from pydantic import SecretStr
from turnover_assets.storage.postgres_copy import Database
from turnover_assets.storage.snapshots import current
print("copying", flush=True)
Database(SecretStr(sys.argv[1]), "turnover").copy(current(Path(sys.argv[2])), {})
"""


def test_a_killed_copy_leaves_the_old(url: str, publish: Publish, tmp_path: Path) -> None:
    old = numbered(publish, 1)
    database(url).copy(old, KEYS)
    new = numbered(publish, 2)

    with connected(url, autocommit=False) as holder:
        holder.execute("LOCK TABLE turnover.stores IN SHARE MODE")  # the copy waits there
        command = [sys.executable, "-c", KILLED, url, str(tmp_path / "published")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        wait_until(lambda: bool(rows(url, "SELECT 1 FROM pg_locks WHERE NOT granted")))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until(
        lambda: not rows(url, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'turnover-assets'")
    )

    assert database(url).current() == old.name
    assert rows(url, "SELECT count(*), max(number) FROM turnover.forecasts") == [(ROWS + 1, 1)]
    database(url).copy(new, KEYS)
    assert rows(url, "SELECT count(*), max(number) FROM turnover.forecasts") == [(ROWS + 2, 2)]


def test_two_copies_at_once_are_made_one_after_the_other(url: str, publish: Publish) -> None:
    made = [numbered(publish, number) for number in (1, 2)]
    problems: list[object] = []

    def work(each: Snapshot) -> None:
        try:
            database(url).copy(each, KEYS)
        except PostgresCopyError as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=[each]) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    last = database(url).current()
    number = 1 + [each.name for each in made].index(str(last))
    assert rows(url, "SELECT DISTINCT f.number, s.number FROM turnover.forecasts f, turnover.stores s") == [
        (number, number)
    ]


# What others made --------------------------------------------------------------------------------


def test_grants_and_views_of_others_stay(url: str, publish: Publish, postgres: PostgresServer) -> None:
    database(url).copy(numbered(publish, 1), KEYS)
    other = f"reader_{uuid4().hex[:8]}"
    theirs = postgres.url(url.rpartition("/")[2], other, "theirs")
    with connected(url) as cursor:
        cursor.execute(f"CREATE ROLE {other} LOGIN PASSWORD 'theirs'")
        cursor.execute(f"CREATE SCHEMA {other} AUTHORIZATION {other}")
        cursor.execute(f"GRANT USAGE ON SCHEMA turnover TO {other}")
        cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA turnover TO {other}")
        cursor.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA turnover GRANT SELECT ON TABLES TO {other}")
    with connected(theirs) as cursor:
        cursor.execute(f"CREATE VIEW {other}.newest AS SELECT max(number) AS number FROM turnover.stores")

    database(url).copy(
        publish(
            stores="SELECT 1 AS store, 2 AS number, 'new' AS added",
            fresh="SELECT 1 AS a",
            forecasts="SELECT 1 AS store",
        ),
        {"stores": ("store",)},
    )

    assert rows(theirs, f"SELECT number FROM {other}.newest") == [(2,)]
    assert rows(theirs, "SELECT added FROM turnover.stores") == [("new",)]
    assert rows(theirs, "SELECT a FROM turnover.fresh") == [(1,)]
    with connected(url) as cursor:
        cursor.execute(f"DROP OWNED BY {other} CASCADE")
        cursor.execute(f"DROP ROLE {other}")


def test_columns_and_tables_that_are_no_more_stay_empty(url: str, publish: Publish) -> None:
    database(url).copy(publish(a="SELECT 1 AS k, 2 AS gone", b="SELECT 1 AS x"), {"a": ("k", "gone")})
    with connected(url) as cursor:
        cursor.execute("CREATE VIEW theirs AS SELECT gone FROM turnover.a UNION ALL SELECT x FROM turnover.b")

    done = database(url).copy(publish(a="SELECT 5 AS k"), {"a": ("k",)})

    assert done.tables == {"a": 1, "b": 0}
    assert rows(url, "SELECT k, gone FROM turnover.a") == [(5, None)]
    assert rows(url, "SELECT * FROM theirs") == [(None,)]
    assert database(url).copy(publish(a="SELECT 6 AS k"), {"a": ("k",)}).tables == {"a": 1}


CHANGES: Mapping[str, tuple[str, str, str, str]] = {
    "null of no type to text": ("NULL::INTEGER", "'x'", "text", "x"),
    "text to null of no type": ("'x'", "NULL::INTEGER", "text", "None"),
    "text to number": ("'x'", "5", "text", "5"),
    "whole number to double": ("5", "0.5::DOUBLE", "double precision", "0.5"),
    "double to whole number": ("0.5::DOUBLE", "5", "double precision", "5.0"),
    "date to moment": (
        "DATE '2024-01-01'",
        "TIMESTAMP '2024-01-01 01:00:00'",
        "timestamp without time zone",
        "2024-01-01 01:00:00",
    ),
    "number to date": ("5", "DATE '2024-01-01'", "date", "2024-01-01"),
}


@pytest.mark.parametrize(("old", "new", "kind", "value"), CHANGES.values(), ids=CHANGES.keys())
def test_a_column_takes_another_type_where_it_must(
    url: str, publish: Publish, old: str, new: str, kind: str, value: str
) -> None:
    database(url).copy(publish(a=f"SELECT 1 AS k, {old} AS v"), {"a": ("k",)})

    database(url).copy(publish(a=f"SELECT 1 AS k, {new} AS v"), {"a": ("k",)})

    assert [str(v) for (v,) in rows(url, "SELECT v FROM turnover.a")] == [value]
    assert rows(url, "SELECT pg_typeof(v)::text FROM turnover.a") == [(kind,)]


def test_a_view_on_a_column_that_must_change_is_told_and_all_stays(url: str, publish: Publish) -> None:
    old = publish(a="SELECT 1 AS v")
    database(url).copy(old, {})
    with connected(url) as cursor:
        cursor.execute("CREATE VIEW theirs AS SELECT v FROM turnover.a")

    with pytest.raises(PostgresCopyError, match=r"used by a view.*drop the view"):
        database(url).copy(publish(a="SELECT 'x' AS v"), {})

    assert database(url).current() == old.name
    assert rows(url, "SELECT v FROM theirs") == [(1,)]


# What goes wrong ---------------------------------------------------------------------------------


def test_a_user_that_may_not_make_a_schema_is_told_what_it_lacks(
    url: str, publish: Publish, postgres: PostgresServer
) -> None:
    user = f"writer_{uuid4().hex[:8]}"
    with connected(url) as cursor:
        cursor.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'theirs'")
    theirs = postgres.url(url.rpartition("/")[2], user, "theirs")

    with pytest.raises(PostgresCopyError, match=r"permission denied for database.*GRANT CREATE ON DATABASE"):
        database(theirs).copy(numbered(publish, 1), KEYS)
    with connected(url) as cursor:
        cursor.execute(f"CREATE SCHEMA turnover AUTHORIZATION {user}")

    assert database(theirs).copy(numbered(publish, 1), KEYS).tables["stores"] == ROWS + 1
    with connected(url) as cursor:
        cursor.execute(f"DROP OWNED BY {user} CASCADE")
        cursor.execute(f"DROP ROLE {user}")


SECRET = "sEcr/et@1?:x"


@pytest.mark.parametrize(
    "make", ["wrong password", "closed port", "unknown host", "not quoted", "as an option"]
)
def test_no_message_has_the_password(postgres: PostgresServer, make: str) -> None:
    quoted, port = "sEcr%2Fet%401%3F%3Ax", postgres.port
    url = {
        "wrong password": f"postgresql://admin:{quoted}@127.0.0.1:{port}/postgres",
        "closed port": f"postgresql://admin:{quoted}@127.0.0.1:{free_port()}/postgres?connect_timeout=2",
        "unknown host": f"postgresql://admin:{quoted}@no-such-host.invalid/postgres",
        "not quoted": f"postgresql://admin:{SECRET}@127.0.0.1:{port}/postgres",
        "as an option": f"postgres://127.0.0.1:{port}/postgres?user=admin&password={quoted}",
    }[make]

    with pytest.raises(PostgresCopyError) as caught:
        database(url).current()

    told = f"{caught.value} {caught.value.__cause__!r} {database(url)!r}"
    assert "sEcr" not in told
    assert "et@1" not in told
    assert "TURNOVER_POSTGRES_URL" in told


def test_an_address_is_taken_apart() -> None:
    parts = Parts.of("postgresql://me:p%40ss@h1:5432,h2:5433/db?sslmode=require&connect_timeout=3")

    assert (parts.servers, parts.database) == ("h1:5432,h2:5433", "db")
    assert parts.secrets == {"password": "p@ss"}
    assert parts.address == (
        "postgresql://me@h1:5432,h2:5433/db?connect_timeout=3&application_name=turnover-assets&sslmode=require"
    )
    assert Parts.of("postgresql://h/db").address.startswith("postgresql://h/db?")
    assert Parts.of("postgresql://me@h").address.startswith("postgresql://me@h?")


def test_a_published_table_of_the_copys_own_name_is_refused(url: str, publish: Publish) -> None:
    with pytest.raises(PostgresCopyError, match="a published table is named 'snapshot' too"):
        database(url).copy(publish(snapshot="SELECT 1 AS a"), {})


def test_room_of_replaced_rows_is_used_again(url: str, publish: Publish) -> None:
    sizes = []
    for number in range(1, 9):
        database(url).copy(numbered(publish, number), KEYS)
        sizes.append(rows(url, "SELECT pg_relation_size('turnover.forecasts')")[0][0])

    assert sizes[-1] <= 2.5 * sizes[0]
