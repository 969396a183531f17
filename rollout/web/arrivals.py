"""Webhooks that came together: each is verified and read by itself, all are stored in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from rollout import webhooks
from rollout.domain.model import Push
from rollout.errors import ServiceUnavailable, Unreadable
from rollout.services import checks, intake
from rollout.services.intake import Received, Told
from rollout.services.ports import Deps
from rollout.webhooks import payload

log = structlog.get_logger()
REMEDY = (
    "nothing was started by it, and polling finds the branch's commits all the same. Is the webhook's content type JSON, and"
    " is this the address of that kind of git server? What it sent is under its recent deliveries, what came here under"
    " `rollout history --deliveries`"
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook as it came."""

    provider: str
    headers: list[tuple[str, str]]
    body: bytes


def store(arrivals: Sequence[Arrival], deps: Deps) -> list[Received | Exception | None]:
    """What became of each, in their order; None for a ping, the error of what was refused."""
    answers: dict[int, Received | Exception | None] = {}
    pushes: dict[int, Told] = {}
    for number, one in enumerate(arrivals):
        try:
            push = _read(one, deps)
            if push.kind == "ping":
                answers[number] = None
            elif push.kind == "report":
                of = webhooks.of_repository(push, deps.config.apps)
                answers[number] = checks.receive(push, of, deps)
            elif push.kind == "pull":
                answers[number] = intake.receive_pull(
                    push, webhooks.of_repository(push, deps.config.apps), deps
                )
            else:
                pushes[number] = _for_every_app(push, deps)
        except Exception as error:  # noqa: BLE001  # it is the answer to this one, and no other's
            answers[number] = error
    answers |= _together(pushes, deps)
    return [answers[number] for number in range(len(arrivals))]


def _read(one: Arrival, deps: Deps) -> Push:
    """The signature comes before anything that is in the body."""
    known = webhooks.provider(one.provider)
    known.verify(one.headers, one.body, deps.settings.secret_texts())
    try:
        return known.parse(one.headers, one.body)
    except Unreadable as error:
        intake.reject(one.provider, payload.delivery((), one.body), str(error), deps)
        error.remedy = error.remedy or REMEDY
        raise


def _for_every_app(push: Push, deps: Deps) -> Told:
    """Several apps may ship the same repository."""
    apps = webhooks.matches(push, deps.config.apps)
    if not apps:
        return [(push, webhooks.match(push, deps.config.apps))]
    return [(webhooks.narrow(push, app), app) for app in apps]


def _together(pushes: Mapping[int, Told], deps: Deps) -> dict[int, Received | Exception]:
    """Of each webhook its first app's; when one of them breaks the transaction, each gets one of its own."""
    if not pushes:
        return {}
    try:
        received = iter(intake.receive_all([told for its in pushes.values() for told in its], deps))
    except Exception as error:  # noqa: BLE001  # as above
        if len(pushes) == 1 or isinstance(error, ServiceUnavailable):
            return dict.fromkeys(pushes, error)
        log.warning("webhooks_one_by_one", webhooks=len(pushes), error=repr(error))
        return {number: _together({number: its}, deps)[number] for number, its in pushes.items()}
    firsts: dict[int, Received | Exception] = {}
    for number, its in pushes.items():
        firsts[number], *_ = [next(received) for _ in its]
    return firsts
