"""`POST /api/commits/<sha>/checks`: what a CI server reports, as JSON or as its JUnit XML. It wants the Bearer token."""

import re
from functools import partial

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from rollout.config.deploy_file import AppConfig
from rollout.config.fields import CheckName
from rollout.domain.checks import NAME
from rollout.domain.model import Check, CheckState
from rollout.errors import Conflict, ServiceUnavailable, StaleWrite, Unreadable
from rollout.services import checks
from rollout.web.errors import Json
from rollout.web.orders import said
from rollout.web.service import Service
from rollout.webhooks import junit

SHA = re.compile(r"[0-9a-f]{40}")
URL = r"^[^\x00-\x20\x7f]{0,2048}$"


class Report(BaseModel):
    """The body."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    name: CheckName
    state: CheckState
    url: str = Field(default="", pattern=URL)


class Checks:
    """What CI servers may say."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def report(self, request: Request) -> Response:
        """Kept for every app that lets reports decide, or for `?app=`; 202 says what followed."""
        sha, apps = request.path_params["sha"].lower(), self._apps(request)
        if not SHA.fullmatch(sha):
            raise Unreadable("a report names its commit by all 40 hex digits")
        check = await self._read(request)
        report = partial(checks.report, apps, sha, check, self._service.for_orders)
        try:
            said = await self._service.lanes.orders.run(report)
        except StaleWrite as error:  # as of a webhook: who is told that he is at fault does not send it again
            raise ServiceUnavailable(str(error), remedy="nothing is kept of it; send it again") from error
        told = [{"app": app.name, "said": one} for app, one in zip(apps, said, strict=True)]
        return Json({"commit": sha, "check": check.name, "state": check.state, "apps": told}, 202)

    def _apps(self, request: Request) -> list[AppConfig]:
        config, given = self._service.deps.config, request.query_params.get("app")
        if given:
            return [config.app(given)]
        taking = [app for app in config.apps.values() if app.tests.external]
        if not taking and config.left_out:
            names = ", ".join(config.left_out)
            raise ServiceUnavailable(
                f"it may be of {names}, whose table in rollout.toml is wrong", remedy=f"edit {config.path}"
            )
        if not taking:
            raise Conflict(
                "every app runs its own tests",
                remedy='to let reports decide: [apps.X.tests] source = "external"',
            )
        return taking

    async def _read(self, request: Request) -> Check:
        async with self._service.bodies.of(request, junit.MOST_BYTES) as body:
            if _media_type(request) in {"application/xml", "text/xml"}:
                name = request.query_params.get("name", "")
                if not NAME.fullmatch(name):
                    raise Unreadable("a JUnit report needs the check's name in the address: ?name=unit")
                state, details = junit.read(body)
                return Check(name, state, details=details)
            try:
                report = Report.model_validate_json(body)
            except ValidationError as error:
                raise Unreadable(said(error), remedy="docs/http.md says what may be in it") from None
        return Check(report.name, report.state, report.url)


def _media_type(request: Request) -> str:
    """Without its parameters; capitals and blanks around it mean nothing (RFC 9110)."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
