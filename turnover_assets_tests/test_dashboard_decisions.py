"""Deciding on adjustments in the web page, signing in to it, and asking what would be."""

import time
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from babel import Locale
from fastapi.testclient import TestClient

from turnover_assets.core.adjustments import read_adjustments
from turnover_assets.errors import QuestionError, TurnoverError
from turnover_assets.serving.dashboard.questions import asked
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop
from turnover_assets.settings import Settings
from turnover_assets.storage import stewardship
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.ledger import add_entry, ledger_version
from turnover_assets.storage.snapshots import current
from turnover_assets.storage.stewardship import (
    DecidedMeanwhileError,
    Word,
    coming_adjustments,
    enter_if_unchanged,
    published_adjustments,
)
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.dashboard_factories import (
    HTML,
    chart_data,
    form_value,
    page_of,
    reading,
    small_snapshot,
    table_cells,
)
from turnover_assets_tests.factories import settings_for, walmart_like
from turnover_assets_tests.html_pages import Page
from turnover_assets_tests.serving_factories import new_key


@pytest.fixture
def settings(served_home: Settings, tmp_path: Path) -> Settings:
    """A home of one's own with something to decide on."""
    found = served_home.model_copy(update={"home": tmp_path})
    found.published_path.mkdir()
    source = current(served_home.published_path)
    publish(found.published_path, source, {"adjustments": more_adjustments(source.read("adjustments"))})
    return found


def more_adjustments(table: pd.DataFrame) -> pd.DataFrame:
    """What detectors found, and proposals for single stores beside it."""
    first = table[table["origin"] == "detector"].head(1)
    proposals = [
        first.assign(
            adjustment_id=f"{store:012d}",
            status="proposed",
            members=f'{{"store": {store}}}',
            selector=f"store {store}",
            factor=factor,
            value=None,
            strength=2.0,
            who=None,
            decided_on=None,
        )
        for store, factor in ((1, 2.0), (3, 0.5), (18, 10.0), (41, None))
    ]
    return pd.concat([table, *proposals], ignore_index=True).astype({"factor": float, "value": float})


def detected(settings: Settings) -> pd.DataFrame:
    table = current(settings.published_path).read("adjustments")
    return table[table["origin"] == "detector"].reset_index(drop=True)


def entries(settings: Settings, kind: str) -> list[dict[str, Any]]:
    if not settings.ledger_path.exists():
        return []
    return list(tomllib.loads(settings.ledger_path.read_text("utf-8")).get(kind, []))


def filled(page: Page, **others: str) -> dict[str, str]:
    """The form of an adjustment's page, filled in."""
    hidden = {name: form_value(page, name) for name in ("csrf", "id", "seen")}
    return {**hidden, "verdict": "veto", "reason": "the shop was rebuilt", "who": "Ada", **others}


# Deciding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "kind"), [("accept", "adjustment"), ("veto", "veto")])
def test_a_decision_is_in_the_ledger_with_reason_name_and_day_and_takes_effect_next(
    settings: Settings, verdict: str, kind: str
) -> None:
    found = detected(settings).iloc[0]
    with reading(settings) as client:
        page = page_of(client, f"/adjustment?id={found.adjustment_id}")
        answer = client.post("/adjustment", data=filled(page, verdict=verdict))
        after = page_of(client, f"/adjustments?entered={found.adjustment_id}")

    (entry,) = entries(settings, kind)
    assert (entry["reason"], entry["who"], entry["when"]) == ("the shop was rebuilt", "Ada", date.today())
    assert entry["since"] == found.since
    assert answer.status_code == 200  # after being led to the list
    assert "takes effect with the next run" in after.text
    known = published_adjustments(current(settings.published_path), settings)
    now = {a.adjustment_id: a.status for a in coming_adjustments(settings, known)}
    assert now[found.adjustment_id] == ("overruled" if verdict == "accept" else "vetoed")


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"reason": "  "}, "Say why"),
        ({"who": " "}, "Say who you are"),
        ({"reason": "two\nlines"}, "single lines"),
    ],
    ids=["no-reason", "no-name", "lines"],
)
def test_a_form_that_lacks_something_comes_back_as_it_was_filled_in(
    settings: Settings, others: dict[str, str], told: str
) -> None:
    with reading(settings) as client:
        page = page_of(client, f"/adjustment?id={detected(settings)['adjustment_id'][0]}")
        answer = client.post("/adjustment", data=filled(page, **others))

    assert answer.status_code == 422
    assert told in answer.text
    assert 'value="veto" checked' in answer.text.replace(" required", "")
    assert not settings.ledger_path.exists()


@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        ("", {}),
        ("forged", {}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Origin": "https://elsewhere.example"}),
    ],
    ids=["missing", "forged", "another-site", "another-origin"],
)
def test_a_form_of_another_site_is_refused(
    settings: Settings, csrf: str | None, headers: dict[str, str]
) -> None:
    with reading(settings) as client:
        page = page_of(client, f"/adjustment?id={detected(settings)['adjustment_id'][0]}")
        form = filled(page) if csrf is None else filled(page, csrf=csrf)
        answer = client.post("/adjustment", data=form, headers=headers)

    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert not settings.ledger_path.exists()


def test_who_decides_on_what_somebody_has_decided_on_meanwhile_is_told(settings: Settings) -> None:
    with reading(settings) as client:
        address = f"/adjustment?id={detected(settings)['adjustment_id'][0]}"
        mine, theirs = page_of(client, address), page_of(client, address)
        client.post("/adjustment", data=filled(theirs, who="Grace"))
        answer = client.post("/adjustment", data=filled(mine, verdict="accept"))

    assert answer.status_code == 409
    assert "vetoed now by Grace" in Page(answer.text).text
    assert len(entries(settings, "veto")) == 1
    assert not entries(settings, "adjustment")


def test_many_who_decide_at_once_lose_nothing(settings: Settings) -> None:
    ids = list(detected(settings)["adjustment_id"])
    with reading(settings) as client:
        forms = [filled(page_of(client, f"/adjustment?id={name}"), who=f"steward {name}") for name in ids]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda form: client.post("/adjustment", data=form).status_code, forms))

    assert statuses == [200] * len(ids)
    assert {entry["who"] for entry in entries(settings, "veto")} == {f"steward {name}" for name in ids}


def test_a_decision_is_made_anew_where_the_ledger_changes_between_looking_and_writing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = published_adjustments(current(settings.published_path), settings)
    first, other = [a for a in known if a.origin == "detector"][:2]
    enter = stewardship.enter

    def slowly(*given: Any) -> str:
        if not settings.ledger_path.exists():  # somebody else is quicker
            stewardship.add_entry(settings.ledger_path, settings.panel_spec, "veto", veto_of(settings, other))
        return enter(*given)

    monkeypatch.setattr(stewardship, "enter", slowly)
    enter_if_unchanged(settings, known, first, first.status, Word("veto", "Ada", "why"))

    assert [entry["who"] for entry in entries(settings, "veto")] == ["somebody", "Ada"]


def test_a_decision_on_the_same_made_in_between_is_not_written_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = published_adjustments(current(settings.published_path), settings)
    first = next(a for a in known if a.origin == "detector")
    enter = stewardship.enter

    def slowly(*given: Any) -> str:
        if not settings.ledger_path.exists():
            stewardship.add_entry(settings.ledger_path, settings.panel_spec, "veto", veto_of(settings, first))
        return enter(*given)

    monkeypatch.setattr(stewardship, "enter", slowly)
    with pytest.raises(DecidedMeanwhileError, match="vetoed now by somebody"):
        enter_if_unchanged(settings, known, first, first.status, Word("accept", "Ada", "why"))

    assert not entries(settings, "adjustment")


def veto_of(settings: Settings, adjustment: Any) -> Mapping[str, Any]:
    table = detected(settings).set_index("adjustment_id").loc[adjustment.adjustment_id]
    return {
        "where": dict(adjustment.where),
        "since": table["since"],
        "until": None if pd.isna(table["until"]) else table["until"],
        "reason": "quicker",
        "who": "somebody",
        "when": date.today(),
    }


def test_a_ledger_with_a_mistake_is_told_and_takes_no_decision(settings: Settings) -> None:
    settings.ledger_path.write_text("[[veto]]\nreason = 'half'\n")
    with reading(settings) as client:
        found = detected(settings)["adjustment_id"][0]
        page = page_of(client, f"/adjustment?id={found}")
        assert "has mistakes" in page.text
        assert "Enter the decision" not in page.text
        assert "has mistakes" in page_of(client, "/adjustments").text
        token = form_value(page_of(client, "/adjustments"), "csrf") if "csrf" in page.html else ""
        answer = client.post(
            "/adjustment",
            data={
                "csrf": token,
                "id": found,
                "seen": "applied",
                "verdict": "veto",
                "reason": "r",
                "who": "w",
            },
        )

    assert answer.status_code in (403, 409)
    assert settings.ledger_path.read_text() == "[[veto]]\nreason = 'half'\n"


def test_an_entry_of_the_ledger_expects_the_version_that_was_looked_at(settings: Settings) -> None:
    seen = ledger_version(settings.ledger_path)
    known = published_adjustments(current(settings.published_path), settings)
    first, other = [a for a in known if a.origin == "detector"][:2]
    add_entry(settings.ledger_path, settings.panel_spec, "veto", veto_of(settings, first), seen)

    with pytest.raises(TurnoverError, match="changed by somebody else"):
        add_entry(settings.ledger_path, settings.panel_spec, "veto", veto_of(settings, other), seen)


def test_before_and_after_are_the_sums_of_what_is_concerned(settings: Settings) -> None:
    snapshot = current(settings.published_path)
    table = snapshot.read("turnover").merge(snapshot.read("stores"), on="store", how="left")
    with reading(settings) as client:
        for found in read_adjustments(settings.panel_spec, snapshot.read("adjustments")):
            row = detected(settings).set_index("adjustment_id").loc[found.adjustment_id]
            own = table
            for name, value in found.where.items():
                own = own[own[name] == value]
            until = snapshot.facts["cutoff"] if pd.isna(row["until"]) else row["until"]
            concerned = own["week"].between(row["since"], pd.Timestamp(until).date())
            repaired = own["turnover"].where(~concerned, _repaired(found, own["turnover"]))
            wanted = repaired.groupby(own["week"]).sum(min_count=1)

            drawn = chart_data(client.get(f"/adjustment?id={found.adjustment_id}").text)[0]

            weeks = [date.fromtimestamp(seconds) for seconds in drawn["periods"]]
            after = [float("nan") if value is None else value for value in drawn["lines"][0]["values"]]
            assert after == pytest.approx(wanted[weeks].tolist(), rel=1e-5, nan_ok=True)
            assert {*own["week"][concerned]} <= {*weeks}


def _repaired(found: Any, values: pd.Series) -> Any:
    if found.factor is not None:
        return values / found.factor
    return float("nan") if found.value is None else found.value


# Who may -----------------------------------------------------------------------------------------


def test_with_keys_the_page_asks_to_sign_in_and_leads_on_to_what_was_wanted(settings: Settings) -> None:
    key = new_key(settings, "Region North", "read").secret
    with reading(settings) as client:
        form = page_of(client, "/accuracy?level=store")
        assert form.count("form") >= 1
        assert "Your key" in form.text
        wrong = client.post("/login", data={"key": "wrong", "next": "/accuracy"})
        assert wrong.status_code == 401
        assert "This key is not known" in wrong.text
        wanted = form_value(form, "next")
        right = client.post("/login", data={"key": key, "next": wanted})

        assert right.status_code == 200
        assert str(right.url).endswith("/accuracy?level=store")
        assert "Signed in as Region North" in Page(right.text).text
        client.post("/logout", data={"csrf": form_value(Page(right.text), "csrf")})
        assert "Your key" in page_of(client, "/about").text


@pytest.mark.parametrize("address", ["/healthz", "/login", "/static/style.css"])
def test_only_what_signing_in_needs_is_there_for_everybody(settings: Settings, address: str) -> None:
    new_key(settings, "a key", "read")
    with reading(settings) as client:
        assert client.get(address).status_code == 200
        assert client.get("/", follow_redirects=False).status_code == 303
        assert client.get("/download?table=forecasts", headers={"Accept": "*/*"}).status_code == 401


def test_deciding_needs_the_scope_and_records_the_name_of_the_key(settings: Settings) -> None:
    reads = new_key(settings, "Reader", "read").secret
    decides = new_key(settings, "Grace Hopper", "read", "adjust").secret
    found = detected(settings)["adjustment_id"][0]
    with reading(settings) as client:
        client.post("/login", data={"key": reads, "next": "/"})
        page = page_of(client, f"/adjustment?id={found}")
        assert "Enter the decision" not in page.text
        form = {"csrf": form_value(page, "csrf"), "id": found, "seen": "applied"}
        refused = client.post("/adjustment", data={**form, "verdict": "veto", "reason": "r"})
        assert refused.status_code == 403

    with reading(settings) as client:
        client.post("/login", data={"key": decides, "next": "/"})
        page = page_of(client, f"/adjustment?id={found}")
        form = {name: form_value(page, name) for name in ("csrf", "id", "seen")}
        client.post("/adjustment", data={**form, "verdict": "veto", "reason": "r", "who": "Mallory"})

    assert [entry["who"] for entry in entries(settings, "veto")] == ["Grace Hopper"]


def test_whom_a_trusted_proxy_names_need_not_sign_in_and_decides_under_that_name(settings: Settings) -> None:
    found = detected(settings)["adjustment_id"][0]
    behind = settings.model_copy(
        update={"proxy_user_header": "X-Forwarded-User", "proxy_user_scopes": "read,adjust"}
    )
    with reading(behind, headers={**HTML, "X-Forwarded-User": "ada"}) as client:
        page = page_of(client, f"/adjustment?id={found}")
        form = {name: form_value(page, name) for name in ("csrf", "id", "seen")}
        client.post("/adjustment", data={**form, "verdict": "veto", "reason": "r"})

        assert "Signed in as ada" in page.text
        assert "Sign out" not in page.text
    with reading(behind) as client:
        assert client.get("/", follow_redirects=False).headers["location"].startswith("/login")

    assert [entry["who"] for entry in entries(settings, "veto")] == ["ada"]


# What if -----------------------------------------------------------------------------------------


class Doubles:
    """Answers twice of what was published, and remembers what it was asked."""

    def __init__(self) -> None:
        self.questions: list[Mapping[str, Any]] = []

    def __call__(self, served: Served, asked: Mapping[str, Any], stop: Stop) -> Mapping[str, Any]:
        self.questions.append(asked)
        if asked.get("series") == [{"store": 99}]:
            raise QuestionError("series.0.store", "No series with store 99 is forecast.", "Name another.")
        time = served.view.panel.time
        rows = served.view.records(
            f"SELECT * REPLACE (CAST({time} AS VARCHAR) AS {time}), forecast AS baseline FROM forecasts "
            "WHERE store = 1"
        )
        data = [{**row, "forecast": 2 * row["forecast"]} for row in rows]
        totals = pd.DataFrame(data).groupby(time, as_index=False)[["baseline", "forecast"]].sum()
        return {
            "model": {"version": 1},
            "data": data,
            "totals": totals.to_dict("records"),
            "aggregates": _doubled(served, asked["levels"][0]) if "levels" in asked else [],
            "changes": ["Promotion of 1,500.5 was assumed."],
            "warnings": [{"kind": "outside-training", "about": "", "text": "The model has never seen this."}],
        }


def _doubled(served: Served, level: str) -> list[dict[str, Any]]:
    time = served.view.panel.time
    rows = served.view.records(
        f"SELECT * REPLACE (CAST({time} AS VARCHAR) AS {time}), forecast AS baseline FROM aggregates "
        "WHERE level = $level AND member = '1' ORDER BY horizon",
        {"level": level},
    )
    return [{**row, "forecast": 2 * row["forecast"], "upper_80": 3 * row["forecast"]} for row in rows]


@pytest.fixture
def us_stores(tmp_path: Path) -> Settings:
    panel = walmart_like()
    settings = settings_for(tmp_path)
    settings.__dict__["panel_spec"] = panel
    stores = pd.DataFrame({"store": [1, 2], "kind": ["A", "B"], "size": [10.0, 20.5]})
    small_snapshot(
        settings.published_path, panel, [{"store": 1, "dept": d} for d in (1, 7)], {"stores": stores}
    )
    return settings


@pytest.fixture
def asking(us_stores: Settings) -> Iterator[tuple[TestClient, Doubles]]:
    answers = Doubles()
    with reading(us_stores, answers) as client:
        yield client, answers


def test_the_form_asks_in_the_panels_own_words_and_shows_the_answer(
    asking: tuple[TestClient, Doubles],
) -> None:
    client, answers = asking
    form = page_of(client, "/what-if")
    given = {
        "csrf": form_value(form, "csrf"),
        "key_store": "1",
        "ahead_temperature": "12,5",
        "ahead_is_holiday": "true",
        "level": "120",
    }

    answer = client.post("/what-if", data=given)

    assert answers.questions == [
        {
            "series": [{"store": 1}],
            "covariates": [{"values": {"temperature": 12.5, "is_holiday": True}}],
            "history": {"factor": 1.2, "periods": 8},
            "levels": ["store"],
        }
    ]
    row = next(cells for cells in table_cells(answer.text) if len(cells) == 5 and "2018" in cells[0])
    assert row[1] == "630"  # series of 105 and 210, twice
    assert row[2].endswith("945")  # the range of the sum, not the sum of ranges
    assert row[3:] == ["315", "+315"]
    assert "The model has never seen this." in Page(answer.text).text
    assert 'value="12,5"' in answer.text


def test_a_new_series_is_described_by_its_attributes(asking: tuple[TestClient, Doubles]) -> None:
    client, answers = asking
    token = form_value(page_of(client, "/what-if"), "csrf")
    given = {"csrf": token, "what": "new", "key_store": "3", "of_kind": "A", "of_size": "5", "mean": "70"}

    client.post("/what-if", data=given)

    new = {"keys": {"store": 3}, "attributes": {"kind": "A", "size": 5.0}, "level": 70.0}
    assert answers.questions == [{"new": [new]}]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "No series is named"),
        ({"key_store": "one"}, "is no number"),
        ({"key_store": "1", "level": "5"}, "between 10 and 500"),
        ({"key_store": "99"}, "No series with store 99"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why_above_the_form(
    asking: tuple[TestClient, Doubles], given: dict[str, str], told: str
) -> None:
    client, _ = asking
    token = form_value(page_of(client, "/what-if"), "csrf")

    answer = client.post("/what-if", data={"csrf": token, **given})

    assert answer.status_code == 422
    assert told in Page(answer.text).text
    assert client.post("/what-if", data={"csrf": "forged", **given}).status_code == 403


def test_a_question_that_takes_too_long_leaves_the_form_as_it_was(us_stores: Settings) -> None:
    def slowly(*_: Any) -> Any:
        time.sleep(0.5)

    with reading(us_stores.model_copy(update={"what_if_seconds": 0.05}), slowly) as client:
        token = form_value(page_of(client, "/what-if"), "csrf")
        answer = client.post("/what-if", data={"csrf": token, "key_store": "1", "level": "130"})

    page = Page(answer.text)
    assert answer.status_code == 503
    assert "There is nothing to show yet" not in page.text
    assert 'value="130"' in answer.text


def test_numbers_that_are_none_are_refused() -> None:
    for text in ("nan", "inf", "1e999", "x"):
        with pytest.raises(Problem, match="is no number"):
            asked(walmart_like(), {"key_store": text}, Locale("en"))


@pytest.mark.parametrize(
    ("tag", "text", "meant"),
    [
        ("en", "1,500", 1500.0),
        ("en", "1,5", 1.5),
        ("en", "1,500.5", 1500.5),
        ("de", "1.500", 1500.0),
        ("de", "1.500,5", 1500.5),
        ("de", "1.5", 1.5),
        ("fr", "1 500,5", 1500.5),
        ("de_CH", "1\N{RIGHT SINGLE QUOTATION MARK}500.5", 1500.5),
    ],
)
def test_numbers_are_read_as_their_reader_writes_them(tag: str, text: str, meant: float) -> None:
    question = asked(walmart_like(), {"key_store": "1", "ahead_temperature": text}, Locale.parse(tag))

    assert question["covariates"] == [{"values": {"temperature": meant}}]


def test_plans_may_be_for_one_period_alone() -> None:
    given = {"key_store": "1", "ahead_is_holiday": "true", "when": "2030-01-04"}

    question = asked(walmart_like(), given, Locale("en"))

    assert question["covariates"] == [{"values": {"is_holiday": True}, "periods": [date(2030, 1, 4)]}]
    with pytest.raises(Problem, match="is no date"):
        asked(walmart_like(), {**given, "when": "tomorrow"}, Locale("en"))


def test_something_new_may_be_like_something_known_and_in_proportion_to_its_size() -> None:
    given = {"what": "new", "key_store": "901", "like_store": "8", "per": "size", "of_size": "1,200"}

    question = asked(walmart_like(), given, Locale("en"))

    like_8 = {"keys": {"store": 901}, "attributes": {"size": 1200.0}, "like": {"store": 8}, "per": "size"}
    assert question == {"new": [like_8]}


def test_only_numbers_of_which_each_has_its_own_are_offered_to_be_in_proportion_to(
    us_stores: Settings, served_home: Settings
) -> None:
    with reading(us_stores) as client:
        assert [at["value"] for at in _options(page_of(client, "/what-if"), "per")] == ["", "size"]
    with reading(served_home) as client:  # coordinates, regions and zones, which are numbers, too
        assert not _options(page_of(client, "/what-if"), "per")


def _options(page: Page, name: str) -> list[dict[str, str | None]]:
    """The options of a select of a page; none where there is none."""
    found: list[dict[str, str | None]] = []
    within = False
    for tag, at in page.elements:
        within = at.get("name") == name if tag == "select" else within and tag == "option"
        found += [at] if within and tag == "option" else []
    return found


def test_a_snapshot_without_a_model_answers_nothing_and_says_so(us_stores: Settings) -> None:
    with reading(us_stores) as client:
        token = form_value(page_of(client, "/what-if"), "csrf")

        answer = client.post("/what-if", data={"csrf": token, "key_store": "1"})

    assert answer.status_code == 503
    assert "No model can be asked" in Page(answer.text).text
    assert 'value="1"' in answer.text


def test_only_those_who_may_ask_find_the_form(us_stores: Settings) -> None:
    key = KeyStore(us_stores.keys_path).create("Grace", ("read",), datetime.now(UTC)).secret
    with reading(us_stores) as client:
        client.post("/login", data={"key": key, "next": "/"})

        assert "What if" not in page_of(client, "/").text
        assert client.get("/what-if").status_code == 403
