"""The API's reads: the JSON of `rollout show`, `status`, `history` and `hosts`."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rollout.domain.model import AppName, Commit, RolloutId
from rollout.errors import Conflict, NotFound, Unreadable
from rollout.services import evidence, explaining, views
from rollout.store.store import Transaction
from rollout.web.errors import Json
from rollout.web.service import Service

FINISHED = 20  # past rollouts, unless `limit` says otherwise
MOST_FINISHED = 200
MOST_ID = 2**63 - 1
SHA = re.compile(r"[0-9a-f]{4,40}")


class Reads:
    """What programs may ask."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def rollouts(self, request: Request) -> Response:
        """The unfinished ones, oldest first; with `finished=1` past ones behind them, newest first."""
        app, limit = self._app(request), _limit(request) if _flag(request, "finished") else 0

        def look(tx: Transaction) -> list[dict[str, Any]]:
            past = tx.rollouts.finished(app, limit) if limit else []
            return views.rollouts(tx, tx.rollouts.unfinished(app) + past)

        return Json(await self._service.read(look))

    async def rollout(self, request: Request) -> Response:
        """One, with its hosts."""
        number = rollout_id(request)
        return Json(await self._service.read(lambda tx: views.rollout(tx, tx.rollouts.get(number))))

    async def events(self, request: Request) -> Response:
        """Everything that happened to one and to its hosts."""
        number = rollout_id(request)
        return Json(await self._service.read(lambda tx: views.timeline(tx, tx.rollouts.get(number).id)))

    async def canary(self, request: Request) -> Response:
        """What the word on its canary rests on, and canary against baseline over time."""
        number = rollout_id(request)
        return Json(await self._service.read(lambda tx: evidence.canary(tx, tx.rollouts.get(number))))

    async def deliveries(self, request: Request) -> Response:
        """The last webhooks, newest first, and what became of each."""
        app, limit = self._app(request), _limit(request)
        return Json(
            await self._service.read(
                lambda tx: [views.delivery(one) for one in tx.deliveries.newest(app, limit)]
            )
        )

    async def hosts(self, request: Request) -> Response:
        """What every host runs, as recorded."""
        app = self._app(request)
        apps = [app] if app else [AppName(name) for name in self._service.deps.config.names]
        return Json(
            await self._service.read(lambda tx: [host for name in apps for host in views.fleet(tx, name)])
        )

    async def commit(self, request: Request) -> Response:
        """One commit, by its hash or at least the first four digits of it; with what `rollout why` says of it."""
        sha, app = request.path_params["sha"].lower(), self._app(request)
        apps = [app] if app else [AppName(name) for name in self._service.deps.config.names]
        config = self._service.deps.config

        def look(tx: Transaction) -> dict[str, Any]:
            found = _commit(tx, apps, sha)
            told = explaining.why(tx, config.app(found.app), found)
            its = {"because": told.in_full, "expected_at": views.moment(told.expected_at)}
            return views.commit(tx, found) | its

        return Json(await self._service.read(look))

    def _app(self, request: Request) -> AppName | None:
        config, given = self._service.deps.config, request.query_params.get("app")
        if not given:
            return None
        return AppName(
            given if given in config.left_out else config.app(given).name
        )  # of both the store tells


def rollout_id(request: Request) -> RolloutId:
    """The number in the address; NotFound for one that no store could hold."""
    number = int(request.path_params["id"])
    if number > MOST_ID:
        raise NotFound("there is no rollout with such a number", remedy="GET /api/rollouts lists them")
    return RolloutId(number)


def _commit(tx: Transaction, apps: list[AppName], sha: str) -> Commit:
    found = [one for app in apps for one in tx.commits.starting_with(app, sha)] if SHA.fullmatch(sha) else []
    if not found:
        raise NotFound("no commit starts so", remedy="give 4 to 40 hex digits of one that was pushed")
    if len(found) > 1:
        raise Conflict("several commits start so", remedy="give more digits, or ?app=NAME")
    return found[0]


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "0")
    if given not in {"0", "1"}:
        raise Unreadable(f"{name} is neither 0 nor 1")
    return given == "1"


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(FINISHED))
    if not re.fullmatch(r"[0-9]{1,3}", given) or not 1 <= int(given) <= MOST_FINISHED:
        raise Unreadable(f"limit is not a number from 1 to {MOST_FINISHED}")
    return int(given)
