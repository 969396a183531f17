"""The API's orders: stop, resume, retry, as the commands. They want the Bearer token, which no browser sends by itself."""

import json
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from rollout.domain.model import Rollout
from rollout.errors import Unreadable
from rollout.services import halts, stopping, views
from rollout.web.api import rollout_id
from rollout.web.errors import Json
from rollout.web.plain import cleaned
from rollout.web.service import Service

WHO = "api"
MOST_BYTES = 65_536
LONGEST, LONGEST_WHO = 2000, 100  # characters
REMEDY = "docs/http.md says what may be in it"


def _cut(most: int) -> AfterValidator:
    """An alert's whole text may be the reason: no order is refused for that, a stop least of all."""
    return AfterValidator(lambda text: text if len(text) <= most else f"{text[: most - 1]}…")


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
    reason: Annotated[str, _cut(LONGEST)] | None = None


class StopOrder(_Order):
    """The body of a stop."""

    keep: bool = False
    who: Annotated[str, _cut(LONGEST_WHO)] | None = None  # the person, as the program that asks says


class ResumeOrder(_Order):
    """The body of a resume."""

    accept_failed: bool = False
    accept_canary: bool = False


class RetryOrder(_Order):
    """The body of a retry."""


O = TypeVar("O", bound=_Order)  # noqa: E741  # a type's name


class Orders:
    """What programs may have done."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def stop(self, request: Request) -> Response:
        """Accepted when the state is in the store: from then on nothing new starts. The workers do the rest."""
        number, order = rollout_id(request), await self._read(request, StopOrder)
        why = order.reason or "stopped over the API"
        who = f"{WHO} for {order.who}" if order.who else WHO
        accepted = await self._service.lanes.orders.run(
            partial(stopping.stop, number, self._service.for_orders, who=who, why=why, keep=order.keep)
        )
        return Json(
            {
                "accepted": True,
                "new": accepted.new,
                "rollout": accepted.rollout.id,
                "state": accepted.rollout.state,
                "acknowledged_at": views.moment(accepted.rollout.acknowledged_at),
                "longest_s": accepted.longest_s,
                "leased": list(accepted.leased),
            },
            202,
        )

    async def resume(self, request: Request) -> Response:
        """Go on after a halt."""
        number, order = rollout_id(request), await self._read(request, ResumeOrder)
        resumed = await self._service.lanes.orders.run(
            partial(
                halts.resume,
                number,
                self._service.for_orders,
                who=WHO,
                why=order.reason,
                accept_failed=order.accept_failed,
                accept_canary=order.accept_canary,
            )
        )
        return Json(await self._shown(resumed))

    async def retry(self, request: Request) -> Response:
        """Try the failed hosts again, and go on."""
        number = rollout_id(request)
        await self._read(request, RetryOrder)
        retried = await self._service.lanes.orders.run(
            partial(halts.retry, number, self._service.for_orders, who=WHO)
        )
        return Json(await self._shown(retried))

    async def _read(self, request: Request, shape: type[O]) -> O:
        async with self._service.bodies.of(request, MOST_BYTES) as body:
            try:
                return shape.model_validate(_harmless(body.strip() or b"{}"))
            except ValidationError as error:
                raise Unreadable(said(error), remedy=REMEDY) from None

    async def _shown(self, changed: Rollout) -> dict[str, Any]:
        return await self._service.read(lambda tx: views.rollouts(tx, [tx.rollouts.get(changed.id)])[0])


def _harmless(body: bytes) -> Any:
    """The JSON value; whatever characters a reason has (control characters, half ones, no UTF-8), they are made plain: no order is refused for them."""
    try:
        return cleaned(json.loads(body.decode(errors="replace"), strict=False))
    except (ValueError, RecursionError):
        raise Unreadable("the body is not JSON", remedy=REMEDY) from None


def said(error: ValidationError) -> str:
    """What is wrong with a body, without showing it."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}"
        for one in error.errors(include_input=False)[:5]
    )
