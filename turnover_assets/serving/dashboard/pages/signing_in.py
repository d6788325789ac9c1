"""Signing in with a key, and out again.

What belongs here: the form. What does not: sessions (serving/access/session.py).
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from turnover_assets.serving.access import session
from turnover_assets.serving.dashboard.rendering import formats_of, html_answer, render
from turnover_assets.serving.problems import Problem

router = APIRouter()
LONGEST = 500


@router.get("/login")
def sign_in_page(request: Request) -> Response:
    """The form; whoever needs none is led on."""
    if request.state.caller is not None:
        return RedirectResponse("/", 303)
    return _form(request, request.query_params.get("next", "/"))


@router.post("/login")
def sign_in(
    request: Request,
    key: Annotated[str, Form(max_length=LONGEST)] = "",
    wanted: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Begin a session."""
    try:
        return session.login(request, key, wanted)
    except Problem as problem:
        if problem.status != 401:
            raise
        return _form(request, wanted, "This key is not known, or not in force any more.", 401)


@router.post("/logout")
def sign_out(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
    """End the session."""
    session.check_csrf(request, csrf)
    return session.logout(request, "/login")


def _form(request: Request, wanted: str, problem: str = "", status: int = 200) -> Response:
    html = render(
        request,
        "login",
        formats_of(request, request.app.state.panel, 0.0),
        title="Sign in",
        place="",
        shown=None,
        notices=[],
        caller=None,
        csrf="",
        can_sign_out=False,
        wanted=wanted,
        problem=problem,
    )
    return html_answer(request, html, status)
