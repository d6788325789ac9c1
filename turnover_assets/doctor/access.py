"""Checks of access: settings, keys, who could get in, and the audit of requests.

What belongs here: what decides who is let in, and whether that is recorded. What does not: the data
(data.py).
"""

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.storage.api_keys import ApiKey, KeyStore

SOON = timedelta(days=14)
LOOK_BACK = timedelta(days=7)
NAMES_SHOWN = 5


@check("access")
def access(patient: Patient) -> Iterator[Told]:
    """Settings of access can be used, keys are in force, and no server would be open to everybody."""
    from turnover_assets.serving.access.exposure import is_loopback_host, ways_in
    from turnover_assets.serving.access.rules import access_rules

    settings = patient.settings
    ways = ways_in(settings, access_rules(settings))
    exposed = {host for host in (settings.api_host, settings.dashboard_host) if not is_loopback_host(host)}
    if exposed and not ways:
        remedy = (
            "Make a key: `turnover keys create --name NAME --scope read`; until then servers refuse to start."
        )
        yield (
            "problem",
            f"servers are to listen on {', '.join(sorted(exposed))}, but nobody could be recognised",
            remedy,
        )
    elif not ways:
        yield "ok", "no key, OIDC or proxy: servers listen on loopback only"
    else:
        yield "ok", f"callers are recognised by {', '.join(ways)}"
    for path in (settings.keys_path, settings.session_secret_path):
        if path.exists() and _is_read_by_others(path):
            yield "warning", f"{path} can be read by other users of this machine", f"`chmod 600 {path}`"


@check("API keys")
def keys(patient: Patient) -> Iterator[Told]:
    """No key that is in use has expired or is about to."""
    found = KeyStore(patient.settings.keys_path).read()
    if not found:
        return
    active = [key for key in found if key.state(patient.now) in ("active", "replaced")]
    known = {key.name for key in active}
    expired = [key for key in found if key.state(patient.now) == "expired" and key.name not in known]
    soon = [key for key in active if _ends_soon(key, patient)]
    if expired:
        remedy = "`turnover keys revoke` those that nobody needs; make new ones for the others."
        yield "warning", f"expired: {_names(expired)}", remedy
    if soon:
        yield "warning", f"expire within {SOON.days} days: {_names(soon)}", "`turnover keys rotate KEY`"
    if not active:
        yield "warning", "no key is in force", "`turnover keys create --name NAME --scope read`"
    if active and not (expired or soon):
        yield "ok", f"{len(active)} keys in force"


@check("audit")
def audit(patient: Patient) -> Iterator[Told]:
    """The audit of requests can be read, and nothing was dropped lately."""
    from turnover_assets.storage.audit import AuditFilter, opened_audit
    from turnover_assets.storage.housekeeping import size_of

    folder = patient.settings.audit_path
    if not folder.is_dir():
        return
    with opened_audit(folder, AuditFilter(since=patient.now - LOOK_BACK)) as con:
        rows, dropped = con.execute(
            "SELECT count(*) FILTER (dropped = 0), coalesce(sum(dropped), 0)::BIGINT FROM audit"
        ).fetchall()[0]
    told = f"{rows:,} requests in {LOOK_BACK.days} days, {size_of(folder) / 1e6:,.1f} MB in all"
    if dropped:
        remedy = "Make room and permit writing there; see docs/access.md, «What the audit may lack»."
        yield "warning", f"{dropped:,} rows were dropped; {told}", remedy
    else:
        yield "ok", told


def _is_read_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _ends_soon(key: ApiKey, patient: Patient) -> bool:
    return not key.replaced_by and key.expires_at is not None and key.expires_at - patient.now < SOON


def _names(found: list[ApiKey]) -> str:
    shown = ", ".join(f"{key.name} ({key.key_id})" for key in found[:NAMES_SHOWN])
    return shown + (" …" if len(found) > NAMES_SHOWN else "")
