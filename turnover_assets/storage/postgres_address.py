"""Addresses of Postgres databases, taken apart so that no message holds their password.

What belongs here: the parts of an address. What does not: what is asked of a database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

PASSWORDS = ("password", "sslpassword")  # as libpq names them among the options
DEFAULTS = {"connect_timeout": "10", "application_name": "turnover-assets"}
ESCAPE = "Write such characters as %2F, %3F and %40."


@dataclass(frozen=True)
class Parts:
    """An address in parts, so that a password never gets into a message of the library.

    Attributes:
        servers: Hosts and ports.
        database: Name of the database; empty for the user's own.
        address: The address without passwords.
        secrets: Passwords, by the name that libpq gives them.
    """

    servers: str
    database: str
    address: str
    secrets: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> "Parts":
        """Take an address apart.

        Raises:
            ValueError: A character of the password makes that impossible; says which, and ESCAPE what to do.
        """
        rest = url.partition("://")[2]
        authority = rest[: min([len(rest), *(rest.find(c) for c in "/?" if c in rest)])]
        tail = rest[len(authority) :]
        if "@" in tail:
            raise ValueError("its user or password holds a / or ?, or its options an @")
        path, _, query = tail.partition("?")
        user, _, password = authority.rpartition("@")[0].partition(":")
        servers = authority.rpartition("@")[2]
        options = {**DEFAULTS, **dict(parse_qsl(query))}
        secrets = {str(name): options.pop(name) for name in PASSWORDS if name in options}
        if password:
            secrets["password"] = unquote(password)
        address = f"postgresql://{user}@{servers}{path}?{urlencode(options, quote_via=quote)}"
        return cls(servers, path.strip("/"), address if user else address.replace("@", "", 1), secrets)

    def without_secrets(self, text: str) -> str:
        """A text in which no password stands, neither as it is nor as addresses write it."""
        for secret in self.secrets.values():
            for written in (secret, quote(secret, safe="")):
                text = text.replace(written, "***")
        return text
