"""The settings of access, read and validated once.

What belongs here: what the settings say, as types. What does not: their defaults and descriptions
(settings.py), and what follows from them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import cast
from urllib.parse import urlsplit

from turnover_assets.core.api_keys import SCOPES, Rate, Scope, parse_rate
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import PREFIX, Settings

Network = IPv4Network | IPv6Network
ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class OidcRules:
    """Which tokens are accepted.

    Attributes:
        issuer: Who must have issued them.
        audience: Whom they must be meant for.
        jwks_url: Where the issuer's keys are; empty where its discovery document says so.
        algorithms: What they may be signed by.
        scopes_claim: Path of the claim that scopes are read from.
        scope_map: Scopes by value of that claim.
        leeway_seconds: By how much clocks may differ.
    """

    issuer: str
    audience: str
    jwks_url: str
    algorithms: frozenset[str]
    scopes_claim: tuple[str, ...]
    scope_map: Mapping[str, frozenset[Scope]]
    leeway_seconds: int


@dataclass(frozen=True)
class AccessRules:
    """What the settings say on access.

    Attributes:
        rate: Rate of callers that have none of their own; None for no limit.
        origins: Origins whose pages may call from a browser.
        hosts: Host names that are answered to, in lower case; none for any.
        proxies: Networks of proxies whose headers are believed.
        user_header: Header that names the user, in lower case; empty where none does.
        user_scopes: What such users may.
        metrics_networks: Networks that may read the metrics without a key.
        oidc: Which tokens are accepted; None where none are.
    """

    rate: Rate | None
    origins: tuple[str, ...]
    hosts: frozenset[str]
    proxies: tuple[Network, ...]
    user_header: bytes
    user_scopes: frozenset[Scope]
    metrics_networks: tuple[Network, ...]
    oidc: OidcRules | None


class _Problems:
    """Gathers what is wrong with settings, by name."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def tell(self, name: str, problem: str) -> None:
        self.found.append(f"  - {PREFIX}{name.upper()}: {problem}")

    def rate(self, name: str, text: str) -> Rate | None:
        try:
            return parse_rate(text)
        except ValueError as error:
            self.tell(name, str(error))
            return None

    def networks(self, name: str, text: str) -> tuple[Network, ...]:
        found = list[Network]()
        for item in _items(text):
            try:
                found.append(ip_network(item))
            except ValueError as error:
                self.tell(name, f"{error}; write an address or a network such as 10.0.0.0/8")
        return tuple(found)

    def scopes(self, name: str, items: Iterable[str]) -> frozenset[Scope]:
        found = frozenset(items)
        if unknown := sorted(found - {*SCOPES}):
            self.tell(name, f"there is no scope {', '.join(unknown)}; scopes are {', '.join(SCOPES)}")
        return cast("frozenset[Scope]", found & {*SCOPES})

    def address(self, name: str, url: str) -> None:
        """Keys and tokens are fetched over TLS, unless from this machine."""
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in LOOPBACK_NAMES
        if not (parts.hostname and (parts.scheme == "https" or local)):
            self.tell(name, f"{url!r} is no address that begins with https://")

    def origins(self, text: str) -> tuple[str, ...]:
        found = tuple(_items(text))
        for item in found:
            parts = urlsplit(item)
            if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != item:
                self.tell("api_allowed_origins", f"{item!r} is no origin such as https://tools.example.com")
        return found


def access_rules(settings: Settings) -> AccessRules:
    """What the settings say on access.

    Raises:
        TurnoverError: Some cannot be used; lists all of them.
    """
    problems = _Problems()
    found = AccessRules(
        problems.rate("api_rate", settings.api_rate),
        problems.origins(settings.api_allowed_origins),
        frozenset(host.lower() for host in _items(settings.allowed_hosts)),
        problems.networks("trusted_proxies", settings.trusted_proxies),
        (settings.proxy_user_header or "").lower().encode(),
        problems.scopes("proxy_user_scopes", _items(settings.proxy_user_scopes)),
        problems.networks("metrics_networks", settings.metrics_networks),
        _oidc(settings, problems),
    )
    if problems.found:
        raise TurnoverError(
            "Some settings of access cannot be used:\n"
            + "\n".join(problems.found)
            + "\nCorrect the environment variables named; docs/access.md describes them."
        )
    return found


def _oidc(settings: Settings, problems: _Problems) -> OidcRules | None:
    if not settings.oidc_issuer:
        if settings.oidc_audience or settings.oidc_jwks_url:
            problems.tell("oidc_issuer", "is not set, although other settings of OIDC are")
        return None
    if not settings.oidc_audience:
        problems.tell(
            "oidc_audience", "is not set: a token that is meant for another service must be refused"
        )
    problems.address("oidc_issuer", settings.oidc_issuer)
    if settings.oidc_jwks_url:
        problems.address("oidc_jwks_url", settings.oidc_jwks_url)
    algorithms = frozenset(_items(settings.oidc_algorithms))
    if not algorithms or algorithms - ASYMMETRIC:
        problems.tell("oidc_algorithms", f"can be {', '.join(sorted(ASYMMETRIC))}, with commas between")
    return OidcRules(
        settings.oidc_issuer,
        settings.oidc_audience or "",
        settings.oidc_jwks_url or "",
        algorithms,
        tuple(settings.oidc_scopes_claim.split(".")),
        _scope_map(settings.oidc_scope_map, problems),
        settings.oidc_leeway_seconds,
    )


def _scope_map(text: str, problems: _Problems) -> dict[str, frozenset[Scope]]:
    """Scopes by value of the claim; without a map each scope's own name stands for it."""
    if not text.strip():
        return {scope: frozenset({scope}) for scope in SCOPES}
    found = dict[str, frozenset[Scope]]()
    for item in _items(text):
        value, equals, scopes = item.partition("=")
        if not (value and equals and scopes):
            problems.tell("oidc_scope_map", f"{item!r} is not of the form value=read+what-if")
        found[value] = problems.scopes("oidc_scope_map", scopes.split("+") if scopes else ())
    return found


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
