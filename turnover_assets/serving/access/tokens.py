"""OIDC bearer tokens: whose they are, and what they permit.

What belongs here: judging a token, and the issuer's keys. What does not: keys of our own (keyring.py).

The issuer's keys are fetched in a thread of their own, at most one at a time, so that no other request waits:
at the first token, at a key id that is not known (no more often than every half minute, since anybody can
make up such an id), and each hour, so that a key which the issuer withdrew is not accepted for longer. While
the issuer cannot be reached, the keys that are known hold for a day.

A token that was accepted is remembered by its digest until it ends, for five minutes at most.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import jwt

from turnover_assets.core.api_keys import Scope
from turnover_assets.serving.access.rules import LOOPBACK_NAMES, OidcRules

log = logging.getLogger(__name__)

DISCOVERY = "/.well-known/openid-configuration"
FETCH_SECONDS = 5.0
LARGEST_DOCUMENT = 1_000_000
UNKNOWN_SECONDS = 30.0  # between two fetches because of a key id that is not known
FRESH_SECONDS, USABLE_SECONDS = 3600.0, 86_400.0
REMEMBERED, REMEMBERED_SECONDS = 10_000, 300.0
LONGEST_TOKEN = 8192
OF_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
REQUIRED = ("exp", "iss", "aud", "sub")
NAMES = ("preferred_username", "name", "email", "azp", "client_id", "sub")


@dataclass(frozen=True)
class Bearer:
    """Whose a token is.

    Attributes:
        subject: The issuer's id of a person or program.
        name: For people.
        scopes: What may be done.
    """

    subject: str
    name: str
    scopes: frozenset[Scope]


class WrongTokenError(Exception):
    """A token that is not accepted.

    Args:
        reason: Short name of the reason, for the metrics.
        detail: What is wrong, in a sentence.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class IssuerKeys:
    """The keys of the issuer, by id.

    Args:
        rules: Whose keys.
        clock: Gives seconds that never go back.
    """

    def __init__(self, rules: OidcRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock = rules, clock
        self._keys: Mapping[tuple[str, str], jwt.PyJWK] = {}
        self._document: Mapping[str, Any] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock, self._under_way = Lock(), Future[None]()
        self._under_way.set_result(None)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="jwks")
        self.version = 0  # of the keys, so that what was judged by others is judged again
        self.problem = ""

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """The key of an id for an algorithm; without an id the only key there is for it.

        Raises:
            WrongTokenError: There is none.
        """
        found = self._known(key_id, algorithm)
        if found is None:
            if self._clock() - self._tried_at >= UNKNOWN_SECONDS:
                self.refresh()
            await asyncio.wrap_future(self._under_way)  # which may be done before it is waited for
            found = self._known(key_id, algorithm)
        if found is None:
            if self.problem and not self._keys:
                raise WrongTokenError("issuer", f"The issuer's keys cannot be read: {self.problem}.")
            raise WrongTokenError("unknown_key", "The token is signed by a key that its issuer has not.")
        if self._clock() - self._fetched_at > FRESH_SECONDS < self._clock() - self._tried_at:
            self.refresh()  # whoever asked does not wait for it
        return found

    def refresh(self) -> "Future[None]":
        """Fetch the keys in another thread, unless that is under way."""
        with self._lock:
            if self._under_way.done():
                self._tried_at = self._clock()
                self._under_way = self._threads.submit(self._fetch)
            return self._under_way

    def _known(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        if self._clock() - self._fetched_at > USABLE_SECONDS:
            return None
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, each), key in self._keys.items() if each == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _fetch(self) -> None:
        try:
            url = self._rules.jwks_url or self._discovered()
            document = _document(url)
            keys = dict(_usable(document, self._rules.algorithms))
        except Exception as error:  # noqa: BLE001  (whatever it is, the keys that are known go on)
            self.problem = str(error) or type(error).__name__
            log.warning("The keys of %s cannot be read: %s", self._rules.issuer, self.problem)
            return
        if not keys:
            self.problem = "it has no usable key"
            return
        self.problem, self._fetched_at = "", self._clock()
        if document != self._document:
            self._keys, self._document, self.version = keys, document, self.version + 1

    def _discovered(self) -> str:
        document = _document(self._rules.issuer.rstrip("/") + DISCOVERY)
        if document.get("issuer") != self._rules.issuer:
            raise ValueError(f"its discovery document is of the issuer {document.get('issuer')!r}")
        return str(document["jwks_uri"])


class Tokens:
    """Judges tokens."""

    def __init__(self, rules: OidcRules, keys: IssuerKeys | None = None) -> None:
        self._rules = rules
        self.keys = keys or IssuerKeys(rules)
        self._accepted: OrderedDict[bytes, tuple[float, int, Bearer]] = OrderedDict()

    def known(self, token: bytes) -> Bearer | None:
        """Whose a token is that was accepted a short time ago; None where it was not."""
        found = self._accepted.get(sha256(token).digest())
        if found is None or found[0] <= time.time() or found[1] != self.keys.version:
            return None
        return found[2]

    async def accept(self, token: bytes) -> Bearer:
        """Whose a token is.

        Raises:
            WrongTokenError: It is not accepted.
        """
        if len(token) > LONGEST_TOKEN:
            raise WrongTokenError("malformed", "The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise WrongTokenError("malformed", "What follows Bearer is neither a key nor a token.") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms:
            raise WrongTokenError("algorithm", "The token is signed by an algorithm that is not accepted.")
        key = await self.keys.find(key_id if isinstance(key_id, str) else None, algorithm)
        version = self.keys.version
        claims = self._claims(token, key, algorithm)
        bearer = Bearer(str(claims["sub"]), _name(claims), self._scopes(claims))
        self._remember(token, float(claims["exp"]), version, bearer)
        return bearer

    def _claims(self, token: bytes, key: jwt.PyJWK, algorithm: str) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=self._rules.leeway_seconds,
                options={"require": list(REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            raise WrongTokenError("expired", "The token has expired.") from None
        except jwt.InvalidAudienceError:
            raise WrongTokenError("audience", "The token is meant for another service.") from None
        except jwt.PyJWTError as error:
            raise WrongTokenError("invalid", f"The token is not accepted: {error}.") from None

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        """What the claim gives; values that stand for no scope give none."""
        value: Any = claims
        for name in self._rules.scopes_claim:
            value = value.get(name) if isinstance(value, Mapping) else None
        values = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
        found = (self._rules.scope_map.get(each) for each in values if isinstance(each, str))
        return frozenset().union(*(scopes for scopes in found if scopes))

    def _remember(self, token: bytes, expires: float, version: int, bearer: Bearer) -> None:
        until = min(expires + self._rules.leeway_seconds, time.time() + REMEMBERED_SECONDS)
        self._accepted[sha256(token).digest()] = until, version, bearer
        if len(self._accepted) > REMEMBERED:
            self._accepted.popitem(last=False)


def _name(claims: Mapping[str, Any]) -> str:
    return next((str(claims[name])[:200] for name in NAMES if claims.get(name)), "")


def _usable(
    document: Mapping[str, Any], algorithms: frozenset[str]
) -> Iterator[tuple[tuple[str, str], jwt.PyJWK]]:
    """The keys of a document that are meant for signatures, by id and algorithm."""
    for entry in document["keys"]:
        if entry.get("use", "sig") != "sig":
            continue
        # A key of RSA that names no algorithm serves several; one of another kind serves a single one.
        several = entry.get("kty") == "RSA" and not entry.get("alg")
        for algorithm in sorted(algorithms & OF_RSA) if several else [None]:
            with suppress(jwt.PyJWTError):  # of a kind that is not known here
                key = jwt.PyJWK(entry, algorithm)
                if key.algorithm_name in algorithms:
                    yield (str(entry.get("kid", "")), key.algorithm_name), key


def _document(url: str) -> Mapping[str, Any]:
    """A JSON document, over TLS unless it is on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK_NAMES):
        raise ValueError(f"{url!r} is no address that begins with https://")
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "turnover-assets"})  # noqa: S310
    with urlopen(request, timeout=FETCH_SECONDS) as answer:  # noqa: S310
        content = answer.read(LARGEST_DOCUMENT + 1)
    if len(content) > LARGEST_DOCUMENT:
        raise ValueError("the document is too large")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("the document is no object")  # noqa: TRY004
    return found
