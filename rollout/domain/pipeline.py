"""Which tasks make up a rollout, and where the chain starts again. Names and ids only."""

from dataclasses import dataclass, replace

from rollout.domain.model import CommitId, HostId, Role, RolloutHost, RolloutId
from rollout.domain.states import RolloutState

RUN_TESTS = "rollout.run_tests"
DEPLOY_CANARY = "rollout.deploy_canary"
EVALUATE_CANARY = "rollout.evaluate_canary"
FAN_OUT = "rollout.fan_out"
WATCH_FAN_OUT = "rollout.watch_fan_out"
PREPARE_HOST = "rollout.prepare_host"
DEPLOY_HOST = "rollout.deploy_host"
COUNT_OUTCOME = "rollout.count_outcome"
ROLL_BACK_HOST = "rollout.roll_back_host"
RECONCILE = "rollout.reconcile"
POLL = "rollout.poll"

# Priorities: 0 goes first.
CANARY_FIRST = (
    2  # behind roll-backs, before every other host: one app's canary waits for no other app's fan-out
)
LAST = 9
CONTROL, TESTS, HOSTS = "control", "tests", "hosts"
QUEUES = {
    RUN_TESTS: TESTS,
    DEPLOY_CANARY: CONTROL,
    EVALUATE_CANARY: HOSTS,  # where the warm connections are
    FAN_OUT: CONTROL,
    WATCH_FAN_OUT: HOSTS,
    PREPARE_HOST: HOSTS,
    DEPLOY_HOST: HOSTS,
    COUNT_OUTCOME: CONTROL,
    ROLL_BACK_HOST: HOSTS,
    RECONCILE: CONTROL,
    POLL: CONTROL,
}
STAGE_TASKS = {
    RolloutState.DEPLOYING_CANARY: DEPLOY_CANARY,
    RolloutState.EVALUATING_CANARY: EVALUATE_CANARY,
    RolloutState.FANNING_OUT: FAN_OUT,
}


@dataclass(frozen=True, slots=True)
class Ring:
    """A message: "look at this row". It may be lost, doubled or late without harm."""

    task: str
    arguments: tuple[int | str, ...] = ()
    rollout: RolloutId | None = None  # stamped on the task
    revocable: bool = True  # a stop drops it; what a stop itself needs is not
    then: tuple[str, ...] = ()  # tasks of the chain that follow, with the same arguments
    priority: int = 5  # 0 goes first

    @property
    def host(self) -> HostId | None:
        """The host whose row it is about."""
        is_one = self.task in {PREPARE_HOST, DEPLOY_HOST, ROLL_BACK_HOST}
        return HostId(int(self.arguments[1])) if is_one else None


def run_tests(commit: CommitId) -> Ring:
    """Test this commit."""
    return Ring(RUN_TESTS, (commit,))


def sweep() -> Ring:
    """Look after all rows, and the next rollout of each app side by side."""
    return Ring(RECONCILE)


def pipeline(rollout: RolloutId, start: RolloutState = RolloutState.DEPLOYING_CANARY) -> Ring:
    """The chain deploy_canary → evaluate_canary → fan_out, from the stage `start` on."""
    tasks = list(STAGE_TASKS.values())
    first, *rest = tasks[tasks.index(STAGE_TASKS[start]) :]
    return Ring(first, (rollout,), rollout, then=tuple(rest), priority=CANARY_FIRST)


def watch_fan_out(rollout: RolloutId) -> Ring:
    """Look at the hosts that are switched, beside those that are not yet."""
    return Ring(WATCH_FAN_OUT, (rollout,), rollout, priority=CANARY_FIRST)


def prepare_host(host: RolloutHost) -> Ring:
    """Put the release on this host."""
    return Ring(
        PREPARE_HOST, (host.rollout, host.id, host.name), host.rollout, priority=_unless_canary(host, LAST)
    )


def deploy_host(host: RolloutHost) -> Ring:
    """Activate this host, or read it when it is unknown."""
    return Ring(
        DEPLOY_HOST, (host.rollout, host.id, host.name), host.rollout, priority=_unless_canary(host, 5)
    )


def _unless_canary(host: RolloutHost, priority: int) -> int:
    return CANARY_FIRST if host.role is Role.CANARY else priority


def look_at_host(host: RolloutHost) -> Ring:
    """Read what this host runs, whose rollout is over: workers remember what a stop revoked, and this is not meant."""
    return replace(deploy_host(host), revocable=False)


def roll_back_host(host: RolloutHost, *, waits: bool = False) -> Ring:
    """Bring this host back: a stop's own work, which it does not revoke. `waits`: for a slot, behind whoever begins a way back."""
    its = (host.rollout, host.id, host.name)
    return Ring(ROLL_BACK_HOST, its, host.rollout, revocable=False, priority=1 if waits else 0)


def count_outcome(rollout: RolloutId) -> Ring:
    """Count what the hosts reported and go on, halt or finish."""
    return Ring(COUNT_OUTCOME, (rollout,), rollout, revocable=False, priority=1)
