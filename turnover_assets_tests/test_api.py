"""What the API answers, held against the published Parquet files read with pandas."""

import io
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from turnover_assets.core import metrics
from turnover_assets.core.forecast_history import ROLES
from turnover_assets.serving.formats import json_rows, without_nan
from turnover_assets.serving.routes.forecasts import Role
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.api_factories import AS_OF_BACK, WEEKS_BACK, client_of

PATHS = ("forecasts", "history", "accuracy", "aggregates", "explanations", "series", "models")
BOUNDS = ["lower_80", "upper_80", "lower_95", "upper_95"]


@pytest.fixture(scope="module")
def snapshot(served_home: Settings) -> Snapshot:
    return current(served_home.published_path)


@pytest.fixture(scope="module")
def client(served_home: Settings) -> Iterator[TestClient]:
    with client_of(served_home) as found:
        yield found


def rows(client: TestClient, address: str) -> list[dict[str, Any]]:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame as an answer shows it: dates in ISO form, nothing for NaN."""
    dated = frame.assign(
        **{name: frame[name].astype(str) for name in frame if isinstance(frame[name].iloc[0], pd.Timestamp)}
    )
    dated = dated.assign(
        **{name: [str(v) for v in frame[name]] for name in frame if hasattr(frame[name].iloc[0], "isoformat")}
    )
    return [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in dated.to_dict("records")
    ]


def cutoff_back(snapshot: Snapshot, weeks: int) -> str:
    return str((pd.Timestamp(snapshot.facts["cutoff"]) - pd.Timedelta(weeks=weeks)).date())


def one_series(snapshot: Snapshot) -> dict[str, int]:
    first = snapshot.read("forecasts").iloc[0]
    return {"store": int(first["store"]), "department": int(first["department"])}


HERE = "store == @store & department == @department"


def of_series(snapshot: Snapshot, table: str, series: dict[str, int]) -> pd.DataFrame:
    return snapshot.read(table).query(HERE, local_dict=series)


def query(**values: Any) -> str:
    return "&".join(f"{name}={value}" for name, value in values.items())


# Rows ----------------------------------------------------------------------------------------------------


def test_forecasts_of_a_series_are_those_published(client: TestClient, snapshot: Snapshot) -> None:
    series = one_series(snapshot)
    frame = snapshot.read("forecasts").query(
        "store == @series['store'] & department == @series['department']"
    )

    found = rows(client, f"/v1/forecasts?{query(**series)}")

    assert found == as_rows(frame.assign(role="champion", origin="published"))
    assert len(found) == 8


def test_forecasts_are_selected_by_several_members_horizon_and_period(
    client: TestClient, snapshot: Snapshot
) -> None:
    frame = snapshot.read("forecasts")
    stores = sorted(frame["store"].unique())[:2]
    weeks = sorted(frame["week"].unique())
    expected = frame[frame["store"].isin(stores) & frame["week"].between(weeks[2], weeks[4])]

    address = f"/v1/forecasts?store={stores[0]}&store={stores[1]}&from={weeks[2]}&to={weeks[4]}"

    assert rows(client, address) == as_rows(expected.assign(role="champion", origin="published"))
    only = rows(client, f"{address}&horizon=4")
    assert only == as_rows(expected[expected["horizon"] == 4].assign(role="champion", origin="published"))


@pytest.mark.parametrize("attribute", ["region", "zone", "postcode"])
def test_forecasts_are_selected_by_attributes(client: TestClient, snapshot: Snapshot, attribute: str) -> None:
    stores = snapshot.read("stores")
    member = stores[attribute].iloc[0]
    frame = snapshot.read("forecasts")
    expected = frame[frame["store"].isin(stores.loc[stores[attribute] == member, "store"])]

    found = rows(client, f"/v1/forecasts?{attribute}={member}")

    assert found == as_rows(expected.assign(role="champion", origin="published"))
    assert found


@pytest.mark.parametrize("back", WEEKS_BACK)
@pytest.mark.parametrize("role", ["champion", "challenger", "baseline"])
def test_forecasts_of_older_cutoffs_are_those_kept(
    client: TestClient, snapshot: Snapshot, back: int, role: str
) -> None:
    cutoff = cutoff_back(snapshot, back)
    history = snapshot.read("forecast_history")
    kept = history[(history["cutoff"].astype(str) == cutoff) & (history["role"] == role)]
    kept = kept.sort_values(["store", "department", "horizon"]).drop(columns=["role", "made_at"])

    found = rows(client, f"/v1/forecasts?cutoff={cutoff}&role={role}")

    assert found == as_rows(kept.assign(role=role, origin="published"))
    assert len(found) == len(snapshot.read("forecasts"))


def test_forecasts_made_afterwards_stand_in_where_none_were_published(
    client: TestClient, snapshot: Snapshot
) -> None:
    cutoff = cutoff_back(snapshot, AS_OF_BACK)
    made = snapshot.read("forecasts_as_of").sort_values(["store", "department", "horizon"])

    found = rows(client, f"/v1/forecasts?cutoff={cutoff}")

    assert [row["forecast"] for row in found] == list(made["forecast"])
    assert {(row["origin"], row["model_version"]) for row in found} == {("as of", None)}


def test_the_newest_cutoff_may_be_named(client: TestClient, snapshot: Snapshot) -> None:
    named = client.get(f"/v1/forecasts?cutoff={snapshot.facts['cutoff']}&role=champion")

    assert named.json()["data"] == client.get("/v1/forecasts").json()["data"]


def test_history_has_reported_and_adjusted_values(client: TestClient, snapshot: Snapshot) -> None:
    series, frame = one_series(snapshot), snapshot.read("turnover")
    adjusted = frame[frame["adjustment_id"].notna()]
    assert len(adjusted)

    found = rows(client, f"/v1/history?{query(**series)}")
    mended = rows(client, f"/v1/history?store={adjusted['store'].iloc[0]}")

    assert found == as_rows(of_series(snapshot, "turnover", series))
    assert any(row["turnover"] != row["turnover_adjusted"] and row["adjustment_id"] for row in mended)


def test_history_is_selected_by_period(client: TestClient, snapshot: Snapshot) -> None:
    frame = snapshot.read("turnover")
    weeks = sorted(frame["week"].unique())

    found = rows(client, f"/v1/history?from={weeks[-3]}&to={weeks[-2]}")

    assert found == as_rows(frame[frame["week"].between(weeks[-3], weeks[-2])])


def test_aggregates_have_their_own_bounds(client: TestClient, snapshot: Snapshot) -> None:
    frame = snapshot.read("aggregates")
    member = frame.loc[frame["level"] == "region", "member"].iloc[0]

    found = rows(client, f"/v1/aggregates?level=region&member={member}")

    expected = frame[(frame["level"] == "region") & (frame["member"] == member)]
    assert found == as_rows(expected)
    assert len(found) == 8


def test_explanations_add_up_to_the_forecast(client: TestClient, snapshot: Snapshot) -> None:
    series = one_series(snapshot)

    found = rows(client, f"/v1/explanations?{query(**series)}")

    assert found == as_rows(of_series(snapshot, "explanations", series))
    for row in found:
        effects = sum(value or 0 for name, value in row.items() if name.startswith("effect_"))
        assert row["reference"] + effects == pytest.approx(row["forecast"])


def test_series_are_listed_with_attributes_and_periods(client: TestClient, snapshot: Snapshot) -> None:
    turnover, forecasts = snapshot.read("turnover"), snapshot.read("forecasts")
    weeks = turnover.groupby(["store", "department"])["week"]
    expected = weeks.agg(first_week="min", last_week="max", periods_reported="count").reset_index()
    expected = expected.merge(snapshot.read("stores"), on="store", how="left")
    forecast = set(forecasts.groupby(["store", "department"]).groups)
    pairs = zip(expected["store"], expected["department"], strict=True)
    expected["is_forecast"] = [pair in forecast for pair in pairs]

    found = rows(client, "/v1/series")

    assert found == [{name: row[name] for name in found[0]} for row in as_rows(expected)]
    assert rows(client, "/v1/series?is_forecast=true") == [row for row in found if row["is_forecast"]]
    assert rows(client, "/v1/series?is_forecast=false") == [row for row in found if not row["is_forecast"]]


def test_a_series_that_is_left_out_is_not_said_to_be_unknown(client: TestClient, snapshot: Snapshot) -> None:
    row = snapshot.read("forecasts").iloc[0]
    stores = snapshot.read("stores").set_index("store")["region"]
    named = f"store={row['store']}&department={row['department']}"
    elsewhere = next(region for region in stores if region != stores[row["store"]])

    assert rows(client, f"/v1/forecasts?{named}&region={elsewhere}") == []
    assert rows(client, f"/v1/series?{named}&is_forecast=false") == []
    assert client.get("/v1/forecasts?store=99999&department=1").status_code == 404


def test_models_are_listed_with_the_champion_marked(client: TestClient, snapshot: Snapshot) -> None:
    champion, challenger = rows(client, "/v1/models")

    assert champion["model_version"] == snapshot.facts["model"]["version"]
    assert (champion["is_champion"], champion["role"]) == (True, "champion")
    assert champion["wape"] == pytest.approx(snapshot.facts["model"]["wape"])
    assert champion["cutoffs"] == 1 + len(WEEKS_BACK)
    assert (challenger["is_champion"], challenger["role"], challenger["wape"]) == (False, "challenger", None)


def test_the_snapshot_says_what_is_served(client: TestClient, snapshot: Snapshot) -> None:
    found = client.get("/v1/snapshot").json()

    assert found["served"]["snapshot"] == snapshot.name
    assert found["data"]["tables"]["forecasts"] == snapshot.facts["tables"]["forecasts"]
    assert [key["name"] for key in found["data"]["panel"]["keys"]] == ["store", "department"]


# Accuracy ------------------------------------------------------------------------------------------------


def outcomes(snapshot: Snapshot, role: str) -> pd.DataFrame:
    history = snapshot.read("forecast_history").query("role == @role")
    turnover = snapshot.read("turnover")[["store", "department", "week", "turnover"]]
    return history.merge(turnover.dropna(), on=["store", "department", "week"])


def test_accuracy_of_a_series_is_that_of_what_was_published(client: TestClient, snapshot: Snapshot) -> None:
    series = one_series(snapshot)
    own = outcomes(snapshot, "champion").query(HERE, local_dict=series)

    found = {row["horizon"]: row for row in rows(client, f"/v1/accuracy?{query(**series)}")}

    assert set(found) == {None, *own["horizon"]}
    for horizon, row in found.items():
        part = own if horizon is None else own[own["horizon"] == horizon]
        actual, forecast = part["turnover"].to_numpy(), part["forecast"].to_numpy()
        inside = (part["lower_80"] <= actual) & (actual <= part["upper_80"])
        assert row["wape"] == pytest.approx(metrics.wape(actual, forecast), nan_ok=True)
        assert row["bias"] == pytest.approx(metrics.bias(actual, forecast))
        assert row["wape_seasonal_naive"] == pytest.approx(metrics.wape(actual, actual * 1.3))
        assert row["coverage_80"] == pytest.approx(inside.mean())
        assert (row["rows"], row["periods"]) == (len(part), part["week"].nunique())
        assert (row["level"], row["source"], row["basis"]) == ("series", "live", "series")


def test_accuracy_of_series_is_of_the_cutoffs_asked_for(client: TestClient, snapshot: Snapshot) -> None:
    series, cutoff = one_series(snapshot), cutoff_back(snapshot, WEEKS_BACK[1])

    found = rows(client, f"/v1/accuracy?{query(**series)}&from={cutoff}&to={cutoff}&horizon=2")

    assert [(row["rows"], row["horizon"]) for row in found] == [(1, 2)]
    assert found[0]["wape"] == pytest.approx(0.1)


def test_accuracy_of_the_backtest_of_a_series(client: TestClient, snapshot: Snapshot) -> None:
    series = one_series(snapshot)
    own = of_series(snapshot, "backtest", series)

    found = rows(client, f"/v1/accuracy?{query(**series)}&source=backtest")

    overall = {row["model"]: row for row in found if row["horizon"] is None}
    assert set(overall) == set(own["model"])
    for model, part in own.groupby("model"):
        expected = metrics.wape(part["actual"].to_numpy(), part["forecast"].to_numpy())
        assert overall[str(model)]["wape"] == pytest.approx(expected)


def test_accuracy_of_levels_is_that_of_monitoring_and_of_the_backtest(
    client: TestClient, snapshot: Snapshot
) -> None:
    frame = snapshot.read("backtest_accuracy")
    total = frame[(frame["scope"] == "total") & frame["cutoff"].isna()]

    found = rows(client, "/v1/accuracy?source=backtest&level=total")

    whole = {(row["model"], row["basis"]): row for row in found if row["cutoff"] is row["horizon"] is None}
    for row in total.itertuples():
        assert whole[row.model, row.basis]["wape"] == row.wape
        naive = total[(total["model"] == "seasonal_naive") & (total["basis"] == row.basis)]["wape"]
        expected = naive.iloc[0] if len(naive) else None
        assert whole[row.model, row.basis]["wape_seasonal_naive"] == expected
    assert {row["horizon"] for row in found} == {None, *range(1, 9)}


def test_live_accuracy_of_levels_is_that_of_monitoring(client: TestClient, snapshot: Snapshot) -> None:
    frame = snapshot.read("monitored_accuracy").drop(columns="updated_at")
    frame = frame.sort_values(["cutoff", "level", "member", "basis", "horizon"], na_position="first")

    found = rows(client, "/v1/accuracy")
    region = rows(client, f"/v1/accuracy?level=region&member=1&horizon=2&from={frame['cutoff'].max()}")

    assert [{name: row[name] for name in frame} for row in found] == as_rows(
        frame.astype({"horizon": object})
    )
    assert {(row["source"], row["model"], row["store"]) for row in found} == {("live", "champion", None)}
    assert [(row["level"], row["basis"], row["horizon"]) for row in region] == [
        ("region", "series", 2),
        ("region", "sums", 2),
    ]


# Formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_all_formats_say_the_same(client: TestClient, path: str) -> None:
    table = pa.Table.from_pylist(client.get(f"/v1/{path}?limit=50").json()["data"])

    arrow = pa.ipc.open_stream(client.get(f"/v1/{path}?limit=50&format=arrow").content).read_all()
    parquet = pq.read_table(io.BytesIO(client.get(f"/v1/{path}?limit=50&format=parquet").content))
    csv = pd.read_csv(io.StringIO(client.get(f"/v1/{path}?limit=50&format=csv").text))

    assert arrow.equals(parquet)
    assert list(csv.columns) == arrow.column_names
    assert len(csv) == arrow.num_rows
    if table.num_rows:
        assert table.column_names == arrow.column_names
        for name in table.column_names:
            plain = [str(v) if hasattr(v, "isoformat") else v for v in arrow[name].to_pylist()]
            assert plain == table[name].to_pylist()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/html, text/*;q=0.4, */*;q=0.1", "text/csv; charset=utf-8"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("application/json;q=0, application/*", "application/vnd.apache.arrow.stream"),
    ],
)
def test_the_header_accept_chooses_the_format(client: TestClient, accept: str | None, expected: str) -> None:
    answer = client.get("/v1/aggregates", headers={} if accept is None else {"Accept": accept})

    assert answer.headers["content-type"] == expected
    assert "Accept" in answer.headers["vary"]


def test_a_format_that_there_is_not_is_refused(client: TestClient) -> None:
    by_header = client.get("/v1/aggregates", headers={"Accept": "image/png"})
    by_name = client.get("/v1/aggregates?format=xml")

    assert by_header.status_code == 406
    assert "text/csv" in by_header.json()["remedy"]
    assert by_name.status_code == 422
    assert by_name.json()["problems"][0]["field"] == "format"
    assert client.get("/v1/aggregates?format=csv", headers={"Accept": "image/png"}).status_code == 200


def test_what_is_known_is_not_sent_again(client: TestClient) -> None:
    for address in ("/v1/aggregates", "/v1/snapshot", "/v1/forecasts?store=1"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
        other = client.get(address, headers={"If-None-Match": '"other"'})

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert other.status_code == 200
    csv = client.get("/v1/aggregates?format=csv", headers={"If-None-Match": first.headers["etag"]})
    assert csv.status_code == 200


def test_a_star_matches_whatever_there_is_and_nothing_else(client: TestClient, snapshot: Snapshot) -> None:
    star = {"If-None-Match": "*"}
    first = snapshot.read("forecasts").iloc[0]
    series = f"store={first['store']}&department={first['department']}"

    for more in ("", "&format=csv", "&limit=1"):
        assert client.get(f"/v1/forecasts?{series}{more}", headers=star).status_code == 304
        for resource in ("forecasts", "history", "explanations"):
            unknown = client.get(f"/v1/{resource}?store=987654&department=11{more}", headers=star)
            assert unknown.status_code == 404, unknown.text


def test_every_answer_names_its_origin(client: TestClient, snapshot: Snapshot) -> None:
    facts = snapshot.facts
    for path in PATHS:
        answer = client.get(f"/v1/{path}?limit=1")
        served = answer.json()["served"]
        assert served == {
            "snapshot": snapshot.name,
            "cutoff": facts["cutoff"],
            "model_version": facts["model"]["version"],
            "data_version": facts["data_version"],
        }
        for name, value in served.items():
            assert answer.headers[f"X-Turnover-{name.replace('_', '-')}"] == str(value)


# Look-ups ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["forecasts", "explanations"])
def test_look_ups_answer_byte_for_byte_as_the_ordinary_way_does(
    client: TestClient, snapshot: Snapshot, path: str
) -> None:
    for store, department in sorted(set(snapshot.read("forecasts").groupby(["store", "department"]).groups)):
        lean = client.get(f"/v1/{path}?department={department}&store={store}")
        ordinary = client.get(f"/v1/{path}?store={store}&department={department}&limit=1000")

        assert lean.content == ordinary.content
        ignored = {"x-request-id"}
        assert {k: v for k, v in lean.headers.items() if k not in ignored} == {
            k: v for k, v in ordinary.headers.items() if k not in ignored
        }


def test_requests_are_counted_and_timed_by_route_whichever_way_they_take(
    client: TestClient, snapshot: Snapshot
) -> None:
    def counted() -> dict[str, float]:
        samples = text_string_to_metric_families(client.get("/metrics").text)
        return {
            f"{each.name} {each.labels.get('route')} {each.labels.get('status', '')}": each.value
            for family in samples
            for each in family.samples
            if each.labels.get("le", "+Inf") == "+Inf"
        }

    series, before = one_series(snapshot), counted()
    for address in (
        f"/v1/forecasts?{query(**series)}",
        "/v1/forecasts?limit=1",
        "/nowhere/12",
        "/nowhere/13",
    ):
        client.get(address)
    after = counted()

    grown = {name for name, value in after.items() if value == before.get(name, 0) + 2}
    assert "turnover_api_requests_total /v1/forecasts 200" in grown
    assert "turnover_api_requests_total other 404" in grown
    assert "turnover_api_request_seconds_count /v1/forecasts " in grown
    assert not any("nowhere" in name for name in after)


def test_the_documentation_is_a_page(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text


# Problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "status", "field", "said"),
    [
        ("/v1/forecasts?stor=1", 422, "stor", "Did you mean store?"),
        ("/v1/forecasts?store=abc", 422, "store.0", "valid integer"),
        ("/v1/forecasts?horizon=9", 422, "horizon", "less than or equal to 8"),
        ("/v1/forecasts?from=yesterday", 422, "from", "valid date"),
        ("/v1/forecasts?limit=0", 422, "limit", "greater than or equal to 1"),
        ("/v1/forecasts?limit=1000001", 422, "limit", "less than or equal to"),
        ("/v1/forecasts?limit=1&limit=2", 422, "limit", "more than once"),
        ("/v1/forecasts?cutoff=1999-01-01", 404, "cutoff", "no forecasts of the cutoff 1999-01-01"),
        ("/v1/forecasts?store=999999&department=1", 404, "store", "store 999999, department 1"),
        ("/v1/history?store=999999&department=1", 404, "store", "store 999999, department 1"),
        ("/v1/forecasts?page=nonsense", 404, "page", "no page of this token"),
        ("/v1/aggregates?level=regio", 422, "level", "'department', 'store', 'region' or 'total'"),
        ("/v1/aggregates?level=region&member=99", 404, "member", "level region is without"),
        ("/v1/aggregates?member=x", 404, "member", "Every level is without"),
        ("/v1/forecasts?to=0", 422, "to", "written like 2017-06-10"),
        ("/v1/accuracy?store=1&level=region", 422, "level", "asks for sums"),
        ("/v1/snapshot?x=1", 422, "x", "There is no parameter x"),
        ("/healthz?x=1", 422, "x", "There is no parameter x"),
    ],
)
def test_problems_name_field_value_and_remedy(
    client: TestClient, address: str, status: int, field: str, said: str
) -> None:
    answer = client.get(address)

    document = answer.json()
    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["problems"][0]["field"] == field
    assert said in document["detail"]
    assert document["remedy"]


def test_everything_wrong_is_told_at_once(client: TestClient) -> None:
    document = client.get("/v1/forecasts?stor=1&horizon=x").json()

    assert {each["field"] for each in document["problems"]} == {"stor", "horizon"}
    assert {each["value"] for each in document["problems"]} == {"1", "x"}


def test_paths_and_methods_that_there_are_not_are_problems_too(client: TestClient) -> None:
    path, method = client.get("/v1/forecast"), client.post("/v1/forecasts")

    assert (path.status_code, method.status_code) == (404, 405)
    assert "Did you mean /v1/forecasts?" in path.json()["detail"]
    assert method.headers["allow"] == "GET"
    assert "GET" in method.json()["remedy"]


# Pages ---------------------------------------------------------------------------------------------------

FILTERS = {
    "forecasts": ["", "region=1&region=2", "department=11", "horizon=3", "role=baseline", "store=1&store=2"],
    "history": ["region=2", "store=1&store=3"],
    "accuracy": [
        "source=backtest",
        "source=backtest&level=store",
        "department=1",
        "region=1&source=backtest",
    ],
    "aggregates": ["", "level=store", "horizon=8"],
    "explanations": ["", "horizon=2"],
    "series": ["", "is_forecast=true"],
    "models": [""],
}


@settings(max_examples=25)
@given(data=st.data())
def test_pages_concatenated_are_the_whole(client: TestClient, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(PATHS))
    wanted = data.draw(st.sampled_from(FILTERS[path]))
    whole = client.get(f"/v1/{path}?{wanted}&limit=100000").json()["data"]
    sizes = st.integers(max(1, len(whole) // 12), max(2, len(whole) + 2))
    size = data.draw(sizes)

    found, address = [], f"/v1/{path}?{wanted}&limit={size}"
    while address:
        answer = client.get(address)
        page = answer.json()
        assert len(page["data"]) <= size
        assert (page["next"] is None) == ("link" not in answer.headers)
        if page["next"]:
            assert answer.headers["link"] == f'<{page["next"]}>; rel="next"'
        found += page["data"]
        address = page["next"]

    assert found == whole


def test_a_page_may_be_in_another_format_and_size(client: TestClient) -> None:
    whole = client.get("/v1/aggregates").json()["data"]
    address = client.get("/v1/aggregates?limit=5").json()["next"]

    rest = client.get(address.replace("limit=5", "limit=1000&format=csv"))

    assert len(pd.read_csv(io.StringIO(rest.text))) == len(whole) - 5


def test_the_token_of_another_question_is_refused(client: TestClient) -> None:
    token = client.get("/v1/aggregates?limit=5").json()["next"].split("page=")[1]

    answer = client.get(f"/v1/aggregates?level=store&page={token}")

    assert answer.status_code == 404
    assert "another question" in answer.json()["detail"]


@pytest.mark.parametrize(
    "after", [["x", "", 1], [1], ["a", "b", "c"], [{"date": "2020-01-01"}, "", 1], [None] * 3]
)
def test_a_forged_place_is_refused(client: TestClient, after: list[Any]) -> None:

    text = client.get("/v1/aggregates?limit=5").json()["next"].split("page=")[1]
    snapshot, digest, _ = json.loads(urlsafe_b64decode(text + "=="))
    forged = urlsafe_b64encode(json.dumps([snapshot, digest, after]).encode()).decode().rstrip("=")

    answer = client.get(f"/v1/aggregates?page={forged}")

    assert answer.status_code in (200, 404)
    if answer.status_code == 404:
        assert answer.json()["problems"][0]["field"] == "page"


def test_roles_are_those_of_the_history() -> None:
    assert get_args(Role) == ROLES


def test_no_value_is_no_number() -> None:
    table = without_nan(pa.table({"x": [1.0, np.nan, np.inf]}))

    assert json_rows(table) == b'[{"x":1.0},{"x":null},{"x":null}]'
