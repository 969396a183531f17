"""A release that is broken everywhere but on its canary (and on as many hosts after it as are told), until automation halts."""

from dataclasses import replace

import pytest

from rollout.domain.states import HostState
from tests.support.simulation.neighbours import FAIR, Weather
from tests.support.simulation.simulation import Simulation

ROUGH = Weather(
    messages_lost=0.1,
    messages_doubled=0.5,
    messages_late_s=5.0,
    orders_late=0.1,
    workers_killed=0.002,
    workers_stand=0.002,
)


class Overshoot(Simulation):
    """`hurt` is how many hosts failed or cannot be read when it has halted, and `plan` what was planned."""

    def __init__(
        self,
        seed: int,
        *,
        hosts: int,
        mode: str,
        max_failed: int,
        concurrency: int,
        successes: int = 0,
        rough: bool = False,
    ) -> None:
        super().__init__(seed)
        self.size, self.successes, self.slots = hosts, successes, 40
        self.policy = {"mode": f'"{mode}"', "max_failed": max_failed, "concurrency": concurrency}
        self.rough = ROUGH if rough else FAIR

    def _set_up(self, patch: pytest.MonkeyPatch) -> None:
        self._build(patch, self.size, self.policy, {"baseline": 0})
        self._weather(replace(self.rough))
        self._start_worker()
        self._start_worker()

    def _go(self) -> None:
        sha = self.workshop.push()
        for host in list(self.fleet.hosts.values())[1 + self.successes :]:
            host.unhealthy.add(sha)
        self._webhook(sha)
        self.timeline.run(self._halted, 3000)
        self._heal()
        self._rest()
        self.plan = self.world.newest()
        self.hurt = sum(
            row.state is HostState.FAILED or (row.state is HostState.UNKNOWN and row.unreadable)
            for row in self.world.rollout_hosts()
        )

    def _halted(self) -> bool:
        newest = self.world.newest() if self.timeline.chance.random() < 0.1 else None
        return newest is not None and newest.state == "halted"
