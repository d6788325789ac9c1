"""API keys as texts: their form, their checksum, what they permit and how often.

What belongs here: composing and recognising keys, scopes, rates. What does not: drawing secrets and keeping
keys (storage/api_keys.py), and who presents one (serving/access).

A key reads `ta_<id>_<secret>`: 8 letters and digits that name it, 32 that are secret (190 bits), and 6 of a
checksum over all before it. So scanners of source code find keys that were committed, with next to no false
alarm, by `KEY_PATTERN` and the checksum; and a key that was mistyped or cut short is told from one that is
unknown, without looking anything up.

Kept is the SHA-256 of a key. A slow hash such as bcrypt guards secrets that people choose, of which an
attacker can try the likely ones; of 2**190 secrets none is likelier than another, so slowness would only
cost: some tenth of a second of each request, and a way to keep the service busy with wrong keys.
"""

import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

Scope = Literal["read", "what-if", "adjust", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "ta"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 8, 32, 6
KEY_PATTERN = rf"{PREFIX}_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
WHOLE = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")
KEY_LIKE = re.compile(rf"{PREFIX}_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]*")  # also of a part of a key
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
RATE = re.compile(rf"([1-9]\d{{0,8}})/({'|'.join(SECONDS)})")
UNLIMITED = "unlimited"


@dataclass(frozen=True)
class Rate:
    """How many requests are answered in how many seconds.

    Attributes:
        requests: How many, which is also how many may come at once.
        seconds: In how many seconds.
    """

    requests: int
    seconds: int

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in SECONDS.items() if seconds == self.seconds)
        return f"{self.requests}/{unit}"


def parse_rate(text: str) -> Rate | None:
    """A rate as a person writes it; None for `unlimited`.

    Raises:
        ValueError: It is none.

    Example:
        >>> parse_rate("600/minute")
        Rate(requests=600, seconds=60)
    """
    if text == UNLIMITED:
        return None
    found = RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate such as 600/minute; units are {', '.join(SECONDS)}")
    return Rate(int(found[1]), SECONDS[found[2]])


def compose_key(key_id: str, secret: str) -> str:
    """The key of an id and a secret, both of ALPHABET and of their lengths.

    Example:
        >>> key_id_of(compose_key("A" * 8, "b" * 32))
        'AAAAAAAA'
    """
    begin = f"{PREFIX}_{key_id}_{secret}"
    return begin + _checksum(begin)


def key_id_of(text: str) -> str | None:
    """The id in a key; None where the text is no key: of another form, mistyped, or cut short."""
    found = WHOLE.fullmatch(text)
    if found is None or _checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return found[1]


def named_id(text: str) -> str:
    """The id that a text of the form of a key names, whatever its checksum; empty where it names none."""
    found = WHOLE.fullmatch(text)
    return found[1] if found else ""


def key_digest(key: str) -> bytes:
    """What is kept of a key."""
    return sha256(key.encode()).digest()


def _checksum(text: str) -> str:
    """The CRC-32 of a text in base 62."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
