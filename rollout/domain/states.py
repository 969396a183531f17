"""The three state machines: one table each; whatever is absent is illegal.

Nothing else assigns a state (the store looks every change up here), and no side effects hang on edges.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from rollout.errors import IllegalTransition


class CommitState(StrEnum):
    """Where a commit is on its way to being shippable."""

    RECEIVED = "received"  # known, waits for its tests
    TESTING = "testing"  # its tests run, or its release is being built
    PASSED = "passed"  # tested and built: may be shipped
    FAILED = "failed"  # tests or build failed: never shipped
    BARRED = "barred"  # passed, but automation must not ship it


class CommitEvent(StrEnum):
    """What can happen to a commit."""

    TEST = "test"
    TESTS_LOST = "tests lost"
    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"
    MERGE = "merge"  # a pull request that passed is on the branch: its release is built
    BUILD_AGAIN = "build again"  # its archive had to make room for those of newer commits
    BAR = "bar"
    UNBAR = "unbar"


class RolloutState(StrEnum):
    """Where a rollout is."""

    PENDING = "pending"  # planned, nothing done yet
    DEPLOYING_CANARY = "deploying_canary"  # the canary hosts get the release
    EVALUATING_CANARY = "evaluating_canary"  # the canary bakes and is judged
    FANNING_OUT = "fanning_out"  # every other host gets it
    HALTED = "halted"  # automation waits for a person; nothing is undone
    STOPPING = "stopping"  # ended by a person or a verdict; not yet acknowledged
    ROLLING_BACK = "rolling_back"  # the touched hosts go back
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"  # ended, hosts left as they are (or none touched)
    ERROR = "error"  # could not start; no host was touched


class RolloutEvent(StrEnum):
    """What can happen to a rollout."""

    START = "start"
    CANARY_DEPLOYED = "canary deployed"
    CANARY_PASSED = "canary passed"
    CANARY_ACCEPTED = "canary accepted"
    FINISH = "finish"
    HALT = "halt"
    RESUME_CANARY = "resume canary"
    RESUME_EVALUATION = "resume evaluation"
    RESUME_FAN_OUT = "resume fan-out"
    STOP = "stop"
    ACKNOWLEDGE = "acknowledge"
    ROLL_BACK = "roll back"
    ROLLED_BACK = "rolled back"
    GIVE_UP = "give up"


class HostState(StrEnum):
    """Where a host is in a rollout."""

    PENDING = "pending"
    PREPARING = "preparing"  # the release is being put on it, harmless
    PREPARED = "prepared"
    ACTIVATING = "activating"  # being switched: it holds a token
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # its worker went silent: only reading it tells
    EXCLUDED = "excluded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"


class HostEvent(StrEnum):
    """What can happen to a host in a rollout."""

    PREPARE = "prepare"
    PREPARED = "prepared"
    PUT_OFF = "put off"  # a prepare to be done again: nothing was hurt
    ACTIVATE = "activate"
    DONE = "done"
    FAIL = "fail"
    LOSE = "lose"  # its lease ran out, or the answer never came
    FOUND_UNTOUCHED = "found untouched"
    RETRY = "retry"
    PREPARE_AGAIN = "prepare again"
    CATCH_UP = "catch up"  # its rollout is done without it, and its release is what the fleet runs
    EXCLUDE = "exclude"
    ROLL_BACK = "roll back"
    ROLLED_BACK = "rolled back"
    ROLLBACK_FAILED = "rollback failed"


C, CE = CommitState, CommitEvent
COMMITS: Mapping[CommitState, Mapping[CommitEvent, CommitState]] = {
    C.RECEIVED: {CE.TEST: C.TESTING},
    C.TESTING: {CE.PASS: C.PASSED, CE.FAIL: C.FAILED, CE.TESTS_LOST: C.RECEIVED},
    C.PASSED: {CE.BAR: C.BARRED, CE.MERGE: C.TESTING, CE.BUILD_AGAIN: C.TESTING},
    C.FAILED: {CE.TEST: C.TESTING},
    C.BARRED: {CE.UNBAR: C.PASSED},
}

R, RE = RolloutState, RolloutEvent
ROLLOUTS: Mapping[RolloutState, Mapping[RolloutEvent, RolloutState]] = {
    R.PENDING: {RE.START: R.DEPLOYING_CANARY, RE.STOP: R.STOPPING, RE.GIVE_UP: R.ERROR},
    R.DEPLOYING_CANARY: {
        RE.CANARY_DEPLOYED: R.EVALUATING_CANARY,
        RE.HALT: R.HALTED,
        RE.STOP: R.STOPPING,
        RE.GIVE_UP: R.ERROR,
    },
    R.EVALUATING_CANARY: {RE.CANARY_PASSED: R.FANNING_OUT, RE.HALT: R.HALTED, RE.STOP: R.STOPPING},
    R.FANNING_OUT: {RE.FINISH: R.DONE, RE.HALT: R.HALTED, RE.STOP: R.STOPPING},
    R.HALTED: {
        RE.RESUME_CANARY: R.DEPLOYING_CANARY,
        RE.RESUME_EVALUATION: R.EVALUATING_CANARY,
        RE.RESUME_FAN_OUT: R.FANNING_OUT,
        RE.CANARY_ACCEPTED: R.FANNING_OUT,
        RE.STOP: R.STOPPING,
        RE.GIVE_UP: R.ERROR,  # before a person's yes to its canary: nothing was touched
    },
    R.STOPPING: {RE.ROLL_BACK: R.ROLLING_BACK, RE.ACKNOWLEDGE: R.STOPPED},
    R.ROLLING_BACK: {RE.ROLLED_BACK: R.ROLLED_BACK},
    R.DONE: {RE.ROLL_BACK: R.ROLLING_BACK},
    R.ROLLED_BACK: {},
    R.STOPPED: {},
    R.ERROR: {},
}

H, HE = HostState, HostEvent
HOSTS: Mapping[HostState, Mapping[HostEvent, HostState]] = {
    H.PENDING: {HE.PREPARE: H.PREPARING, HE.EXCLUDE: H.EXCLUDED, HE.ROLL_BACK: H.ROLLING_BACK},
    H.PREPARING: {
        HE.PREPARED: H.PREPARED,
        HE.FAIL: H.FAILED,
        HE.PUT_OFF: H.PENDING,
        HE.EXCLUDE: H.EXCLUDED,
    },
    # A touched host that was to be tried again goes back like any other.
    H.PREPARED: {HE.ACTIVATE: H.ACTIVATING, HE.EXCLUDE: H.EXCLUDED, HE.ROLL_BACK: H.ROLLING_BACK},
    H.ACTIVATING: {
        HE.DONE: H.DONE,
        HE.FAIL: H.FAILED,
        HE.LOSE: H.UNKNOWN,
        HE.RETRY: H.PREPARED,
        HE.PREPARE_AGAIN: H.PENDING,
        HE.FOUND_UNTOUCHED: H.PREPARED,
        HE.ROLL_BACK: H.ROLLING_BACK,
    },
    H.DONE: {HE.ROLL_BACK: H.ROLLING_BACK, HE.CATCH_UP: H.PENDING},  # it has lost what it had
    H.FAILED: {
        HE.RETRY: H.PREPARED,
        HE.PREPARE_AGAIN: H.PENDING,
        HE.CATCH_UP: H.PENDING,
        HE.EXCLUDE: H.EXCLUDED,
        HE.ROLL_BACK: H.ROLLING_BACK,
    },
    H.UNKNOWN: {
        HE.DONE: H.DONE,
        HE.FAIL: H.FAILED,
        HE.RETRY: H.PREPARED,
        HE.FOUND_UNTOUCHED: H.PREPARED,
        HE.EXCLUDE: H.EXCLUDED,
        HE.ROLL_BACK: H.ROLLING_BACK,
    },
    # A touched one goes back with its rollout, as any other.
    H.EXCLUDED: {HE.ROLL_BACK: H.ROLLING_BACK, HE.CATCH_UP: H.PENDING},
    H.ROLLING_BACK: {
        HE.ROLL_BACK: H.ROLLING_BACK,  # taken over from a silent worker
        HE.ROLLED_BACK: H.ROLLED_BACK,
        HE.ROLLBACK_FAILED: H.ROLLBACK_FAILED,
    },
    H.ROLLED_BACK: {},
    H.ROLLBACK_FAILED: {HE.ROLL_BACK: H.ROLLING_BACK},
}

FINISHED = frozenset({R.DONE, R.ROLLED_BACK, R.STOPPED, R.ERROR})
STAGES = frozenset({R.DEPLOYING_CANARY, R.EVALUATING_CANARY, R.FANNING_OUT})
ACTIVE = frozenset(R) - FINISHED - {R.PENDING}  # at most one of these per app (I1)

RESUME: Mapping[RolloutState, RolloutEvent] = {
    R.DEPLOYING_CANARY: RE.RESUME_CANARY,
    R.EVALUATING_CANARY: RE.RESUME_EVALUATION,
    R.FANNING_OUT: RE.RESUME_FAN_OUT,
}


def outcome(state: RolloutState) -> str:
    """Sauron's three, for the world outside: running, done, error."""
    if state not in FINISHED:
        return "running"
    return "done" if state is R.DONE else "error"


def next_commit_state(state: CommitState, event: CommitEvent) -> CommitState:
    """The state after `event`; IllegalTransition when the table has no such edge."""
    return _next(COMMITS, state, event)


def next_rollout_state(state: RolloutState, event: RolloutEvent) -> RolloutState:
    """The state after `event`; IllegalTransition when the table has no such edge."""
    return _next(ROLLOUTS, state, event)


def next_host_state(state: HostState, event: HostEvent) -> HostState:
    """The state after `event`; IllegalTransition when the table has no such edge."""
    return _next(HOSTS, state, event)


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def _next(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    try:
        return table[state][event]
    except KeyError:
        possible = ", ".join(sorted(table[state])) or "nothing, it is finished"
        raise IllegalTransition(f"{event!s} is not possible while {state!s} (possible: {possible})") from None


def mermaid() -> str:
    """The three tables as Mermaid state diagrams, for the documentation."""
    charts = []
    for title, table in (("Commit", COMMITS), ("Rollout", ROLLOUTS), ("Host in a rollout", HOSTS)):
        lines = [f"### {title}", "", "```mermaid", "stateDiagram-v2"]
        for state, edges in table.items():
            lines += [f"    {state} --> {target}: {event}" for event, target in edges.items()]
            if not edges:
                lines.append(f"    {state} --> [*]")
        charts.append("\n".join([*lines, "```"]))
    return "\n\n".join(charts) + "\n"
