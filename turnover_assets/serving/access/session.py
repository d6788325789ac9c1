"""Signing in to the web page: a session cookie bound to a key, and tokens against forged forms.

What belongs here: making, reading and ending sessions, and CSRF tokens. What does not: the page that asks for
the key, and recognising callers of the API.

The web page uses it so (`access.install(app, settings, login="/login")` accepts sessions, lets the pages of
signing in be seen by everybody, and leads to them whom it does not recognise):

    @app.post("/login")                    # public; the form has the fields key and next
    async def sign_in(request: Request, key: Annotated[str, Form()], next: Annotated[str, Form()] = "/"):
        return session.login(request, key, next)      # 303 with the cookie; a wrong key is a Problem(401)

    @app.post("/logout")
    async def sign_out(request: Request, csrf: Annotated[str, Form()]):
        session.check_csrf(request, csrf)
        return session.logout(request, "/login")

    # In each form, of session.csrf_token(request):  <input type="hidden" name="csrf" value="{{ csrf }}">
    # In each route that changes something:  session.check_csrf(request, csrf), which raises Problem(403)

`request.state.caller` is the caller as in the API, with the key's scopes as they are now. A user whom a proxy
names, and whoever uses a server without keys on its own machine, needs no session: the caller is there at
once, csrf_token and check_csrf work alike, and `can_sign_out(request)` is false.

A session is a text that is signed with the home's secret and holds the id of the key, an end, and a number
that was drawn; nothing of it is kept, so that every process of a home reads it and none is lost by a restart.
It ends when the key does, at its end, or by signing out (which the process that did it remembers; others
forget a stolen cookie by its end or with its key). The cookie is HttpOnly, SameSite=Strict and, over TLS,
Secure.
"""

import base64
import binascii
import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from turnover_assets.serving.access.peers import Headers, is_https
from turnover_assets.serving.audit import note
from turnover_assets.serving.problems import Problem

if TYPE_CHECKING:
    from turnover_assets.serving.access.recognition import Access

COOKIE, SECURE_COOKIE = "turnover_session", "__Host-turnover_session"
SECRET_BYTES = 32
OWNER_ONLY = 0o600
LARGEST = 100_000  # sessions that were signed out of and are remembered
LONGEST = 1000  # characters of a cookie
AGAIN = "Load the page again and send the form once more; sign in again if it asks for it."


@dataclass(frozen=True)
class Session:
    """A session that is in force.

    Attributes:
        key_id: Id of the key it was begun with.
        until: When it ends, in seconds since 1970.
        number: What was drawn for it.
    """

    key_id: str
    until: int
    number: str


class Sessions:
    """Makes and reads sessions.

    Args:
        path: File of the secret; made where it is missing.
        seconds: How long a session lasts at most.

    Attributes:
        problem: Why the secret could not be kept, so that sessions end with this process; empty where it was.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.problem = ""
        self._seconds = seconds
        self._ended: OrderedDict[str, None] = OrderedDict()
        try:
            self._secret = read_secret(path)
        except OSError as error:
            self._secret = secrets.token_bytes(SECRET_BYTES)
            self.problem = (
                f"{path} cannot be made or read ({error.strerror}): sessions of the web page end with this "
                "process, and several processes do not know each other's."
            )

    def begin(self, key_id: str) -> str:
        """The text of a new session of a key."""
        until = int(time.time() + self._seconds)
        content = json.dumps([key_id, until, secrets.token_hex(16)]).encode()
        return f"{_text(content)}.{_text(self._sign(b'session', content))}"

    def read(self, text: str) -> Session | None:
        """The session that a text is; None where it was not signed here, has ended, or was signed out of."""
        content, _, signature = text.partition(".")
        try:
            signed, given = _bytes(content), _bytes(signature)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(self._sign(b"session", signed), given):
            return None
        found = Session(*json.loads(signed))
        if found.until <= time.time() or found.number in self._ended:
            return None
        return found

    def end(self, session: Session) -> None:
        """Remember that a session was signed out of."""
        self._ended[session.number] = None
        if len(self._ended) > LARGEST:
            self._ended.popitem(last=False)

    def token(self, basis: str) -> str:
        """The CSRF token of a session, or of a caller who needs none."""
        return _text(self._sign(b"csrf", basis.encode()))

    def _sign(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._secret, purpose + b"\0" + content, "sha256")


def read_secret(path: Path) -> bytes:
    """The secret in a file, which is made in one step where it is missing; readable for its owner only.

    Raises:
        OSError: It cannot be made or read.
    """
    for _ in range(2):
        with suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) != SECRET_BYTES:
                raise OSError(0, f"it has {len(found)} bytes in place of {SECRET_BYTES}; delete it")
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".partial-{path.name}-{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        try:
            os.write(handle, secrets.token_bytes(SECRET_BYTES))
            os.fsync(handle)
            with suppress(FileExistsError):  # another process was quicker: its secret counts
                os.link(fresh, path)
        finally:
            os.close(handle)
            fresh.unlink(missing_ok=True)
    return path.read_bytes()


def login(request: Request, key: str, next_page: str = "/") -> Response:
    """Begin a session with a key.

    Args:
        request: The request of the form.
        key: What was entered.
        next_page: Where to go then: a path of this site; anything else leads to its beginning.

    Raises:
        Problem: The key is not accepted (401), too many were wrong (429), or another site sent it (403).
    """
    access: Access = request.app.state.access
    headers = headers_of(request)
    note(request, keep_body=False)
    check_same_site(headers)
    kept = access.sign_in(key.strip(), request.scope, headers)
    response = RedirectResponse(_inner(next_page), 303)
    secure = is_https(request.scope, headers, access.rules.proxies)
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        access.sessions.begin(kept.key_id),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )
    request.state.caller = access.caller_of(kept)
    return response


def logout(request: Request, next_page: str = "/") -> Response:
    """End the session, if there is one, and go to a page."""
    access: Access = request.app.state.access
    found = session_of(request)
    if found is not None:
        access.sessions.end(found)
    response = RedirectResponse(_inner(next_page), 303)
    for name in (COOKIE, SECURE_COOKIE):
        response.delete_cookie(name, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="strict")
    return response


def session_of(request: Request) -> Session | None:
    """The session that the caller was recognised by; None where there is none."""
    found: Session | None = getattr(request.state, "session", None)
    return found


def can_sign_out(request: Request) -> bool:
    """Whether there is a session to sign out of."""
    return session_of(request) is not None


def csrf_token(request: Request) -> str:
    """What a form of this page has to carry."""
    access: Access = request.app.state.access
    return access.sessions.token(_basis(request))


def check_csrf(request: Request, token: str) -> None:
    """Make sure that a form came from a page of ours.

    Raises:
        Problem: It did not (403).
    """
    check_same_site(headers_of(request))
    if not hmac.compare_digest(csrf_token(request).encode(), token.encode()):
        raise Problem(403, "The form does not belong to the session that is open.", AGAIN, "csrf")


def check_same_site(headers: Headers) -> None:
    """Make sure that a browser does not send this on behalf of another site's page.

    Raises:
        Problem: It does (403).
    """
    site = headers.get(b"sec-fetch-site")
    origin = headers.get(b"origin")
    foreign = site is not None and site not in (b"same-origin", b"none")
    if site is None and origin is not None:
        foreign = urlsplit(origin).netloc.lower() != headers.get(b"host", b"").lower()
    if foreign:
        raise Problem(
            403,
            "This was sent by a page of another site.",
            "Use the pages of this service itself, or its API with a key.",
        )


def cookie_session(headers: Headers, sessions: Sessions) -> Session | None:
    """The session that a request's cookies carry; None where they carry none that is in force."""
    cookies = headers.get(b"cookie")
    if cookies is None:
        return None
    for item in cookies.decode("latin-1").split(";"):
        name, _, value = item.strip().partition("=")
        if (
            name in (COOKIE, SECURE_COOKIE)
            and len(value) <= LONGEST
            and (found := sessions.read(value.strip('"')))
        ):
            return found
    return None


def headers_of(request: Request) -> dict[bytes, bytes]:
    """The headers of a request, by name in lower case."""
    return dict(request.scope["headers"])


def _basis(request: Request) -> str:
    """What a CSRF token is bound to."""
    found = session_of(request)
    if found is not None:
        return f"session {found.number}"
    caller = getattr(request.state, "caller", None)
    return f"caller {caller.id}" if caller else "nobody"


def _inner(page: str) -> str:
    """A path of this site; its beginning where a page is of another one."""
    parts = urlsplit(page)
    plain = page.startswith("/") and not page.startswith("//") and "\\" not in page and page.isprintable()
    return page if plain and not (parts.scheme or parts.netloc) else "/"


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
