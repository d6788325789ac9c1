"""From a request and what it shows to a page: locale, navigation, banners, headers.

What belongs here: what all pages have in common. What does not: what each says (pages/, templates/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from turnover_assets import __version__
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.access import Caller, Scope, session
from turnover_assets.serving.access.callers import LOCAL
from turnover_assets.serving.dashboard import charts, members
from turnover_assets.serving.dashboard.formats import Formats, chosen_locale, locale_choices
from turnover_assets.serving.dashboard.shown import Shown
from turnover_assets.serving.dashboard.static_files import StaticFiles
from turnover_assets.serving.follower import Following
from turnover_assets.settings import Settings

LOCALE_COOKIE = "turnover_locale"
LOCALE_SECONDS = 365 * 24 * 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with none at all, older browsers hide where a form comes from
    "Vary": "Accept-Language, Cookie, Accept-Encoding",
}
OF_PERSON = "private, no-cache"


@dataclass(frozen=True)
class Entry:
    """An entry of the navigation."""

    title: str
    address: str
    path: str


@dataclass(frozen=True)
class Notice:
    """Something that a reader of any page should know."""

    title: str
    text: str


@cache
def environment() -> Environment:
    """The templates."""
    found = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(spark=charts.spark, bars=charts.bars)
    found.filters.update(title_of=members.title, spaced=members.spaced)
    return found


def formats_of(request: Request, panel: PanelSpec, usual: float) -> Formats:
    """How values are written for whoever asks."""
    wanted = request.query_params.get("lang") or request.cookies.get(LOCALE_COOKIE, "")
    return Formats.of(panel, chosen_locale(wanted, request.headers.get("accept-language", "")), usual)


def navigation(panel: PanelSpec, *, what_if: bool) -> list[Entry]:
    """The pages that every page leads to."""
    levels = [
        Entry(members.title(level), members.level_address(level), f"level:{level}")
        for level in panel.level_names
    ]
    keyed = len(panel.keys) > 1 or panel.keys[0] not in panel.level_names
    return [
        Entry("Overview", "/", "/"),
        *levels,
        *([Entry("All series", "/all", "/all")] if keyed else []),
        Entry("Accuracy", "/accuracy", "/accuracy"),
        Entry("Data quality", "/quality", "/quality"),
        Entry("Adjustments", "/adjustments", "/adjustments"),
        *([Entry("What if", "/what-if", "/what-if")] if what_if else []),
        Entry("Downloads", "/downloads", "/downloads"),
        Entry("About", "/about", "/about"),
    ]


def notices(settings: Settings, following: Following, now: datetime) -> list[Notice]:
    """What is wrong with what is shown: it is old, or something newer cannot be shown."""
    found = list[Notice]()
    snapshot = following.snapshot
    if snapshot is not None:
        age = now - datetime.fromisoformat(snapshot.facts["created_at"])
        if age > settings.late_after:
            every = settings.panel_spec.frequency.every
            found.append(
                Notice(
                    "These forecasts are old",
                    f"They were published {_days(age)} ago; a new set is expected every {every}. Ask whoever "
                    f"runs the forecasts whether new data have arrived.",
                )
            )
    if following.problem and snapshot is not None:
        found.append(
            Notice(
                "A newer set of forecasts cannot be shown",
                "What you see was published before it and is still whole. Whoever runs the forecasts finds "
                "the reason on the page “About”.",
            )
        )
    return found


def _days(age: timedelta) -> str:
    return f"{age.days} days" if age.days != 1 else "a day"


class Reader:
    """Who reads, and what is shown to them.

    Attributes:
        request: The request.
        shown: The snapshot that all of the answer comes from.
        formats: How values are written.
        panel: The panel.
    """

    def __init__(self, request: Request, shown: Shown) -> None:
        self.request, self.shown = request, shown
        self.settings: Settings = request.app.state.settings
        self.panel: PanelSpec = request.app.state.panel
        self.formats = formats_of(request, self.panel, shown.usual)

    @property
    def caller(self) -> Caller:
        """Who reads."""
        found: Caller = self.request.state.caller
        return found

    @property
    def is_local(self) -> bool:
        """Whether it is whoever uses this machine, whose name is not known."""
        return self.caller is LOCAL

    def may(self, scope: Scope) -> bool:
        """Whether the reader has a scope."""
        return scope in self.caller.scopes

    def page(self, template: str, title: str, place: str, code: int = 200, **content: Any) -> Response:
        """A page.

        Args:
            template: Name of its template before `.html.jinja`.
            title: What it is called.
            place: The entry of the navigation that it belongs to.
            code: HTTP status.
            content: What the template shows.
        """
        following = self.request.app.state.follower.following
        formats = content.pop("formats", self.formats)
        html = render(
            self.request,
            template,
            formats,
            title=title,
            place=place,
            shown=self.shown,
            notices=notices(self.settings, following, datetime.now(UTC)),
            caller=self.caller,
            csrf=session.csrf_token(self.request),
            can_sign_out=session.can_sign_out(self.request),
            **content,
        )
        return html_answer(self.request, html, code)


def render(request: Request, template: str, formats: Formats, **content: Any) -> str:
    """The text of a page."""
    state = request.app.state
    static: StaticFiles = state.static
    return (
        environment()
        .get_template(f"{template}.html.jinja")
        .render(
            formats=formats,
            panel=state.panel,
            navigation=navigation(state.panel, what_if=_may_ask(request)),
            static=static.address,
            locales=locale_choices(),
            release=__version__,
            address=request.url.path,
            query=request.query_params,
            **content,
        )
    )


def _may_ask(request: Request) -> bool:
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller is not None and "what-if" in caller.scopes


def html_answer(request: Request, html: str, status: int = 200) -> Response:
    """A page as an answer; where the reader has just this page already, that it has not changed."""
    body = html.encode()
    tag = f'W/"{sha256(body).hexdigest()[:20]}"'
    headers = {**HEADERS, "ETag": tag, "Cache-Control": OF_PERSON}
    if status == 200 and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    answer = HTMLResponse(body, status, headers)
    wanted = request.query_params.get("lang")
    if wanted is not None and chosen_locale(wanted, "") == wanted:
        answer.set_cookie(
            LOCALE_COOKIE, wanted, max_age=LOCALE_SECONDS, path="/", httponly=True, samesite="lax"
        )
    return answer


def _reader(request: Request) -> Iterator[Reader]:
    with request.app.state.follower.use() as shown:
        yield Reader(request, shown)


Reading = Annotated[Reader, Depends(_reader)]
