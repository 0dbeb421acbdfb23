"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` and a status that says whose fault it is."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from ..core.errors import UserError, one_line

KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 429: "rate_limit_error", 431: "invalid_request_error",
    500: "server_error", 503: "unavailable_error", 504: "timeout_error",
}  # fmt: skip

CODE = "llamaherd.code"
"""Where the scope of a request that was refused says why."""


class ApiError(Exception):
    """A request that gets no answer. `param` names the field at fault, `code` is for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return _Told(self)


class _Told(JSONResponse):
    """Leaves its code in the scope, for whoever counts."""

    def __init__(self, error: ApiError):
        super().__init__(error.body, error.status, error.headers)
        self._code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CODE] = self._code
        await super().__call__(scope, receive, send)


def busy(retry_after_s: int = 1) -> ApiError:
    """For a full queue."""
    return ApiError(429, "the server is busy: its queue is full; try again later", code="busy", headers={"Retry-After": str(retry_after_s)})


def failure(error: Exception) -> ApiError:
    """For what is our fault. What the error says stays here: it may quote a user, or name files."""
    return ApiError(500, f"the server failed ({type(error).__name__}); its log says where")


def add_handlers(app: FastAPI, routes: Sequence[Route]) -> None:
    """Every error of every one of these routes in the one envelope."""

    @app.exception_handler(ApiError)
    async def of_ours(_: Request, error: ApiError) -> JSONResponse:
        return error.response

    @app.exception_handler(UserError)
    async def of_the_user(_: Request, error: UserError) -> JSONResponse:
        return ApiError(400, str(error)).response

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        headers, message = dict(error.headers or {}), str(error.detail)
        if error.status_code == 404:
            message = f"there is no {one_line(request.url.path, 100)}; GET /openapi.json lists what there is"
        if error.status_code == 405:
            # The framework names the methods of one route alone, and a path may have several.
            known = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
            headers["Allow"] = ", ".join(sorted(set().union(*known))) or headers.get("Allow", "")
            message = (
                f"{one_line(request.method, 20)} is not for {one_line(request.url.path, 100)}; it takes {headers['Allow'] or 'others'}"
            )
        return ApiError(error.status_code, message, headers=headers).response

    @app.exception_handler(Exception)
    async def of_the_server(_: Request, error: Exception) -> JSONResponse:
        return failure(error).response

    @app.exception_handler(RequestValidationError)
    async def of_the_schema(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = error.errors()
        named = [(_place(problem["loc"][1:], error.body, problem["type"]), problem["msg"]) for problem in problems[:5]]
        message = "; ".join(f"{name or 'the body'}: {said}" for name, said in named)
        return ApiError(400, one_line(message, 500), param=named[0][0] or None).response


def _place(loc: Sequence[int | str], body: Any, kind: str) -> str:
    """The field that a complaint is about, without the names of the types that it might have had."""
    named: list[str] = []
    for number, part in enumerate(loc, 1):
        steps = (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int) and part < len(body))
        if steps or (kind == "missing" and number == len(loc)):
            named.append(str(part))
            body = body[part] if steps else None
    return ".".join(named)
