"""Where a server may listen: on loopback only, as long as it recognises nobody.

What belongs here: that decision, what is said about it, and how uvicorn must be started so that access holds.
What does not: recognising callers (middleware.py).
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from turnover_assets.errors import TurnoverError
from turnover_assets.serving.access.rules import LOOPBACK_NAMES, AccessRules, access_rules
from turnover_assets.settings import Settings
from turnover_assets.storage.api_keys import KeyStore

# Headers of proxies are judged here, by TURNOVER_TRUSTED_PROXIES. A log of requests by uvicorn would hold a
# key that somebody wrote into an address; the audit holds what it would tell.
SERVER_OPTIONS: Mapping[str, Any] = {
    "proxy_headers": False,
    "server_header": False,
    "access_log": False,
}


def check_exposure(settings: Settings, host: str) -> str:
    """Make sure that a server may listen on a host.

    Args:
        settings: The settings.
        host: Where it is to listen: a name or an address.

    Returns:
        What to say at the start; empty where nothing is remarkable.

    Raises:
        TurnoverError: It may not, or the settings of access cannot be used.
    """
    ways, keys = ways_in(settings, access_rules(settings)), KeyStore(settings.keys_path).read()
    if ways:
        if ways == ["API keys"] and all(key.revoked_at for key in keys):
            return "Every API key is revoked, so nobody is let in: `turnover keys create` makes one."
        return ""
    if is_loopback_host(host):
        return (
            "No API key, OIDC issuer or proxy is configured: listening on loopback only, and whoever uses "
            "this machine may do everything. `turnover keys create` makes a key, and then keys are asked for."
        )
    raise TurnoverError(
        f"Listening on {host} is refused: no API key, OIDC issuer or proxy is configured, so everybody who "
        "reaches it could read and change everything. Make a key first: `turnover keys create --name NAME "
        "--scope read`; or listen on 127.0.0.1. See docs/access.md."
    )


def ways_in(settings: Settings, rules: AccessRules) -> list[str]:
    """By what callers are recognised; none where nothing is configured."""
    return [
        way
        for way, configured in {
            "API keys": bool(KeyStore(settings.keys_path).read()),
            "OIDC": rules.oidc is not None,
            "a proxy": bool(rules.user_header),
        }.items()
        if configured
    ]


def is_loopback_host(host: str) -> bool:
    """Whether what listens on a host is reached from this machine only."""
    if host.lower() in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
