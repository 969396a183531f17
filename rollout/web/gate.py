"""Who may ask: the outermost layer, before any routing. What is not in PUBLIC wants the token, whatever it is.

The address is compared as the router sees it: decoded once, by the server, and never again. Nothing here rewrites it,
so there are no two readings of one address.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable

import structlog
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.web.errors import Unauthorized, answer
from rollout.web.plain import plain
from rollout.webhooks import PROVIDERS

log = structlog.get_logger()

USER = "rollout"  # of HTTP Basic, for browsers
PUBLIC = frozenset(
    {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
    | {("POST", f"/webhooks/{name}") for name in PROVIDERS}
)
REMEDY = (
    "send `Authorization: Bearer TOKEN`; the token is the line in server.api_token_file. A browser asks for a name,"
    f" which is {USER}, and a password, which is the token"
)


class Gate:
    """Lets through what is public, and who has the token."""

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._token = token.get_secret_value().encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            if (scope["method"], scope["path"]) in PUBLIC or self._knows(scope):
                await self._app(scope, receive, send)
            else:
                log.info("unauthorized", method=scope["method"][:10], path=plain(scope["path"])[:200])
                await _refusal(scope)(scope, receive, send)
        # Anything else (a websocket) is neither answered nor passed on; the server closes it.

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not self._token:
            return False
        scheme, _, credentials = given[0].partition(b" ")
        match scheme.lower():
            case b"bearer":
                return hmac.compare_digest(credentials.strip(), self._token)
            case b"basic":
                # A browser sends these by itself, so they must never be enough to change something.
                return _may_be_basic(scope) and self._is_password(credentials.strip())
            case _:
                return False

    def _is_password(self, credentials: bytes) -> bool:
        try:
            user, _, password = base64.b64decode(credentials, validate=True).partition(b":")
        except binascii.Error:
            return False
        known = hmac.compare_digest(user, USER.encode())
        return hmac.compare_digest(password, self._token) and known


def _may_be_basic(scope: Scope) -> bool:
    method, path = str(scope["method"]), str(scope["path"])
    return method == "GET" and (path == "/" or path.startswith("/api/"))


def _refusal(scope: Scope) -> ASGIApp:
    scheme = 'Basic realm="rollout", charset="UTF-8"' if scope["path"] == "/" else 'Bearer realm="rollout"'
    headers = {"WWW-Authenticate": scheme}
    if _has_body(scope["headers"]):
        headers["Connection"] = "close"  # a stranger's body is not waited for
    return answer(Unauthorized(remedy=REMEDY), headers)


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} and value != b"0" for name, value in headers)
