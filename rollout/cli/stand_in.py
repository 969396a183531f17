"""Stops and rollbacks need only SSH and the store: what no worker takes up, this process does itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.cli import finding, output, scene, waiting
from rollout.cli.call import Call
from rollout.cli.following import late, unharmed
from rollout.cli.tellers import Teller
from rollout.domain.model import Rollout, RolloutHost, RolloutId
from rollout.domain.states import HostState, RolloutState
from rollout.services import stopping
from rollout.services.perform import HereAndNow

PATIENCE_S = 2.0  # a live worker takes a stop up in a quarter of a second
THREADS = 16


class StandIn:
    """Looks on while workers bring a rollout back; after 2 s in which nobody did anything, it does."""

    def __init__(self, call: Call, number: int, teller: Teller, timeout_s: float | None) -> None:
        self._call, self._number, self._teller, self._timeout_s = call, number, teller, timeout_s
        self._hands: HereAndNow | None = None
        self._tried = float("-inf")  # monotonic: when our hands were last put to it
        self.alone = False  # nobody but us took it up

    def acknowledged(self) -> Rollout:
        """Wait until the stop is acknowledged; TimedOut."""
        with unharmed(self._number):
            for elapsed in waiting.ticks(self._timeout_s):
                found = finding.rollout(self._call, self._number)
                if found.state is not RolloutState.STOPPING:
                    return found
                self._show()
                if elapsed >= PATIENCE_S:
                    self.alone = stopping.drive(found.id, self._call.deps) or self.alone
        raise late(self._number, self._timeout_s)

    def back(self, *, wait: bool) -> Rollout:
        """Bring the hosts back, or see that somebody does; with `wait`, until all of them are. TimedOut."""
        with unharmed(self._number), self._own_hands():
            for found, idle_s, busy in self._looks():
                if found.state is not RolloutState.ROLLING_BACK or (busy and not wait and not self._hands):
                    return found
                self._show()
                if self._hands is not None:
                    stopping.finish_roll_back(found.id, self._call.deps)
                if min(idle_s, time.monotonic() - self._tried) >= PATIENCE_S:
                    self._do_it()
        raise late(self._number, self._timeout_s)

    def _looks(self) -> Iterator[tuple[Rollout, float, bool]]:
        """The rollout, for how long nobody has done anything, and whether somebody does."""
        before: object = None
        since = time.monotonic()
        for _ in waiting.ticks(self._timeout_s):
            with self._call.store.reading() as tx:
                found = tx.rollouts.get(RolloutId(self._number))
                now = tx.now()
                hosts = tx.hosts.of(found.id)
            busy = any(_worked_on(host, now) for host in hosts)
            seen = [(host.id, host.version) for host in hosts]
            if busy or seen != before:
                before, since = seen, time.monotonic()
            yield found, time.monotonic() - since, busy

    def _do_it(self) -> None:
        if self._hands is None:
            self._hands = HereAndNow(self._call.deps, THREADS)
            self._teller.say("no worker takes it up: the hosts are brought back from here")
        self.alone, self._tried = True, time.monotonic()
        self._hands.do(stopping.unclaimed(RolloutId(self._number), self._call.deps))

    @contextmanager
    def _own_hands(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            if self._hands is not None:
                output.warn("ending, once the hosts that were begun are back")
            raise
        finally:
            if self._hands is not None:
                self._hands.close()

    def _show(self) -> None:
        self._teller.show(scene.of_rollout(finding.view(self._call, self._number)))


def _worked_on(host: RolloutHost, now: float) -> bool:
    return host.state is HostState.ROLLING_BACK and (host.lease_until or 0.0) > now
