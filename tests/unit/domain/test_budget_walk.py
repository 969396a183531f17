"""Random walks through whole fan-outs: whatever is lost, doubled, late or read again, the bounds hold and it ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.domain.budget import Limits, Mode, must_halt, worst_case, worst_case_after
from rollout.domain.states import HostState
from tests.support.fan_out import FanOut
from tests.support.walks import STATEFUL_WALK, WALK

RESULTS = ["done", "failed", "broken", "killed"]
ANY = st.integers(0, 10**6)  # which host or message, modulo how many there are


class Walk(RuleBasedStateMachine):
    """One fan-out, and everything that can happen to it in any order."""

    fan_out: FanOut

    @initialize(
        total=st.integers(1, 25),
        k=st.integers(0, 6),
        concurrency=st.integers(1, 12),
        mode=st.sampled_from(Mode),
        retries=st.integers(0, 2),
    )
    def plan(self, total, k, concurrency, mode, retries):
        self.fan_out = FanOut(total, Limits(k, concurrency, mode), retries)

    def host(self, number):
        return number % len(self.fan_out.rows)

    def message(self, number):
        return self.fan_out.operations[number % len(self.fan_out.operations)]

    @rule(number=ANY)
    def a_start_is_delivered(self, number):
        self.fan_out.start(self.host(number))

    @rule(number=ANY)
    def many_starts_are_delivered(self, number):
        for host in range(len(self.fan_out.rows)):
            self.fan_out.start(self.host(host + number))

    @precondition(lambda self: self.fan_out.operations)
    @rule(number=ANY, result=st.sampled_from(RESULTS))
    def an_operation_reaches_its_host(self, number, result):
        self.fan_out.act(self.message(number), result)

    @precondition(lambda self: self.fan_out.operations)
    @rule(number=ANY)
    def an_outcome_is_reported_perhaps_again(self, number):
        self.fan_out.report(self.message(number))

    @rule(number=ANY, result=st.sampled_from(RESULTS))
    def a_host_is_served_from_start_to_end(self, number, result):
        self.fan_out.step(self.host(number), lambda: result)

    @rule(number=ANY)
    def a_worker_goes_silent(self, number):
        self.fan_out.lose(self.host(number))

    @rule(number=ANY)
    def a_host_is_read(self, number):
        self.fan_out.read(self.host(number))

    @rule(number=ANY)
    def a_host_cannot_be_read_for_too_long(self, number):
        self.fan_out.give_up_reading(self.host(number))

    @rule(number=ANY)
    def a_prepare_fails(self, number):
        self.fan_out.prepare_failed(self.host(number))

    @rule()
    def outcomes_are_counted(self):
        self.fan_out.count()

    @rule()
    def a_person_retries(self):
        self.fan_out.retry()

    @rule()
    def a_person_resumes(self):
        self.fan_out.resume()

    @rule(number=ANY)
    def a_person_excludes(self, number):
        self.fan_out.exclude(self.host(number))

    @invariant()
    def the_bound_holds(self):
        """I3: failed + unknown + in flight within K + the largest window so far, and within what was printed."""
        limits, largest = self.fan_out.limits, self.fan_out.largest_window
        assert self.fan_out.at_risk <= limits.max_failed + largest
        assert self.fan_out.hurt <= worst_case(limits, len(self.fan_out.rows))
        assert largest == 1 or limits.mode is Mode.RAMP

    @invariant()
    def the_slots_hold(self):
        """In flight within the concurrency, the window between one and it."""
        assert self.fan_out.counters.in_flight <= self.fan_out.limits.concurrency
        assert 1 <= self.fan_out.window <= self.fan_out.limits.concurrency

    @invariant()
    def nothing_starts_past_a_halt(self):
        """No token was taken after more than K hosts had failed or could not be read."""
        assert self.fan_out.starts_past_halt == 0

    @invariant()
    def a_host_acts_once_per_attempt(self):
        """I6: however often a message came, and whatever was read in between."""
        assert all(len(set(disk.intents)) == len(disk.intents) for disk in self.fan_out.disks)

    @invariant()
    def known_hosts_are_what_they_are_recorded_as(self):
        """I5: done means the new release is there, failed and prepared that it is not."""
        for row, disk in zip(self.fan_out.rows, self.fan_out.disks, strict=True):
            assert disk.new or row.state is not HostState.DONE
            assert not (disk.new and row.state in {HostState.FAILED, HostState.PREPARED})

    @invariant()
    def a_token_is_held_exactly_while_the_outcome_is_open(self):
        """Activating and unknown hosts hold one, finished ones do not."""
        for row in self.fan_out.rows:
            if row.state in {HostState.ACTIVATING, HostState.UNKNOWN}:
                assert row.token
            elif row.state is not HostState.PREPARED:
                assert not row.token

    def teardown(self):
        """It always ends: once messages arrive again, each host needs a bounded number of steps."""
        if not hasattr(self, "fan_out"):
            return
        fan_out = self.fan_out
        steps = fan_out.finish(lambda: "failed", lambda hosts: hosts[0])
        assert steps <= len(fan_out.rows) * (fan_out.retries + 2)
        assert fan_out.halted or not must_halt(fan_out.counters, fan_out.limits)


TestWalk = Walk.TestCase
TestWalk.settings = STATEFUL_WALK

FLEETS = {
    "total": st.integers(1, 60),
    "k": st.integers(0, 10),
    "concurrency": st.integers(1, 15),
    "mode": st.sampled_from(Mode),
    "retries": st.integers(0, 2),
    "chance": st.randoms(use_true_random=False),
}


@WALK
@given(**FLEETS)
def test_a_release_that_is_broken_from_the_first_host_on_hurts_k_and_one(
    total, k, concurrency, mode, retries, chance
):
    """Strict and ramp alike: exactly K + 1 hosts fail, whatever the order, the retries and the concurrency."""
    fan_out = FanOut(total, Limits(k, concurrency, mode), retries)
    interleave(fan_out, chance, lambda: chance.choice(["failed", "broken", "killed"]))
    assert fan_out.counters.failed == min(total, k + 1)
    assert fan_out.halted is (total > k)
    assert sum(bool(disk.intents) for disk in fan_out.disks) == min(total, k + 1)


@WALK
@given(successes=st.integers(0, 40), **FLEETS)
def test_a_release_that_fails_after_some_successes_hurts_no_more_than_printed(
    total, k, concurrency, mode, retries, chance, successes
):
    """K + min(1 + s, concurrency) in ramp and K + 1 in strict mode, whatever the order."""
    fan_out = FanOut(total, Limits(k, concurrency, mode), retries)
    left = iter(["done"] * successes)
    interleave(fan_out, chance, lambda: next(left, "broken"))
    assert fan_out.counters.done >= min(successes, total)
    assert fan_out.hurt <= worst_case_after(fan_out.limits, fan_out.counters.done, total)


@WALK
@given(**FLEETS)
def test_a_good_release_reaches_every_host(total, k, concurrency, mode, retries, chance):
    """With nothing but successes a fan-out ends with every host done, in any order."""
    fan_out = FanOut(total, Limits(k, concurrency, mode), retries)
    interleave(fan_out, chance, lambda: "done")
    assert fan_out.counters.done == total
    assert not fan_out.halted


@pytest.mark.parametrize("mode", Mode)
def test_k_failures_are_survived(mode):
    """A fan-out in which exactly K hosts fail reaches all others."""
    fan_out = FanOut(100, Limits(3, 10, mode), 0)
    results = iter(["broken"] * 3)
    fan_out.finish(lambda: next(results, "done"), lambda hosts: hosts[-1])
    assert (fan_out.counters.done, fan_out.counters.failed, fan_out.halted) == (97, 3, False)


def test_untouched_failures_halt_without_hurting():
    """Hosts that cannot be prepared count against the budget, though nothing was activated on them."""
    fan_out = FanOut(100, Limits(1, 10, Mode.RAMP), 0)
    for host in (3, 4):
        fan_out.prepare_failed(host)
    fan_out.count()
    assert fan_out.halted
    assert fan_out.hurt == 0
    assert fan_out.start(1) is None


def interleave(fan_out, chance, result):
    """Serve the hosts to the end with as many in flight as may be, in an order by chance, counting now and then."""
    while not fan_out.settled:
        host = chance.choice(fan_out.workable())
        row = fan_out.rows[host]
        if fan_out.start(host) is None and row.operation:
            fan_out.act(row.operation, result())
            fan_out.report(row.operation)
        if chance.random() < 0.7 or not fan_out.workable():
            fan_out.count()
