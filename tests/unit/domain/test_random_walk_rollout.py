"""Random walks over the three state tables: whoever races whom, stop > roll back > halt > resume > retry (I16)."""

from contextlib import suppress
from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.domain.states import (
    ACTIVE,
    FINISHED,
    STAGES,
    CommitEvent,
    CommitState,
    HostEvent,
    HostState,
    RolloutState,
    next_commit_state,
)
from rollout.errors import Conflict
from tests.support.races import BACK, ENDING, GOING_ON, SWITCHED, Host, Order, Race
from tests.support.walks import STATEFUL_WALK

R = RolloutState
AFTER_STOP = {R.STOPPING, R.ROLLING_BACK, R.ROLLED_BACK, R.STOPPED}
FORWARD = STAGES | {R.DONE}
HIGHEST_FIRST = [Order.STOP, Order.ROLL_BACK, Order.HALT, Order.RESUME, Order.RETRY]
NEXT_STEP = {
    R.PENDING: Order.START,
    R.DEPLOYING_CANARY: Order.CANARY_DEPLOYED,
    R.EVALUATING_CANARY: Order.CANARY_PASSED,
    R.FANNING_OUT: Order.FINISH,
    R.HALTED: Order.RETRY,
    R.STOPPING: Order.ACKNOWLEDGE,
    R.ROLLING_BACK: Order.ALL_BACK,
}
HOST_STEPS = {
    HostState.PENDING: HostEvent.PREPARE,
    HostState.PREPARING: HostEvent.PREPARED,
    HostState.PREPARED: HostEvent.ACTIVATE,
    HostState.ACTIVATING: HostEvent.DONE,
    HostState.UNKNOWN: HostEvent.FOUND_UNTOUCHED,
}


class Races(RuleBasedStateMachine):
    """One rollout of a few hosts; orders are given in any order, and land late, twice or never."""

    requests = Bundle("requests")
    race: Race

    @initialize(hosts=st.integers(1, 4))
    def plan(self, hosts):
        self.race = Race([Host() for _ in range(hosts)])
        self.stopped = False
        self.unbarred = False

    @rule(target=requests, order=st.sampled_from(Order))
    def somebody_decides(self, order):
        return self.race.ask(order)

    @rule(request=requests)
    def a_write_lands_late_or_twice(self, request):
        self.land(request)

    @rule(order=st.sampled_from([Order.HALT, Order.RESUME, Order.RETRY]))
    def somebody_orders(self, order):
        self.land(self.race.ask(order))

    @rule()
    def the_rollout_goes_on(self):
        if self.race.state in NEXT_STEP:
            self.land(self.race.ask(NEXT_STEP[self.race.state]))

    @rule()
    def a_stage_runs_to_its_end(self):
        for _ in HOST_STEPS:
            self.every_host_goes_on()
        self.the_rollout_goes_on()

    @rule(number=st.integers(0, 3))
    def a_host_goes_on(self, number):
        host = self.race.hosts[number % len(self.race.hosts)]
        if host.state in HOST_STEPS:
            self.happen(number, HOST_STEPS[host.state])

    @rule()
    def every_host_goes_on(self):
        for number in range(len(self.race.hosts)):
            self.a_host_goes_on(number)

    @rule(number=st.integers(0, 3), event=st.sampled_from(HostEvent))
    def something_happens_to_a_host(self, number, event):
        self.happen(number, event)

    @precondition(lambda self: self.race.state is R.ROLLING_BACK)
    @rule()
    def hosts_are_rolled_back(self):
        self.race.roll_hosts_back()

    @precondition(lambda self: self.race.commit is CommitState.BARRED)
    @rule()
    def a_person_unbars(self):
        self.race.commit = next_commit_state(self.race.commit, CommitEvent.UNBAR)
        self.unbarred = True

    def land(self, request):
        """A refused order changes nothing."""
        before = (self.race.state, self.race.version)
        try:
            self.race.land(request)
        except Conflict:
            assert (self.race.state, self.race.version) == before
            return
        self.stopped = self.stopped or request.order in ENDING

    def happen(self, number, event):
        """A host's event, if it is legal and claimed."""
        with suppress(Conflict):
            self.race.host_event(number % len(self.race.hosts), event)

    @invariant()
    def a_stopped_rollout_never_goes_forward_again(self):
        """I16: from the stop on, no stage, no halt, no done, whatever lands."""
        if R.STOPPING in self.race.trail:
            since = self.race.trail[self.race.trail.index(R.STOPPING) :]
            assert set(since) <= AFTER_STOP
        assert not self.stopped or self.race.state in AFTER_STOP

    @invariant()
    def a_rollback_never_goes_forward_again(self):
        """From rolling back on, only its end."""
        if R.ROLLING_BACK in self.race.trail:
            since = self.race.trail[self.race.trail.index(R.ROLLING_BACK) :]
            assert set(since) <= {R.ROLLING_BACK, R.ROLLED_BACK}

    @invariant()
    def hosts_are_activated_only_in_their_stage(self):
        """I2 in the rows: no activation is claimed outside the canary's and the fan-out's stage."""
        assert set(self.race.activated_at) <= {R.DEPLOYING_CANARY, R.FANNING_OUT}

    @invariant()
    def a_fan_out_has_a_pass(self):
        """I11: no fan-out without a pass or a person's word, however often it halts and resumes."""
        assert self.race.canary_passed or R.FANNING_OUT not in self.race.trail

    @invariant()
    def a_halt_remembers_its_stage(self):
        """The stage is known exactly while the rollout is halted, and only to it a resume leads."""
        assert (self.race.halted_stage is not None) is (self.race.state is R.HALTED)
        halts = [at for at, state in enumerate(self.race.trail[:-1]) if state is R.HALTED]
        for at in halts:
            stage, after = self.race.trail[at - 1], self.race.trail[at + 1]
            accepted = stage is R.EVALUATING_CANARY and after is R.FANNING_OUT
            assert after in {stage, R.STOPPING} or accepted

    @invariant()
    def what_was_ended_is_barred(self):
        """A stop and a rollback bar the commit, until a person unbars it."""
        if self.race.state in AFTER_STOP and not self.unbarred:
            assert self.race.commit is CommitState.BARRED

    @invariant()
    def a_rolled_back_rollout_left_no_host_behind(self):
        """When it is rolled back, no host that was switched has the release without a rollback's outcome."""
        if self.race.state is R.ROLLED_BACK:
            assert self.race.back()

    def teardown(self):
        """Whatever happened, one stop ends it: acknowledged, rolled back, and nothing moves it any more."""
        if not hasattr(self, "race"):
            return
        race = self.race
        if race.state in ACTIVE | {R.PENDING} and race.state not in AFTER_STOP:
            self.land(race.ask(Order.STOP))
        self.end()
        assert race.state in FINISHED
        assert race.state is R.DONE or not any(host.state is HostState.ACTIVATING for host in race.hosts)
        if race.state is not R.DONE:
            for order in Order:
                self.land(race.ask(order))
            assert race.trail[-1] is race.state
            assert race.state in {R.ROLLED_BACK, R.STOPPED, R.ERROR}

    def end(self):
        """The stop protocol's steps, from wherever it is."""
        for number, host in enumerate(self.race.hosts):
            if host.state is HostState.ACTIVATING:
                self.happen(number, HostEvent.LOSE)
        for _ in (Order.ACKNOWLEDGE, Order.ALL_BACK):
            if self.race.state is R.ROLLING_BACK:
                self.race.roll_hosts_back()
            if self.race.state in {R.STOPPING, R.ROLLING_BACK}:
                self.land(self.race.ask(NEXT_STEP[self.race.state]))


TestRaces = Races.TestCase
TestRaces.settings = STATEFUL_WALK


def a_race(state, failed=False):
    """A rollout of three hosts in `state`: the canary done, and perhaps one failed."""
    hosts = [Host(HostState.DONE, touched=True), Host(HostState.DONE, touched=True), Host()]
    if failed:
        hosts[1] = Host(HostState.FAILED, touched=True)
    race = Race(hosts, state=state, canary_passed=True, trail=[state])
    race.halted_stage = R.FANNING_OUT if state is R.HALTED else None
    return race


def land_all(race, requests):
    """Let the writes come in this order; refusals change nothing."""
    for request in requests:
        with suppress(Conflict):
            race.land(request)
    return race


PAIRS = [(high, low) for at, high in enumerate(HIGHEST_FIRST) for low in HIGHEST_FIRST[at + 1 :]]


@pytest.mark.parametrize(("state", "pair"), list(product(sorted(ACTIVE | {R.PENDING}), PAIRS)))
def test_the_higher_order_wins_whichever_lands_first(state, pair):
    """Two orders given for the same row end the same way in both orders of landing, as the higher one wants."""
    high, low = pair
    ends = []
    for order in (pair, pair[::-1]):
        race = a_race(state, failed=high is Order.HALT)
        ends.append(land_all(race, [race.ask(one) for one in order]).state)
    alone = a_race(state, failed=high is Order.HALT)
    land_all(alone, [alone.ask(high)])
    if alone.version:
        assert ends == [alone.state, alone.state], low


def test_a_resume_for_an_older_halt_does_not_undo_a_newer_one():
    """Who resumes has seen this very halt: a late resume is refused."""
    race = a_race(R.HALTED)
    old = race.ask(Order.RESUME)
    race.land(race.ask(Order.RESUME))
    race.land(race.ask(Order.HALT))
    land_all(race, [old])
    assert race.state is R.HALTED


@pytest.mark.parametrize("order", sorted(GOING_ON))
def test_nothing_goes_on_after_a_stop(order):
    """Resume, retry and acceptance that were decided before a stop, and after it, are refused."""
    race = a_race(R.HALTED, failed=True)
    before = race.ask(order)
    race.land(race.ask(Order.STOP))
    land_all(race, [before, race.ask(order)])
    assert race.trail == [R.HALTED, R.STOPPING]


def test_a_stop_lands_on_any_version():
    """A stop that was given for an older row is decided again, never refused as stale."""
    race = a_race(R.FANNING_OUT)
    stop = race.ask(Order.STOP)
    race.land(race.ask(Order.HALT))
    race.land(race.ask(Order.RESUME))
    race.land(stop)
    assert race.state is R.STOPPING


def test_a_done_rollout_goes_back_and_never_forward():
    """`rollback` of a done rollout: its hosts go back, its commit is barred, and that is the end."""
    race = Race([Host(HostState.DONE, touched=True)], state=R.DONE, canary_passed=True, trail=[R.DONE])
    race.land(race.ask(Order.ROLL_BACK))
    race.roll_hosts_back()
    race.land(race.ask(Order.ALL_BACK))
    assert race.trail == [R.DONE, R.ROLLING_BACK, R.ROLLED_BACK]
    assert race.commit is CommitState.BARRED
    assert {host.state for host in race.hosts} <= BACK


def test_keeping_the_hosts_ends_without_a_rollback():
    """`stop --keep` leaves what was switched."""
    race = a_race(R.FANNING_OUT)
    race.land(race.ask(Order.STOP_KEEP))
    race.land(race.ask(Order.ACKNOWLEDGE))
    assert race.state is R.STOPPED
    assert {host.state for host in race.hosts if host.touched} <= SWITCHED
