"""A test of champion and challenger: which series of which caller are answered by whom."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.api_keys import SCOPES
from turnover_assets.serving.access import Caller
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.roles import ROLE_HEADER, answering, challengers, role_table
from turnover_assets.serving.view import View
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import client_of
from turnover_assets_tests.factories import default_history, default_panel
from turnover_assets_tests.what_if_factories import Published, history_of, publish_panel, serve_panel

PANEL = default_panel()
KEYS = list(PANEL.keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_panel(tmp_path_factory.mktemp("made"), PANEL, default_history())


@pytest.fixture(scope="module")
def home(made: Published, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("home")
    serve_panel(folder, made)
    return load_settings(home=folder, api_rate="unlimited")


@pytest.fixture(scope="module")
def view(home: Settings, made: Published) -> Iterator[View]:
    found = View(current(home.published_path), PANEL)
    yield found
    found.close()


def caller(share: float | None, name: str = "a key") -> Caller:
    return Caller(name, name, frozenset(SCOPES), None, share)


def rows_of(view: View, role: str | None, asking: Caller | None) -> pd.DataFrame:
    found = answering(view, role, asking)
    return view.arrow(
        f"SELECT * FROM ({found.sql}) ORDER BY {', '.join(KEYS)}, horizon", found.values
    ).to_pandas()


def roles_by_series(rows: pd.DataFrame) -> dict[tuple[int, ...], str]:
    assert (rows.groupby(KEYS)["role"].nunique() == 1).all()
    return rows.groupby(KEYS)["role"].first().to_dict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("role", ["champion", "challenger", "baseline"])
def test_a_role_is_asked_for_by_name(view: View, made: Published, role: str) -> None:
    found = role_table(view, role)

    table = view.arrow(found.sql, found.values).to_pandas()

    expected = history_of(made).query("role == @role")
    assert sorted(table["forecast"]) == sorted(expected["forecast"])
    assert set(table["role"]) == {role}


def test_a_role_that_has_not_forecast_is_told(made: Published) -> None:
    view = View(made.snapshot, PANEL)  # which has no history of forecasts

    with pytest.raises(Problem, match="challenger has no forecasts") as caught:
        role_table(view, "challenger")

    assert caught.value.status == 404
    assert set(rows_of(view, None, caller(1.0))["role"]) == {"champion"}
    view.close()


@settings(max_examples=25)
@given(
    share=st.floats(0.0, 1.0),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)
def test_every_series_is_answered_once_by_one_role_and_again_by_the_same(
    view: View, share: float, name: str
) -> None:
    first, again = (rows_of(view, None, caller(share, name)) for _ in range(2))

    pd.testing.assert_frame_equal(first, again)
    assert len(first) == len(rows_of(view, "champion", None))
    assert not first.duplicated([*KEYS, "horizon"]).any()
    roles_by_series(first)


def test_more_of_a_share_never_takes_a_series_from_the_challenger(view: View) -> None:
    shares = [0.0, 0.2, 0.5, 0.8, 1.0]

    theirs = [
        {
            series
            for series, role in roles_by_series(rows_of(view, None, caller(share))).items()
            if role == "challenger"
        }
        for share in shares
    ]

    assert theirs[0] == set()
    assert all(less <= more for less, more in pairwise(theirs))
    whole = roles_by_series(rows_of(view, None, caller(1.0)))
    assert list(whole.values()).count("champion") == 1  # the series that the challenger has not forecast


def test_a_share_is_about_that_share_of_many_series(view: View) -> None:
    hit, values = challengers(PANEL, caller(0.3))

    found = view.arrow(
        f"SELECT avg(CAST({hit} AS INTEGER)) AS share FROM "
        "(SELECT i % 997 AS store, i // 997 AS department FROM range(20000) AS t(i))",
        values,
    )

    assert found["share"][0].as_py() == pytest.approx(0.3, abs=0.02)


# Over HTTP ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(home: Settings) -> dict[str, str]:
    store, now = KeyStore(home.keys_path), datetime.now(UTC)
    shares = {"none": None, "half": 0.5, "all": 1.0}
    found = {name: store.create(name, ["read"], now, ab_share=share).secret for name, share in shares.items()}
    with client_of(home) as client:  # of so few series, half may by chance be none or all
        while get(client, "/v1/forecasts", found["half"]).headers[ROLE_HEADER] != "mixed":
            found["half"] = store.create(uuid4().hex, ["read"], now, ab_share=0.5).secret
    return found


@pytest.fixture(scope="module")
def client(home: Settings, keys: dict[str, str]) -> Iterator[TestClient]:
    with client_of(home) as found:
        yield found


def get(client: TestClient, address: str, key: str, **headers: str) -> Any:
    return client.get(address, headers={"X-API-Key": key, **headers})


def test_without_a_share_the_champion_answers(client: TestClient, keys: dict[str, str]) -> None:
    answer = get(client, "/v1/forecasts", keys["none"])

    assert answer.headers[ROLE_HEADER] == "champion"
    assert {row["role"] for row in answer.json()["data"]} == {"champion"}


def test_a_share_is_answered_by_the_challenger_the_same_way_everywhere(
    client: TestClient, keys: dict[str, str], home: Settings
) -> None:
    answer = get(client, "/v1/forecasts", keys["half"])
    of_series = {(row["store"], row["department"]): row["role"] for row in answer.json()["data"]}

    assert answer.headers[ROLE_HEADER] == "mixed"
    for (store, department), role in of_series.items():
        one = get(client, f"/v1/forecasts?store={store}&department={department}", keys["half"])
        assert one.headers[ROLE_HEADER] == role
        assert {row["model_version"] for row in one.json()["data"]} == {2 if role == "challenger" else 1}
    instances = [{"store": store, "department": department} for store, department in of_series]
    invoked = client.post("/invocations", json={"instances": instances}, headers={"X-API-Key": keys["half"]})
    assert invoked.headers[ROLE_HEADER] == "mixed"
    found = {(row["store"], row["department"]): row["role"] for row in invoked.json()["predictions"]}
    assert found == of_series


def test_who_asks_for_a_role_or_a_cutoff_is_in_no_test(
    client: TestClient, keys: dict[str, str], made: Published
) -> None:
    named = get(client, "/v1/forecasts?role=champion", keys["all"])
    dated = get(client, f"/v1/forecasts?cutoff={made.snapshot.facts['cutoff']}", keys["all"])

    assert named.headers[ROLE_HEADER] == dated.headers[ROLE_HEADER] == "champion"


def test_a_cache_does_not_take_one_answer_for_the_other(client: TestClient, keys: dict[str, str]) -> None:
    address = "/v1/forecasts?store=2&department=73"
    mine = get(client, address, keys["none"])

    again = get(client, address, keys["none"], **{"If-None-Match": mine.headers["etag"]})
    theirs = get(client, address, keys["all"], **{"If-None-Match": mine.headers["etag"]})

    assert again.status_code == 304
    assert theirs.status_code == 200
    assert theirs.headers[ROLE_HEADER] == "challenger"


def test_pages_of_a_test_are_parts_of_one_answer(client: TestClient, keys: dict[str, str]) -> None:
    whole = get(client, "/v1/forecasts", keys["half"]).json()["data"]

    parts, address = [], "/v1/forecasts?limit=7"
    while address:
        page = get(client, address, keys["half"]).json()
        parts += page["data"]
        address = page["next"]

    assert parts == whole


def test_the_audit_says_who_answered(home: Settings, keys: dict[str, str]) -> None:
    with client_of(home) as client:
        get(client, "/v1/forecasts?store=2&department=73&horizon=1", keys["all"])

    rows = pd.concat([pd.read_parquet(path) for path in home.audit_path.rglob("*.parquet")])
    row = rows[rows["query"] == "store=2&department=73&horizon=1"].iloc[-1]
    history = current(home.published_path).read("forecast_history")
    versions = {role: set(rows["model_version"]) for role, rows in history.groupby("role")}
    assert row["role"] == "challenger"
    assert row["model_version"] in versions["challenger"] - versions["champion"]
