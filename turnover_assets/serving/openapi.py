"""What the OpenAPI says beside what routes say themselves: errors, headers, what the service is.

What belongs here: texts that many routes share. What does not: what one route takes and answers.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from turnover_assets.panel import PanelSpec
from turnover_assets.serving.access.middleware import DOCS_FILES, METRICS, PUBLIC
from turnover_assets.serving.origin import Origin
from turnover_assets.serving.problems import MEDIA_TYPE, ProblemDocument

STATUSES = {
    304: "What `If-None-Match` names still holds.",
    401: "No valid key or token came with it.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    405: "The method is not possible here.",
    406: "The header `Accept` allows none of the formats.",
    410: "The snapshot that a page token names is gone; start again without it.",
    413: "The body is too long.",
    414: "The address is too long.",
    421: "The service is not called by that name.",
    422: "A parameter or a field of the body cannot be used.",
    429: "Too many requests; `Retry-After` says when to ask again.",
    500: "Something is wrong with the service.",
    503: "Ask again later: nothing is served yet, or there is too much to do.",
}
EVERYWHERE = (400, 413, 414, 421, 422, 500, 503)
FOR_CALLERS = (401, 403, 429)  # where a caller must be recognised
SECURITY = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key of `turnover keys`.",
    },
    "token": {"type": "http", "scheme": "bearer", "description": "A key, or a token of OIDC."},
}
_TEXT = {"schema": {"type": "string"}}
_ORIGIN = Origin("2017-06-10_20170613T040512_a7c7db", "2017-06-10", 4, "105fc200829f06bd")
ROW_HEADERS = {
    **{name: _TEXT | {"example": example} for name, example in _ORIGIN.headers.items()},
    "X-Turnover-Role": _TEXT | {"description": "Of forecasts: whose they are, or `mixed`."},
    "ETag": _TEXT | {"description": "Send it as If-None-Match to be told whether it still holds."},
    "Link": _TEXT | {"description": 'Address of the next page, as `rel="next"`.'},
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI says of answers with these statuses."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": STATUSES.get(status, "The request cannot be understood.")}
    if status >= 400:
        schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
        described["content"] = {MEDIA_TYPE: {"schema": schema}}
    return described


def about(panel: PanelSpec) -> dict[str, Any]:
    """What the service says of itself."""
    keys = ", ".join(panel.keys)
    return {
        "title": "Turnover forecasts",
        "summary": f"Forecasts of {panel.target} by {keys}, for the next {panel.horizon} periods.",
        "description": DESCRIPTION,
        "license_info": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        "redoc_url": None,
        "static_url": DOCS_FILES,  # the page's scripts: it works without internet too
        "telemetry": {"tracing": False, "metrics": False},
        "openapi_tags": [
            {"name": "forecasts", "description": "What is published, and what it was made of."},
            {"name": "what-if", "description": "Forecasts as they would be."},
            {"name": "inference", "description": "For clients of MLflow and of the Open Inference Protocol."},
            {"name": "operation", "description": "For those who run the service."},
        ],
    }


DESCRIPTION = """
Answers come from the published snapshot that is current, and every one names it (`served`, and headers).
Rows come as JSON, CSV, Arrow or Parquet, by the parameter `format` or the header `Accept`, and in pages:
follow `next` or the header `Link`, and all pages come from one snapshot, whatever is published meanwhile.
Errors are problem documents (RFC 9457) that name the field, what is wrong with it, and what to do. A key
comes in the header `X-API-Key`, or as `Authorization: Bearer`.
"""


def install(app: FastAPI) -> None:
    """Let the OpenAPI document of an app have what routes do not say themselves."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=app.openapi_version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info=app.license_info,
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    template = "#/components/schemas/{model}"
    problem = ProblemDocument.model_json_schema(ref_template=template)
    schemas.update(problem.pop("$defs", {}))
    schemas[ProblemDocument.__name__] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    found["components"]["securitySchemes"] = SECURITY
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _complete(operation, path)
    return found


def _complete(operation: dict[str, Any], path: str) -> None:
    """Say of a route what holds for every one."""
    responses, is_public = operation["responses"], path in PUBLIC
    for status in EVERYWHERE if is_public else (*EVERYWHERE, *FOR_CALLERS):
        if str(status) not in responses or status == 422:
            responses[str(status)] = _problem(status)
    if not is_public:
        anybody: list[dict[str, list[str]]] = [{}] if path == METRICS else []  # from some networks
        operation["security"] = [*anybody, *({name: []} for name in SECURITY)]
