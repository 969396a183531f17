"""The three tables: what is drawn is what can happen."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rollout.domain import states
from rollout.domain.states import (
    COMMITS,
    HOSTS,
    ROLLOUTS,
    CommitEvent,
    CommitState,
    HostEvent,
    HostState,
    RolloutEvent,
    RolloutState,
)
from rollout.errors import IllegalTransition

PAGE = Path(__file__).parents[3] / "docs" / "states.md"
FORWARD = states.STAGES | {RolloutState.DONE}
ENDED_BY_STOP = {
    RolloutState.STOPPING,
    RolloutState.ROLLING_BACK,
    RolloutState.ROLLED_BACK,
    RolloutState.STOPPED,
}
TABLES = [
    pytest.param(
        COMMITS, CommitState, CommitEvent, CommitState.RECEIVED, states.next_commit_state, id="commit"
    ),
    pytest.param(
        ROLLOUTS, RolloutState, RolloutEvent, RolloutState.PENDING, states.next_rollout_state, id="rollout"
    ),
    pytest.param(HOSTS, HostState, HostEvent, HostState.PENDING, states.next_host_state, id="host"),
]


def reachable(table: Mapping[Any, Any], start: StrEnum) -> set[StrEnum]:
    """Every state that some order of events leads to."""
    seen, found = set(), [start]
    while found:
        state = found.pop()
        seen.add(state)
        found += [target for target in table[state].values() if target not in seen]
    return seen


def no_way_out(table: Mapping[Any, Any]) -> set[StrEnum]:
    """The states that nothing leaves."""
    return {state for state, edges in table.items() if not edges}


@pytest.mark.parametrize(("table", "all_states", "events", "start", "step"), TABLES)
def test_every_state_is_in_its_table_and_reachable(table, all_states, events, start, step):
    """Each table has a row for each state, and each state can be reached from the first one."""
    assert set(table) == set(all_states)
    assert reachable(table, start) == set(all_states)


@pytest.mark.parametrize(("table", "all_states", "events", "start", "step"), TABLES)
def test_every_event_is_used(table, all_states, events, start, step):
    """No event is without an edge."""
    assert {event for edges in table.values() for event in edges} == set(events)


@pytest.mark.parametrize(("table", "all_states", "events", "start", "step"), TABLES)
def test_a_step_follows_the_table_or_is_refused(table, all_states, events, start, step):
    """For every state and event, the answer is the table's, or IllegalTransition that names what is possible."""
    for state, event in product(all_states, events):
        if event in table[state]:
            assert step(state, event) is table[state][event]
            continue
        with pytest.raises(IllegalTransition) as refused:
            step(state, event)
        message = str(refused.value)
        assert str(event) in message
        assert str(state) in message
        assert all(str(possible) in message for possible in table[state])
        assert table[state] or "finished" in message


def test_finished_rollouts_stay_finished():
    """A finished rollout has no way out, but that a done one may be rolled back."""
    ways_out = {state: dict(ROLLOUTS[state]) for state in states.FINISHED if ROLLOUTS[state]}
    assert ways_out == {RolloutState.DONE: {RolloutEvent.ROLL_BACK: RolloutState.ROLLING_BACK}}


def test_only_finished_rollouts_have_no_way_out():
    """No unfinished rollout can get stuck."""
    assert no_way_out(ROLLOUTS) == states.FINISHED - {RolloutState.DONE}


def test_hosts_end_rolled_back():
    """Nothing leaves a host that is back; one whose rollback failed can only go back, one that is done or excluded also catch up."""
    assert no_way_out(HOSTS) == {HostState.ROLLED_BACK}
    assert set(HOSTS[HostState.EXCLUDED]) == {HostEvent.ROLL_BACK, HostEvent.CATCH_UP}
    assert set(HOSTS[HostState.ROLLBACK_FAILED]) == {HostEvent.ROLL_BACK}
    assert set(HOSTS[HostState.DONE]) == {HostEvent.ROLL_BACK, HostEvent.CATCH_UP}


def test_only_activating_and_reading_make_a_host_done():
    """A host becomes done from activating, or when reading an unknown one finds it done."""
    before_done = {state for state, edges in HOSTS.items() if HostState.DONE in edges.values()}
    assert before_done == {HostState.ACTIVATING, HostState.UNKNOWN}


def test_a_host_is_not_rolled_back_under_a_running_prepare():
    """A stop puts a running prepare off first; only then may a host that an earlier attempt touched go back."""
    assert HostEvent.ROLL_BACK not in HOSTS[HostState.PREPARING]


def test_a_commit_ships_only_after_its_tests():
    """The one way to `passed` is through `testing`, or back from `barred`."""
    before_passed = {state for state, edges in COMMITS.items() if CommitState.PASSED in edges.values()}
    assert before_passed == {CommitState.TESTING, CommitState.BARRED}


def test_active_means_unfinished_and_started():
    """Active rollouts (I1) are exactly the unfinished ones but the pending."""
    assert set(RolloutState) - states.FINISHED - {RolloutState.PENDING} == states.ACTIVE


def test_every_stage_can_halt_and_be_resumed():
    """Each of the three stages halts, and has its own way back."""
    for stage in states.STAGES:
        assert ROLLOUTS[stage][RolloutEvent.HALT] is RolloutState.HALTED
        assert ROLLOUTS[RolloutState.HALTED][states.RESUME[stage]] is stage


def test_stop_is_possible_until_it_is_over():
    """A pending, active and not yet stopped rollout can be stopped, and by one event to one state."""
    for state in states.STAGES | {RolloutState.PENDING, RolloutState.HALTED}:
        assert ROLLOUTS[state][RolloutEvent.STOP] is RolloutState.STOPPING


def test_after_a_stop_nothing_goes_forward():
    """From `stopping`, no order of events leads to a stage, to a halt, or to done (I16)."""
    assert reachable(ROLLOUTS, RolloutState.STOPPING) == ENDED_BY_STOP


def test_after_a_rollback_began_nothing_goes_forward():
    """From `rolling_back`, only `rolled_back` follows."""
    assert reachable(ROLLOUTS, RolloutState.ROLLING_BACK) == {
        RolloutState.ROLLING_BACK,
        RolloutState.ROLLED_BACK,
    }


def test_a_fan_out_needs_a_canarys_pass():
    """The fan-out is entered by a pass, by a person's acceptance, or again after it halted (I11)."""
    ways_in = {
        event
        for edges in ROLLOUTS.values()
        for event, target in edges.items()
        if target is RolloutState.FANNING_OUT
    }
    assert ways_in == {RolloutEvent.CANARY_PASSED, RolloutEvent.CANARY_ACCEPTED, RolloutEvent.RESUME_FAN_OUT}


def test_error_is_only_before_a_host_was_touched():
    """A rollout gives up only before its canary was activated, halted or not."""
    ways_in = {state for state, edges in ROLLOUTS.items() if RolloutState.ERROR in edges.values()}
    assert ways_in == {RolloutState.PENDING, RolloutState.DEPLOYING_CANARY, RolloutState.HALTED}


@pytest.mark.parametrize("state", RolloutState)
def test_the_world_outside_sees_three_outcomes(state):
    """Unfinished is running, done is done, the rest is error."""
    expected = "done" if state is RolloutState.DONE else "error" if state in states.FINISHED else "running"
    assert states.outcome(state) == expected


def test_the_documented_diagram_is_the_table():
    """docs/states.md ends with exactly what the tables print."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.endswith("\n\n" + states.mermaid())
    assert page.count("```mermaid") == len(TABLES)


def edges_of(chart: str) -> Iterable[tuple[str, str, str]]:
    """The edges that a printed chart draws: state, event, target."""
    for line in chart.splitlines():
        if "-->" in line and "[*]" not in line:
            state, rest = line.split("-->")
            target, event = rest.split(":")
            yield state.strip(), event.strip(), target.strip()


def test_the_diagram_draws_every_edge_once():
    """What is printed is each edge of the three tables, no more and no less."""
    drawn = list(edges_of(states.mermaid()))
    edges = [
        (str(state), str(event), str(target))
        for table in (COMMITS, ROLLOUTS, HOSTS)
        for state, ways in table.items()
        for event, target in ways.items()
    ]
    assert sorted(drawn) == sorted(edges)
