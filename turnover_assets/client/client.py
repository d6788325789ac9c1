"""The client: one method for each thing that can be asked.

What belongs here: requests, their parameters and pages. What does not: when to ask again (retries.py), and
what becomes of rows (rows.py).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx

from turnover_assets import __version__
from turnover_assets.client.errors import ClientError, SnapshotGoneError, UnreachableError, error_of
from turnover_assets.client.retries import AGAIN, Retries
from turnover_assets.client.rows import JSON, Rows, Served, accepted, page_of, with_dates

Value = str | int | float | bool | date
Values = Value | Iterable[Value] | None
TIMEOUT = 30.0
CONNECTING = 5.0  # seconds for a connection at most
STARTS = 3  # of following pages, where the snapshot goes while they are followed


class Client:
    """Asks the REST API; to be used in a `with`, by as many threads as you like.

    Args:
        url: Where the service is, such as `https://forecasts.example.com`.
        key: An API key; see `turnover keys`. None where the service is on this machine and asks for none.
        token: A bearer token of an identity provider, in place of a key.
        timeout: Seconds for each answer.
        retries: When to ask again.
        page_rows: Rows of a page; as many as the service allows where left out.
        is_insecure: Permit sending the key over plain http to another machine, where all can read it.
        transport: What sends requests, for tests and proxies.
        sleep: What waits.

    Raises:
        ClientError: The key would be sent over plain http to another machine.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        page_rows: int | None = None,
        is_insecure: bool = False,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if (key or token) and not is_insecure and not _is_private(url):
            raise ClientError(
                f"{url} is plain http to another machine: anybody on the way can read the key. Use https, or "
                "is_insecure=True where the network is trusted."
            )
        headers = {"User-Agent": f"turnover-client/{__version__}"}
        headers |= {"X-API-Key": key} if key else {}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECTING))
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=limits, transport=transport, follow_redirects=False
        )
        self._retries, self._page_rows, self._sleep = retries, page_rows, sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._http.base_url}>"

    def close(self) -> None:
        """Give its connections back."""
        self._http.close()

    # What can be asked -------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """What is served: `served`, and `data` with the panel, its keys, attributes and levels."""
        found: dict[str, Any] = self._ask("GET", "v1/snapshot", accept=JSON).json()
        return found

    def series(self, **which: Values) -> Rows:
        """The series, with their attributes, first and last period.

        Args:
            which: Series keys and attributes by the panel's names, one value or several each, and the other
                parameters of the request; see docs/api.md. `from_` stands for `from`, which is a word of
                Python. So in all methods.

        Raises:
            ApiError: The service does not answer this; see its subclasses.
            UnreachableError: No answer came.
        """
        return self._rows("series", which)

    def forecasts(self, **which: Values) -> Rows:
        """Forecasts by series, with bounds; of an older cutoff or another model with `cutoff` and `role`."""
        return self._rows("forecasts", which)

    def history(self, **which: Values) -> Rows:
        """What was reported, beside what models see of it."""
        return self._rows("history", which)

    def aggregates(self, **which: Values) -> Rows:
        """Forecasts of sums by `level` and `member`, with bounds of their own."""
        return self._rows("aggregates", which)

    def accuracy(self, **which: Values) -> Rows:
        """How good forecasts were, of levels or of single series; `source="backtest"` for tests."""
        return self._rows("accuracy", which)

    def explanations(self, **which: Values) -> Rows:
        """Why forecasts are what they are: effects that add up, and a sentence."""
        return self._rows("explanations", which)

    def models(self, **which: Values) -> Rows:
        """The model versions that forecast, the champion among them."""
        return self._rows("models", which)

    def what_if(self, question: Mapping[str, Any]) -> Rows:
        """What the champion would forecast, had something been otherwise; see docs/what-if.md for questions.

        Raises:
            ApiError: The question cannot be answered; `fields` says what is wrong with each of its parts.
            UnreachableError: No answer came.
        """
        response = self._ask("POST", "v1/what-if", accept=JSON, json=dict(question))
        document = response.json()
        notes = {name: value for name, value in document.items() if name not in ("data", "served", "next")}
        return Rows(Served.of(response.headers), [with_dates(document["data"])], notes)

    # How it is asked ---------------------------------------------------------------------------------

    def _rows(self, name: str, which: Mapping[str, Values]) -> Rows:
        parameters = [("limit", str(self._page_rows))] if self._page_rows else []
        parameters += [pair for key, value in which.items() for pair in _pairs(key, value)]
        for start in range(1, STARTS + 1):
            try:
                return self._pages(f"v1/{name}", parameters)
            except SnapshotGoneError:
                if start == STARTS or any(key == "page" for key, _ in parameters):
                    raise
        raise AssertionError("the last start returns or raises")

    def _pages(self, path: str, parameters: list[tuple[str, str]]) -> Rows:
        """All pages of a question, from the one that it asks for on."""
        pages, page = [], list[tuple[str, str]]()
        while True:
            own = [pair for pair in parameters if not page or pair[0] != "page"]
            response = self._ask("GET", path, accept=accepted(), params=[*own, *page])
            pages.append(page_of(response))
            following = response.links.get("next")
            if following is None:
                return Rows(Served.of(response.headers), pages)
            # Of the link only the token is used: a proxy may have the service at another path.
            page = [("page", parse_qs(urlsplit(following["url"]).query)["page"][0])]

    def _ask(self, method: str, path: str, *, accept: str, **content: Any) -> httpx.Response:
        """Ask until there is an answer, or waiting is over."""
        attempt = 0
        while True:
            attempt += 1
            wait: float | None = None
            try:
                response = self._http.request(method, path, headers={"Accept": accept}, **content)
                if response.status_code in AGAIN:
                    wait = self._retries.wait(attempt, response.headers.get("retry-after"))
                if wait is None:
                    return _answer(response)
            except httpx.TransportError as error:
                wait = self._retries.wait(attempt)
                if wait is None:
                    url = str(self._http.base_url.join(path))
                    raise UnreachableError(url, f"{type(error).__name__}: {error}") from error
            self._sleep(wait)


def _answer(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise error_of(response)
    return response


def _pairs(name: str, value: Values) -> list[tuple[str, str]]:
    """A parameter as it stands in an address, once for each of its values."""
    if value is None:
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str)
    values: Iterable[Any] = value if several else [value]  # type: ignore[assignment]
    own = "from" if name == "from_" else name
    return [(own, _text(each)) for each in values]


def _text(value: Any) -> str:
    """A value as it stands in an address; of a point in time, such as pandas gives, the day."""
    if isinstance(value, datetime):
        value = value.date()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_private(url: str) -> bool:
    """Whether nobody can listen: it is https, or stays on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
