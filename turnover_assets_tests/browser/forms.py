"""What forms of the web page must do: numbers, decisions, what-if."""

import re
from datetime import date
from typing import Any

import pytest
from dateutil.parser import parse as parse_date
from playwright.sync_api import Page

from turnover_assets_tests.browser.controls import EXERCISES, Use
from turnover_assets_tests.browser.sites import (
    barriers,
    overflow,
)
from turnover_assets_tests.test_dashboard_decisions import entries


@EXERCISES.of_all("footer select lang", "footer button Use")
def choose_how_numbers_are_written(use: Use) -> None:
    """It is taken at once, and kept for all pages."""
    figure, known_to = use.page.locator(".tile .figure").nth(1), use.page.locator(".facts b")
    before, day = figure.inner_text(), parse_date(known_to.inner_text())
    use.page.get_by_label("Numbers and dates").select_option("de")
    use.page.wait_for_url("**lang=de**")
    use.page.goto(use.site.address + "/")
    assert known_to.inner_text() == f"{day:%d.%m.%Y}"
    assert figure.inner_text() != before
    with use.page.expect_navigation():
        use.page.get_by_role("button", name="Use", exact=True).click()
    assert "lang=de" in use.page.url
    use.page.get_by_label("Numbers and dates").select_option("en_GB")
    use.page.wait_for_url("**lang=en_GB**")
    assert figure.inner_text() == before


@EXERCISES.of_all(
    *("radio verdict accept", "radio verdict veto", "text reason", "text who", "button Enter the decision")
)
def decide(use: Use) -> None:
    """A decision is entered once all of it is given: the one adjustment accepted, the next vetoed."""
    page = use.page
    for adjustment, kind, words in ((1, "adjustment", "Accept:"), (3, "veto", "Veto:")):
        page.goto(f"{use.site.address}/adjustment?id={adjustment:012d}")
        page.get_by_text(words).click()
        page.get_by_role("button", name="Enter the decision").click()
        assert page.url.endswith(f"/adjustment?id={adjustment:012d}")  # the browser asks for what is missing
        page.get_by_label("Why?").fill(f"because of {adjustment}")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Enter the decision").click()
        page.wait_for_url("**/adjustments?entered=*")
        assert f"Store {adjustment}".lower() in page.locator(".notice.good").inner_text().lower()
        assert "takes effect with the next run" in page.locator(".notice.good").inner_text()
        entered = entries(use.site.settings, kind)
        assert [(each["who"], each["reason"]) for each in entered] == [("Ada", f"because of {adjustment}")]


@EXERCISES.of_all(
    *(
        "radio what known",
        "text key_store",
        "text key_department",
        "text key_dept",
        "text level",
        "button Ask",
    ),
    *("select when", "text ahead_temperature", "select ahead_is_holiday"),
)
def ask_for_what_there_is(use: Use) -> None:
    """The question has what was filled in, and the form still does beside the answer."""
    planned = use.page.get_by_label("When").count()
    form = use.page.locator("form.ask")
    form.get_by_label("Store", exact=True).fill("1")
    form.get_by_label("in % of what was reported").fill("120")
    wanted: dict[str, Any] = {
        "series": [{"store": 1}],
        "history": {"factor": 1.2, "periods": 8},
        "levels": ["store"],
    }
    if planned:
        when = form.get_by_label("When").locator("option").nth(2).get_attribute("value")
        form.get_by_label("When").select_option(when)
        form.get_by_label("Temperature").fill("12.5")
        form.get_by_label("Is holiday").select_option("yes")
        values = {"temperature": 12.5, "is_holiday": True}
        wanted["covariates"] = [{"values": values, "periods": [date.fromisoformat(str(when))]}]
    form.get_by_role("button", name="Ask").click()
    use.page.get_by_role("heading", name="The answer").wait_for()

    assert use.site.answers.questions[-1] == wanted
    _shown_twice_as_much(use.page)
    assert form.get_by_label("Store", exact=True).input_value() == "1"
    assert form.get_by_label("in % of what was reported").input_value() == "120"
    if planned:
        assert form.get_by_label("When").input_value() == when
        assert form.get_by_label("Temperature").input_value() == "12.5"
        assert form.get_by_label("Is holiday").input_value() == "true"
    second = form.locator("[name^=key_]").nth(1)
    second.fill("1")
    form.get_by_role("button", name="Ask").click()
    use.page.get_by_role("heading", name="The answer").wait_for()
    assert [*use.site.answers.questions[-1]["series"][0].values()] == [1, 1]


def _shown_twice_as_much(page: Page) -> None:
    """The answer's figures are twice the published ones, as the one who answers makes them."""
    assert "The model has never seen this." in page.locator("main").inner_text()
    rows = page.locator("section[aria-labelledby=answer] tbody tr")
    for number in range(rows.count()):
        cells = rows.nth(number).locator("td:visible").all_inner_texts()
        would, published, difference = (
            float(re.sub(r"[^\d.]", "", text)) for text in (cells[0], *cells[-2:])
        )
        assert would == pytest.approx(2 * published, abs=1)
        assert difference == pytest.approx(published, abs=1)
    assert page.locator("figure[data-chart=what-if] canvas").is_visible()
    assert overflow(page) <= 0
    assert barriers(page) == []


@EXERCISES.of_all(
    *(
        "radio what new",
        "text mean",
        "text like_store",
        "text like_department",
        "text like_dept",
        "select per",
    ),
    *("select of_postcode", "text of_latitude", "text of_longitude", "select of_region", "select of_zone"),
    *("select of_kind", "text of_size"),
)
def ask_for_something_new(use: Use) -> None:
    """What is described is asked, and the form still has it."""
    page, form = use.page, use.page.locator("form.ask")
    form.get_by_text("Something new.").click()
    assert not form.get_by_label("in % of what was reported").is_visible()
    first, second = form.locator("[name^=key_]").all()
    first.fill("901")
    second.fill("2")
    fields = form.locator(".of-new").locator("input, select").all()
    sent = {"mean": "5000", "like_store": "1", "like_department": "11", "like_dept": "3", "per": "size"}
    sent |= {
        "of_postcode": "01250",
        "of_latitude": "48.5",
        "of_longitude": "2.25",
        "of_region": "2",
        "of_zone": "1",
    }
    sent |= {"of_kind": "B", "of_size": "20.5"}
    given = {str(field.get_attribute("name")): field for field in fields}
    for name, field in given.items():
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(sent[name])
        else:
            field.fill(sent[name])
    form.get_by_role("button", name="Ask").click()
    page.get_by_role("heading", name="The answer").wait_for()

    (asked,) = use.site.answers.questions[-1]["new"]
    assert asked["level"] == 5000
    assert [*asked["keys"].values()] == [901, 2]
    assert {name: str(value) for name, value in asked["attributes"].items()} == {
        name.removeprefix("of_"): sent[name] for name in given if name.startswith("of_")
    }
    assert {f"like_{name}": str(value) for name, value in asked["like"].items()} == {
        name: sent[name] for name in given if name.startswith("like_")
    }
    assert asked.get("per") == ("size" if "per" in given else None)
    assert form.locator("input[value=new]").is_checked()
    assert {name: form.locator(f"[name={name}]").input_value() for name in given} == {
        name: sent[name] for name in given
    }
    _shown_twice_as_much(page)
