"""From our errors to HTTP answers: one table, and the one shape `{error, message, remedy}`."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rollout import errors
from rollout.web.plain import cleaned

RETRY_AFTER_S = 10


class Unauthorized(errors.RolloutError):
    """The token is missing or wrong."""


class TooLarge(errors.Unreadable):
    """The body is larger than it may be."""


class TooSlow(errors.Unreadable):
    """The body did not arrive in time."""


class NoSuchMethod(errors.RolloutError):
    """This address does not take that method."""


class Busy(errors.ServiceUnavailable):
    """Too much is asked of this service at once."""


# The nearest class of an error's ancestry counts.
STATUS: Mapping[type[errors.RolloutError], int] = {
    errors.RolloutError: 500,
    errors.ConfigError: 500,
    errors.UnknownName: 404,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.ServiceUnavailable: 503,
    errors.HostError: 502,
    errors.ProviderError: 502,
    errors.ReleaseError: 500,
    errors.SignatureInvalid: 401,
    errors.Unreadable: 400,
    Unauthorized: 401,
    TooLarge: 413,
    TooSlow: 408,
    NoSuchMethod: 405,
}


class Json(Response):
    """A JSON document in ASCII, its texts made plain."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The document's bytes."""
        return (json.dumps(cleaned(content), ensure_ascii=True, allow_nan=False) + "\n").encode()


def status_of(error: errors.RolloutError) -> int:
    """The HTTP status that says the same."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def answer(error: errors.RolloutError, headers: Mapping[str, str] | None = None) -> Json:
    """The answer that tells the error."""
    status, more = status_of(error), dict(headers or {})
    if status == 503:
        more["Retry-After"] = str(RETRY_AFTER_S)
    if status in {408, 413}:
        more["Connection"] = "close"  # what is still to come of the body is nobody's
    return Json(
        {"error": type(error).__name__, "message": str(error), "remedy": error.remedy}, status, headers=more
    )


async def on_rollout_error(_request: Request, error: Exception) -> Response:
    """For our own errors."""
    assert isinstance(error, errors.RolloutError)
    return answer(error)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """For the router's: no such address, no such method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return answer(NoSuchMethod(remedy="docs/http.md lists what there is"), error.headers)
    return answer(
        errors.NotFound("there is nothing at this address", remedy="docs/http.md lists what there is")
    )


async def on_surprise(_request: Request, _error: Exception) -> Response:
    """For what nobody thought of. The log has it; the answer tells nothing of it."""
    return answer(
        errors.RolloutError("an error that nobody expected", remedy="look into the log of `rollout web`")
    )
