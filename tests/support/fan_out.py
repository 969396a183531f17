"""A fan-out in memory: the rules of rollout/domain over host rows, and hosts that do what they are told, late or never.

The rows change as the services change them: guarded, so that doubled and late messages find nothing to do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from rollout.domain.budget import (
    Counters,
    Limits,
    may_start,
    must_halt,
    window_after_done,
    window_after_failure,
)
from rollout.domain.retry import may_retry
from rollout.domain.states import HostEvent, HostState, next_host_state

ACTIVATABLE, LOST = HostState.PREPARED, HostState.UNKNOWN


@dataclass
class Operation:
    """One activation on its way to a host. `result` is what the host did, None while it has not acted."""

    host: int
    attempt: int
    number: int
    result: str | None = (
        None  # done | failed | broken (not worth a retry) | killed (intent without an outcome)
    )


@dataclass
class Row:
    """A host of the rollout, as recorded."""

    state: HostState = HostState.PREPARED
    attempt: int = 1
    token: bool = False
    hurt: bool = False  # failed after an activation, as against a failed prepare
    unreadable: bool = False
    operation: Operation | None = None


@dataclass
class Disk:
    """A host as it is."""

    new: bool = False  # runs the new release
    sealed: int = 0  # operations up to this number are refused
    intents: list[int] = field(default_factory=list)  # the attempts that acted


class FanOut:
    """Rows, disks, and every message ever sent: any of them may come again."""

    def __init__(self, total: int, limits: Limits, retries: int) -> None:
        self.limits, self.retries = limits, retries
        self.rows = [Row() for _ in range(total)]
        self.disks = [Disk() for _ in range(total)]
        self.operations: list[Operation] = []
        self.halted = False
        self.window = self.largest_window = 1
        self.starts_past_halt = 0

    @property
    def counters(self) -> Counters:
        """Recomputed from the rows, as the store can at any time."""
        rows = self.rows
        return Counters(
            done=sum(row.state is HostState.DONE for row in rows),
            failed=sum(row.state is HostState.FAILED for row in rows),
            unreadable=sum(row.unreadable for row in rows),
            unknown=sum(row.state is LOST for row in rows),
            in_flight=sum(row.token and row.state is not LOST for row in rows),
            window=self.window,
        )

    @property
    def at_risk(self) -> int:
        """Hosts that are or may become failed or unknown by what was already sent to them."""
        hurt = sum(row.state is HostState.FAILED and row.hurt for row in self.rows)
        return hurt + self.counters.unknown + self.counters.in_flight

    @property
    def hurt(self) -> int:
        """Hosts that an activation failed on, or that nobody can tell of."""
        return sum((row.state is HostState.FAILED and row.hurt) or row.state is LOST for row in self.rows)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do without a person."""
        open_states = {HostState.ACTIVATING} if self.halted else {HostState.ACTIVATING, ACTIVATABLE}
        return not any(
            row.state in open_states or (row.state is LOST and not row.unreadable) for row in self.rows
        )

    def prepare_failed(self, host: int) -> None:
        """The release could not be put on this host: it fails untouched."""
        row = self.rows[host]
        if row.state is ACTIVATABLE and not row.token and not row.operation:
            row.state = next_host_state(HostState.PREPARING, HostEvent.FAIL)
            self._narrow()

    def start(self, host: int) -> Operation | None:
        """A message says: activate this host. None when there is nothing to claim."""
        row = self.rows[host]
        if self.halted or row.state is not ACTIVATABLE:
            return None
        if not row.token:
            if not may_start(self.counters, self.limits):
                return None
            self.starts_past_halt += must_halt(self.counters, self.limits)
            row.token = True
        row.state = next_host_state(row.state, HostEvent.ACTIVATE)
        row.operation = Operation(host, row.attempt, len(self.operations) + 1)
        self.operations.append(row.operation)
        return row.operation

    def act(self, operation: Operation, result: str) -> None:
        """The operation reaches its host, once; a fence that was sealed above it refuses."""
        disk = self.disks[operation.host]
        if operation.result is not None or operation.number <= disk.sealed:
            return
        operation.result = result
        disk.intents.append(operation.attempt)
        disk.new = result == "done"

    def report(self, operation: Operation) -> None:
        """The worker writes the outcome, if the row is still its own."""
        row = self.rows[operation.host]
        if row.operation is operation and row.state is HostState.ACTIVATING and operation.result:
            self._settle(row, operation.result)

    def lose(self, host: int) -> None:
        """The lease ran out: nobody knows; the token stays taken."""
        row = self.rows[host]
        if row.state is HostState.ACTIVATING:
            row.state = next_host_state(row.state, HostEvent.LOSE)

    def read(self, host: int) -> None:
        """A sealing status: what the disk says, and nothing sent earlier acts afterwards."""
        row, disk = self.rows[host], self.disks[host]
        if row.state is not LOST or row.operation is None:
            return
        disk.sealed = max(disk.sealed, row.operation.number)
        counted, row.unreadable = row.unreadable, False
        if row.operation.result is None:
            row.state, row.token = next_host_state(row.state, HostEvent.FOUND_UNTOUCHED), False
            return
        self._settle(row, row.operation.result, last=counted)

    def give_up_reading(self, host: int) -> None:
        """The host could not be read for too long: it counts as failed, stays unknown and keeps its token."""
        row = self.rows[host]
        if row.state is LOST and not row.unreadable:
            row.unreadable = True
            self._narrow()

    def count(self) -> None:
        """`count_outcome`: any number of times, for any number of outcomes."""
        self.halted = self.halted or must_halt(self.counters, self.limits)

    def retry(self) -> None:
        """A person: try the failed and unreadable ones again, and go on."""
        for host, row in enumerate(self.rows):
            if self.halted and row.unreadable:
                self.read(host)
            if self.halted and row.state is HostState.FAILED:
                row.state = next_host_state(row.state, HostEvent.RETRY)
                row.attempt += 1
                row.hurt = row.unreadable = row.token = False
        self.resume()

    def exclude(self, host: int) -> None:
        """A person: leave this host out; it leaves the count."""
        row = self.rows[host]
        if row.state in {ACTIVATABLE, HostState.FAILED, LOST}:
            row.state = next_host_state(row.state, HostEvent.EXCLUDE)
            row.token = row.unreadable = False

    def resume(self) -> None:
        """A person: go on; refused while too many have failed."""
        self.halted = must_halt(self.counters, self.limits)

    def finish(self, result: Callable[[], str], pick: Callable[[list[int]], int]) -> int:
        """Everything that was sent arrives from now on, in any order. How many steps it took to settle."""
        steps = 0
        self.count()  # the reconciler rings, should the last bell have been lost
        while not self.settled:
            steps += 1
            self.step(pick(self.workable()), result)
        return steps

    def workable(self) -> list[int]:
        """Hosts on which something can happen now; never empty before all is settled."""
        free = not self.halted and may_start(self.counters, self.limits)
        return [
            host
            for host, row in enumerate(self.rows)
            if row.state is HostState.ACTIVATING
            or (row.state is LOST and not row.unreadable)
            or (row.state is ACTIVATABLE and not self.halted and (free or row.token))
        ]

    def step(self, host: int, result: Callable[[], str]) -> None:
        """The next thing on this host, and its outcome counted."""
        row = self.rows[host]
        self.start(host)
        if row.state is LOST:
            self.read(host)
        elif row.operation and row.state is HostState.ACTIVATING:
            self.act(row.operation, result())
            self.report(row.operation)
        self.count()

    def _settle(self, row: Row, result: str, *, last: bool = False) -> None:
        """The outcome's own transaction: state, token, window. `last`: it has counted as failed, so no retry."""
        if result == "done":
            row.state, row.token = next_host_state(row.state, HostEvent.DONE), False
            self.window = window_after_done(self.window, self.limits)
            self.largest_window = max(self.largest_window, self.window)
        elif not last and may_retry(row.attempt, self.retries, retryable=result != "broken"):
            row.state = next_host_state(row.state, HostEvent.RETRY)  # the token stays
            row.attempt += 1
        else:
            row.state, row.token, row.hurt = next_host_state(row.state, HostEvent.FAIL), False, True
            self._narrow()

    def _narrow(self) -> None:
        self.window = window_after_failure(self.window, self.limits)
