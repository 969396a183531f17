"""Asking the real application without a network: exactly these bytes, doubled headers and odd addresses included."""

import asyncio
import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from pydantic import SecretStr

from rollout.config.settings import Settings
from rollout.web.app import build
from rollout.web.service import Limits

SECRET, TOKEN = "the webhook's secret", "the-api-token-of-the-tests"
BEARER = ("authorization", f"Bearer {TOKEN}")
PAYLOADS = Path(__file__).parents[1] / "unit" / "webhooks" / "payloads"
PATIENT = Limits(body_s=60, answer_s=60, order_s=60, probe_s=60, fresh_s=0)  # a loaded machine fails no test


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        """The body."""
        return json.loads(self.body)

    @property
    def text(self):
        """The body."""
        return self.body.decode()


class Client:
    """One event loop; every request is a call of the ASGI application."""

    def __init__(self, app):
        self.app = app
        self.runner = asyncio.Runner()

    def get(self, target, *headers):
        return self.ask("GET", target, *headers)

    def post(self, target, *headers, body=b"", pause=None):
        return self.ask("POST", target, *headers, body=body, pause=pause)

    def ask(self, method, target, *headers, body=b"", pause=None):
        """`body` is bytes, or an iterable of chunks; `pause` is awaited before each chunk."""
        return self.runner.run(self.asking(method, target, headers, body, pause))

    def together(self, *asked):
        """Answers to several requests at once, each given as (method, target, headers, body)."""

        async def all_of_them():
            return await asyncio.gather(
                *(self.asking(method, target, headers, body) for method, target, headers, body in asked)
            )

        return self.runner.run(all_of_them())

    async def asking(self, method, target, headers, body, pause=None):
        """As `ask`, on a loop that runs."""
        raw_path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),  # once, as uvicorn does
            "raw_path": raw_path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8300),
            "state": {},
        }
        chunks = iter([body] if isinstance(body, bytes) else body)
        sent, over = [], asyncio.Event()

        async def receive():
            if pause:
                await pause()
            try:
                return {"type": "http.request", "body": next(chunks), "more_body": True}
            except StopIteration:
                if not over.is_set():
                    over.set()
                    return {"type": "http.request", "body": b"", "more_body": False}
                return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        except Exception:
            if not sent:  # an error that was answered is raised again, for the server's log
                raise
        start = sent[0]
        return Answer(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in sent[1:]),
        )

    def close(self):
        self.app.state.service.close()
        self.runner.close()


def settings(**more):
    """Settings with a webhook secret and a token."""
    given = {"webhook_secrets": (SecretStr(SECRET),), "api_token": SecretStr(TOKEN), **more}
    return Settings().model_copy(update=given)


def an_application(deps, limits=PATIENT, **more):
    """The real application over these dependencies, with the tests' secrets."""
    return build(replace(deps, settings=settings(**more)), limits)


def push_body(sha="1" * 40, branch="main", repository="https://git.example.com/acme/shop.git", **more):
    """A GitHub push."""
    return json.dumps(
        {
            "ref": f"refs/heads/{branch}",
            "after": sha,
            "repository": {"full_name": "acme/shop", "clone_url": repository},
            **more,
        }
    ).encode()


def signature(body, secret=SECRET):
    """Hex HMAC-SHA256."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def github(body, *, event="push", delivery="d-1", secret=SECRET):
    """The headers of a signed GitHub webhook."""
    return (
        ("X-GitHub-Event", event),
        ("X-GitHub-Delivery", delivery),
        ("X-Hub-Signature-256", f"sha256={signature(body, secret)}"),
        ("Content-Type", "application/json"),
    )
