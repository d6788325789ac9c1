"""Who asks, and what they may: API keys, OIDC tokens, users whom a proxy names, sessions of the web page.

What belongs here: recognising callers before any route is reached, their limits, and the guard of each route.
What does not: what is asked (routes), the record of it (serving/audit.py), and keeping keys
(storage/api_keys.py).

A server uses it so:

    note = check_exposure(settings, host)       # raises where it must not listen there; else what to say
    access.install(app, settings)               # then audit.install(app, settings), which goes around it
    uvicorn.run(app, host=host, port=port, **access.SERVER_OPTIONS)

Afterwards `request.state.caller` is a Caller on every path that is not public, and routes guard themselves by
`Depends(require("read"))`.
"""

from turnover_assets.core.api_keys import SCOPES, Scope
from turnover_assets.serving.access.callers import LOCAL, Caller, require
from turnover_assets.serving.access.exposure import SERVER_OPTIONS, check_exposure
from turnover_assets.serving.access.middleware import install

__all__ = [
    "LOCAL",
    "SCOPES",
    "SERVER_OPTIONS",
    "Caller",
    "Scope",
    "check_exposure",
    "install",
    "require",
]
