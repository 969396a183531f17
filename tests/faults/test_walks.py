"""Random walks through everything at once: pushes, orders of persons, deaf and sick hosts, workers that sleep or die, messages lost and doubled.

Nothing is asserted on the way. What is left is given to the checker.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.domain.pipeline import deploy_host, prepare_host, roll_back_host
from rollout.domain.states import FINISHED, RolloutState
from rollout.errors import OutcomeUnknown, RolloutError
from rollout.services import bars, halts, reconcile, stopping
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.world import World

WALKS = settings(
    max_examples=200 if settings.get_current_profile_name() == "faults" else 6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Killed(BaseException):
    """The worker's process ends here."""


class Walk:
    """A World, and chance."""

    def __init__(self, folder, patch, seed):
        self.chance = chance = random.Random(seed)
        failures, mode = chance.choice([0, 1, 2, 4]), chance.choice(["strict", "ramp"])
        self.world = World(
            folder,
            patch,
            hosts=8,
            fan_out=f'max_failed = {failures}\nmode = "{mode}"\nconcurrency = {chance.choice([2, 4, 10])}\n'
            'host_timeout = "30s"',
        )
        self.hosts = list(self.world.fleet.hosts.values())
        self.trouble = chance.choice([0.02, 0.1, 0.2])  # how often something happens while a host is switched
        self.depth = 0
        for host in self.hosts:
            host.before_act = host.after_act = lambda host=host: self.on_the_way(host)

    def go(self):
        """Some dozen turns."""
        turns = (
            self.push,
            self.order,
            self.order,
            self.weather,
            self.lose_messages,
            self.forge_messages,
            self.traffic,
            self.rest,
        )
        for _ in range(self.chance.randrange(10, 40)):
            self.chance.choice(turns)()
            self.work(60, self.chance.choice([2, 10, 60]))

    def calm_down(self):
        """Nothing is wrong any more: whatever can end ends."""
        self.trouble = 0
        for host in self.hosts:
            host.unreachable = host.refuses_login = host.no_room = False
        self.world.run(until=self.at_rest, seconds=900)

    def at_rest(self):
        world = self.world
        with world.store.reading() as tx:
            rollouts, tests = tx.rollouts.unfinished("shop"), tx.commits.unfinished("shop")
        waiting = {*FINISHED, RolloutState.HALTED}
        return not world.bell.queue and not tests and all(one.state in waiting for one in rollouts)

    # -- turns -----------------------------------------------------------------------------------------------------------

    def push(self):
        sha = self.world.push(fails=self.chance.random() < 0.15)
        if self.chance.random() < 0.4:
            for host in self.chance.sample(self.hosts, self.chance.choice([1, 2, 5])):
                host.unhealthy.add(sha)

    def order(self):
        """A person says something, possible or not."""
        newest, deps, names = self.world.newest(), self.world.deps, [self.chance.choice(self.hosts).name]
        if newest is None:
            return
        me, why = {"who": "me"}, {"who": "me", "why": "because"}
        orders = [
            lambda: stopping.stop(newest.id, deps, **why, keep=self.chance.random() < 0.3),
            lambda: stopping.roll_back_done(self.world.config.app("shop"), deps, to=None, **why),
            lambda: halts.resume(newest.id, deps, **me),
            lambda: halts.resume(newest.id, deps, **why, accept_failed=True),
            lambda: halts.resume(newest.id, deps, **why, accept_canary=True),
            lambda: halts.retry(newest.id, deps, **me),
            lambda: halts.exclude("shop", names, deps, **why),
            lambda: halts.include("shop", names, deps, **me),
            lambda: bars.bar("shop", newest.commit, deps, **why),
            lambda: bars.unbar("shop", newest.commit, deps, **why),
        ]
        try:
            self.chance.choice(orders)()
        except RolloutError:
            return  # refused: as it may be

    def weather(self):
        for host in self.hosts:
            host.unreachable = self.chance.random() < 0.15
            host.refuses_login = self.chance.random() < 0.03
            host.no_room = self.chance.random() < 0.05

    def lose_messages(self):
        self.world.bell.queue.clear()

    def forge_messages(self):
        """Whoever can write to the broker sends whatever there is, for every host of any rollout (I15)."""
        with self.world.store.reading() as tx:
            rows = [host for one in tx.rollouts.unfinished("shop") for host in tx.hosts.of(one.id)]
        for host in rows:
            message = self.chance.choice([deploy_host, deploy_host, prepare_host, roll_back_host])
            self.world.bell.ring([message(host)])

    def traffic(self):
        self.world.metrics.share = self.chance.choice([1.0, 1.0, 0.5])
        self.world.metrics.rate = self.chance.choice([100, 100, 0])

    def rest(self):
        self.world.seconds += self.chance.choice([1, 20, 60])

    # -- and meanwhile -----------------------------------------------------------------------------------------------------

    def work(self, most, seconds):
        """Some messages, in any order; whoever works may be killed."""
        left = iter(range(self.chance.randrange(most)))
        try:
            self.world.run(
                until=lambda: next(left, None) is None,
                seconds=seconds,
                chooser=self.chance,
                loss=self.chance.choice([0, 0.2]),
                doubling=self.chance.choice([0, 0.3]),
            )
        except Killed:
            return

    def on_the_way(self, host):
        """An order is on its way to a host, or its answer on the way back."""
        if self.chance.random() >= self.trouble:
            return
        match self.chance.choice(["sleep", "lose", "kill", "order", "deaf"]):
            case "sleep":
                self.sleep()
            case "lose":
                raise OutcomeUnknown("the connection broke")
            case "kill":
                raise Killed
            case "order":  # a stop, perhaps, and its acknowledgement while this order is under way
                self.order()
                self.sleep()
            case "deaf":
                host.unreachable = True
                raise OutcomeUnknown("the host went away")

    def sleep(self):
        """This worker stands still while the others go on."""
        if self.depth == 3:
            return
        self.depth += 1
        self.world.seconds += self.chance.choice([0.5, 3, 14, 16, 40])
        if self.chance.random() < 0.5:
            reconcile.sweep(self.world.deps)
        self.work(15, self.chance.choice([1, 5, 40]))
        self.depth -= 1


@WALKS
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_nothing_is_left_that_must_not_be(tmp_path_factory, seed):
    """After any walk, and again when all has come to rest, the checker has nothing to accuse."""
    with pytest.MonkeyPatch.context() as patch:
        walk = Walk(tmp_path_factory.mktemp("walk"), patch, seed)
        walk.go()
        assert check(read.world(walk.world)) == []
        walk.calm_down()
        assert check(read.world(walk.world, at_rest=True)) == []
        walk.world.store.close()
