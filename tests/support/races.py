"""One rollout in memory, on which persons and workers race: each reads first and writes later, guarded.

Two kinds of orders, and that is all that makes the higher one win. Those that *insist* (stop, roll back, halt, and what
workers report) are decided again on the row as it is when their write comes. Those that *go on* (resume, retry, accept)
count only for the halt that the person saw: on any other version they are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from rollout.domain import states
from rollout.domain.budget import Counters, Limits, Mode, must_halt
from rollout.domain.states import (
    CommitEvent,
    CommitState,
    HostEvent,
    HostState,
    RolloutEvent,
    RolloutState,
    next_commit_state,
    next_host_state,
    next_rollout_state,
)
from rollout.errors import Conflict, StaleWrite

H = HostState
Case = tuple[RolloutEvent, Callable[[], bool]]  # an order's event, and the facts that it needs
LIMITS = Limits(max_failed=0, concurrency=10, mode=Mode.STRICT)
BACK = frozenset({H.ROLLED_BACK, H.ROLLBACK_FAILED})
SWITCHED = frozenset({H.ACTIVATING, H.DONE, H.FAILED, H.UNKNOWN})


class Order(StrEnum):
    """What somebody wants of the rollout."""

    STOP = "stop"
    STOP_KEEP = "stop --keep"
    ROLL_BACK = "rollback"
    HALT = "halt"
    RESUME = "resume"
    RETRY = "retry"
    ACCEPT_CANARY = "accept the canary"
    START = "start"
    CANARY_DEPLOYED = "canary deployed"
    CANARY_PASSED = "canary passed"
    FINISH = "finish"
    GIVE_UP = "give up"
    ACKNOWLEDGE = "acknowledge"
    ALL_BACK = "all back"


GOING_ON = frozenset({Order.RESUME, Order.RETRY, Order.ACCEPT_CANARY})
ENDING = frozenset({Order.STOP, Order.STOP_KEEP})


@dataclass(frozen=True)
class Request:
    """An order, and the version of the row that it was given for."""

    order: Order
    seen: int


@dataclass
class Host:
    """A host of the rollout; the first one is the canary."""

    state: HostState = H.PENDING
    touched: bool = False


@dataclass
class Race:
    """The rows, and the trail of what the rollout went through."""

    hosts: list[Host]
    state: RolloutState = RolloutState.PENDING
    version: int = 0
    halted_stage: RolloutState | None = None
    canary_passed: bool = False
    keep: bool = False
    commit: CommitState = CommitState.PASSED
    trail: list[RolloutState] = field(default_factory=lambda: [RolloutState.PENDING])
    activated_at: list[RolloutState] = field(default_factory=list)  # the rollout's state at each activation

    def ask(self, order: Order) -> Request:
        """Somebody looks at the row and decides; the write comes later."""
        return Request(order, self.version)

    def land(self, request: Request) -> None:
        """The guarded write. Conflict when the order is not possible, or was given for another version."""
        if request.order in GOING_ON and request.seen != self.version:
            raise StaleWrite(f"{request.order}: the rollout has changed since you looked")
        event = self._event(request.order)
        if event is None:
            raise Conflict(f"{request.order}: not in {self.state}")
        target = next_rollout_state(self.state, event)
        if request.order is Order.RETRY:
            self._retry_failed()
        self._apply(target)
        self._remember(request.order)

    def failed(self) -> int:
        """Hosts that count against the budget."""
        return sum(host.state is H.FAILED for host in self.hosts)

    def must_halt(self) -> bool:
        """Whether more than K hosts have failed."""
        return must_halt(Counters(0, self.failed(), 0, 0, 0, 1), LIMITS)

    def host_event(self, number: int, event: HostEvent) -> None:
        """Something happens to a host; what would switch it is claimed against the rollout's state."""
        host = self.hosts[number]
        if event is HostEvent.ACTIVATE and not self._may_activate(number):
            raise Conflict("no host is claimed for activation now")
        if event in {HostEvent.RETRY, HostEvent.PREPARE_AGAIN} and self.state not in states.STAGES:
            raise Conflict("no host is tried again now")
        if event is HostEvent.ROLL_BACK and (self.state is not RolloutState.ROLLING_BACK or not host.touched):
            raise Conflict("this host is not to be rolled back now")
        host.state = next_host_state(host.state, event)
        if event is HostEvent.ACTIVATE:
            host.touched = True
            self.activated_at.append(self.state)

    def roll_hosts_back(self) -> None:
        """The rollback's own work, to its end."""
        for number, host in enumerate(self.hosts):
            if host.touched and host.state in SWITCHED:
                self.host_event(number, HostEvent.ROLL_BACK)
            if host.state is H.ROLLING_BACK:
                self.host_event(number, HostEvent.ROLLED_BACK)

    def back(self) -> bool:
        """Whether no host is left that was switched and not brought back, or tried to be."""
        return not any(host.touched and host.state in SWITCHED | {H.ROLLING_BACK} for host in self.hosts)

    def _may_activate(self, number: int) -> bool:
        stage = RolloutState.DEPLOYING_CANARY if number == 0 else RolloutState.FANNING_OUT
        return self.state is stage and not self.must_halt()

    def _event(self, order: Order) -> RolloutEvent | None:
        """What the order comes to in the present state; None when the facts forbid it."""
        plain: dict[Order, Case] = {
            Order.STOP: (RolloutEvent.STOP, lambda: True),
            Order.STOP_KEEP: (RolloutEvent.STOP, lambda: True),
            Order.HALT: (RolloutEvent.HALT, lambda: True),
            Order.ACCEPT_CANARY: (
                RolloutEvent.CANARY_ACCEPTED,
                lambda: self.halted_stage is RolloutState.EVALUATING_CANARY,
            ),
            Order.START: (RolloutEvent.START, lambda: self.commit is CommitState.PASSED),
            Order.CANARY_DEPLOYED: (RolloutEvent.CANARY_DEPLOYED, lambda: self.hosts[0].state is H.DONE),
            Order.CANARY_PASSED: (RolloutEvent.CANARY_PASSED, lambda: True),
            Order.FINISH: (RolloutEvent.FINISH, self._all_done),
            Order.GIVE_UP: (RolloutEvent.GIVE_UP, lambda: not any(host.touched for host in self.hosts)),
            Order.ALL_BACK: (RolloutEvent.ROLLED_BACK, self.back),
        }
        if order is Order.RESUME:
            return None if self.must_halt() else self._resume()
        if order is Order.RETRY:
            return self._resume()
        if order is Order.ROLL_BACK:
            return RolloutEvent.ROLL_BACK if self.state is RolloutState.DONE else RolloutEvent.STOP
        if order is Order.ACKNOWLEDGE:
            return self._acknowledge()
        event, possible = plain[order]
        return event if possible() else None

    def _resume(self) -> RolloutEvent | None:
        return states.RESUME[self.halted_stage] if self.halted_stage else None

    def _acknowledge(self) -> RolloutEvent | None:
        """Sealed: no host is being switched any more, so what is touched is known."""
        if self.state is not RolloutState.STOPPING or any(host.state is H.ACTIVATING for host in self.hosts):
            return None
        nothing_to_do = self.keep or not any(host.touched for host in self.hosts)
        return RolloutEvent.ACKNOWLEDGE if nothing_to_do else RolloutEvent.ROLL_BACK

    def _all_done(self) -> bool:
        return all(host.state in {H.DONE, H.EXCLUDED} for host in self.hosts)

    def _retry_failed(self) -> None:
        for host in self.hosts:
            if host.state is H.FAILED:
                host.state = next_host_state(host.state, HostEvent.RETRY)

    def _apply(self, target: RolloutState) -> None:
        self.halted_stage = self.state if target is RolloutState.HALTED else None
        self.state = target
        self.version += 1
        self.trail.append(target)

    def _remember(self, order: Order) -> None:
        if order in {Order.CANARY_PASSED, Order.ACCEPT_CANARY}:
            self.canary_passed = True
        if order is Order.STOP_KEEP:
            self.keep = True
        if order in ENDING | {Order.ROLL_BACK} and self.commit is CommitState.PASSED:
            self.commit = next_commit_state(self.commit, CommitEvent.BAR)
