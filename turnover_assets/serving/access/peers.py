"""Where a request comes from: its peer, the client behind trusted proxies, and the host it was meant for.

What belongs here: addresses, and which headers of proxies are believed. What does not: who the caller is.

A proxy writes the address of its own peer at the end of X-Forwarded-For. So the client is the last address
there that is not itself a trusted proxy's; what stands before it, the client may have made up.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any

from turnover_assets.serving.access.rules import Network

Headers = Mapping[bytes, bytes]
FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-forwarded-host", b"x-real-ip", b"via")
LONGEST_CHAIN = 20  # proxies, beyond which the header is made up


def peer_of(scope: Mapping[str, Any]) -> str:
    """Address of the other end of the connection; empty where there is none, as for a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


@lru_cache(maxsize=8192)
def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address belongs to one of some networks; no text but an address does."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


@lru_cache(maxsize=8192)
def is_loopback(address: str) -> bool:
    """Whether an address is of this machine itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def client_of(peer: str, headers: Headers, proxies: tuple[Network, ...]) -> str:
    """Address of the client: the peer, or whom trusted proxies say they speak for."""
    chain = headers.get(b"x-forwarded-for")
    if chain is None or not is_within(peer, proxies):
        return peer
    client = peer
    for text in reversed(chain.decode("latin-1").split(",")[-LONGEST_CHAIN:]):
        if not (address := _address(text)):
            break
        client = address
        if not is_within(address, proxies):
            break
    return client


def _address(text: str) -> str:
    """An address as it stands in X-Forwarded-For, without a port; empty where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


@lru_cache(maxsize=8192)
def limit_name(address: str) -> str:
    """What limits count an address as: a customer of IPv6 has at least a network of 2**64 of them."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)


def host_name(host: bytes) -> str:
    """The name in a Host header, in lower case, without the port."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_https(scope: Mapping[str, Any], headers: Headers, proxies: tuple[Network, ...]) -> bool:
    """Whether the client speaks TLS, with us or with a trusted proxy."""
    if is_within(peer_of(scope), proxies) and b"x-forwarded-proto" in headers:
        return headers[b"x-forwarded-proto"].strip().lower() == b"https"
    return bool(scope.get("scheme") == "https")


def is_forwarded(headers: Headers) -> bool:
    """Whether a proxy passed the request on, as far as it says so."""
    return any(name in headers for name in FORWARDING)
