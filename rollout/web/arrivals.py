"""Webhooks that came together: each is verified and read by itself, all of a kind are stored in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from rollout import webhooks
from rollout.config.deploy_file import AppConfig
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
T = TypeVar("T")
Answers = dict[int, Received | Exception]
OfRepository = tuple[Push, Sequence[AppConfig]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook as it came."""

    provider: str
    headers: list[tuple[str, str]]
    body: bytes


def store(arrivals: Sequence[Arrival], deps: Deps) -> list[Received | Exception]:
    """What became of each, in their order; the error of what was refused. Pushes come first: somebody waits for them."""
    answers: Answers = {}
    pushes: dict[int, Told] = {}
    reports: dict[int, OfRepository] = {}
    pulls: dict[int, OfRepository] = {}
    unreadable: dict[int, Unreadable] = {}
    for number, one in enumerate(arrivals):
        try:
            push = _read(one, deps)
            _refuse_what_may_be_left_out(push, deps)
            match push.kind:
                case "report":
                    reports[number] = push, webhooks.of_repository(push, deps.config.apps)
                case "pull":
                    pulls[number] = push, webhooks.of_repository(push, deps.config.apps)
                case _:
                    pushes[number] = _for_every_app(push, deps)
        except Unreadable as error:
            unreadable[number] = error
        except Exception as error:  # noqa: BLE001  # it is the answer to this one, and no other's
            answers[number] = error
    answers |= _together(pushes, partial(_receive_pushes, deps=deps))
    answers |= _together(reports, partial(checks.receive_all, deps=deps))
    answers |= _together(pulls, partial(intake.receive_pulls, deps=deps))
    answers |= _reject(arrivals, unreadable, deps)
    return [answers[number] for number in range(len(arrivals))]


def _read(one: Arrival, deps: Deps) -> Push:
    """The signature comes before anything that is in the body."""
    known = webhooks.provider(one.provider)
    known.verify(one.headers, one.body, deps.settings.secret_texts())
    return known.parse(one.headers, one.body)


def _refuse_what_may_be_left_out(push: Push, deps: Deps) -> None:
    """An app whose table is wrong may ship from a repository that no other one does: its webhook is not told that it is nobody's."""
    config = deps.config
    if config.left_out and push.kind != "ping" and not webhooks.of_repository(push, config.apps):
        names = ", ".join(config.left_out)
        remedy = f"edit {config.path}, start rollout again, and have it sent again"
        raise ServiceUnavailable(f"it may be of {names}, whose table in rollout.toml is wrong", remedy=remedy)


def _for_every_app(push: Push, deps: Deps) -> Told:
    """Several apps may ship the same repository."""
    apps = webhooks.matches(push, deps.config.apps)
    if not apps:
        return [(push, webhooks.match(push, deps.config.apps))]
    return [(webhooks.narrow(push, app), app) for app in apps]


def _receive_pushes(pushes: Sequence[Told], deps: Deps) -> list[Received]:
    """Of each its first app's."""
    received = iter(intake.receive_all([told for its in pushes for told in its], deps))
    of_each = [[next(received) for _ in its] for its in pushes]
    return [first for first, *_ in of_each]


def _reject(arrivals: Sequence[Arrival], errors: Mapping[int, Unreadable], deps: Deps) -> Answers:
    """The errors of these, once it is recorded that somebody who knows a secret sent them."""
    refused = {}
    for number, error in errors.items():
        error.remedy = error.remedy or REMEDY
        one = arrivals[number]
        refused[number] = Push(one.provider, payload.delivery((), one.body), "other"), str(error)
    stored = _together(refused, partial(intake.reject_all, deps=deps))
    return {number: errors[number] if isinstance(one, Received) else one for number, one in stored.items()}


def _together(of: Mapping[int, T], receive: Callable[[Sequence[T]], Sequence[Received]]) -> Answers:
    """What is received together; when one of them breaks the transaction, each gets one of its own."""
    if not of:
        return {}
    try:
        return dict(zip(of, receive(list(of.values())), strict=True))
    except Exception as error:  # noqa: BLE001  # as above
        if len(of) == 1 or isinstance(error, ServiceUnavailable):
            return dict.fromkeys(of, error)
        log.warning("webhooks_one_by_one", webhooks=len(of), error=repr(error))
        return {number: _together({number: one}, receive)[number] for number, one in of.items()}
