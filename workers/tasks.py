"""The tasks: shells of a line or two over one service. Arguments are ids and, for people who read Flower, names."""

import time

from celery import Task

from rollout.domain import pipeline
from rollout.domain.model import CommitId, HostId, RolloutId
from rollout.services import canaries, hosts, reconcile, rollouts, testing, watching
from rollout.services.steps import Again, GoOn, Step
from workers.app import app, deps
from workers.drivers import nexts, poll_all

NEXTS = nexts()
TOGETHER_S = 0.01  # what hosts report meanwhile is counted in one go


def _follow(task: Task, step: Step) -> None:
    """Let the chain go on, look again soon, or end it: what the rows say decides, not the chain."""
    if isinstance(step, Again):
        raise task.retry(countdown=step.seconds)
    if not isinstance(step, GoOn):
        task.request.chain = None


@app.task(name=pipeline.RUN_TESTS)  # type: ignore[untyped-decorator]
def run_tests(commit: int) -> None:
    """Test a commit and build its release."""
    testing.run_tests(CommitId(commit), deps())


@app.task(name=pipeline.DEPLOY_CANARY, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def deploy_canary(self: Task, rollout: int) -> None:
    """Switch the canary hosts."""
    _follow(self, rollouts.deploy_canary(RolloutId(rollout), deps()))


@app.task(name=pipeline.EVALUATE_CANARY, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def evaluate_canary(self: Task, rollout: int) -> None:
    """Look at the canary once, and judge it."""
    _follow(self, canaries.evaluate(RolloutId(rollout), deps()))


@app.task(name=pipeline.FAN_OUT, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def fan_out(self: Task, rollout: int) -> None:
    """Hand tokens out to the fleet."""
    _follow(self, rollouts.fan_out(RolloutId(rollout), deps()))


@app.task(name=pipeline.WATCH_FAN_OUT, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def watch_fan_out(self: Task, rollout: int) -> None:
    """Look at the switched hosts once, and judge them."""
    _follow(self, watching.watch(RolloutId(rollout), deps()))


@app.task(name=pipeline.PREPARE_HOST)  # type: ignore[untyped-decorator]
def prepare_host(rollout: int, host: int, _name: str) -> None:
    """Put the release on a host."""
    hosts.prepare(RolloutId(rollout), HostId(host), deps())


@app.task(name=pipeline.DEPLOY_HOST)  # type: ignore[untyped-decorator]
def deploy_host(rollout: int, host: int, _name: str) -> None:
    """Switch a host, or read it when it is unknown."""
    hosts.deploy(RolloutId(rollout), HostId(host), deps())


@app.task(name=pipeline.ROLL_BACK_HOST)  # type: ignore[untyped-decorator]
def roll_back_host(rollout: int, host: int, _name: str) -> None:
    """Bring a host back."""
    hosts.roll_back(RolloutId(rollout), HostId(host), deps())


@app.task(name=pipeline.COUNT_OUTCOME)  # type: ignore[untyped-decorator]
def count_outcome(rollout: int) -> None:
    """Count what the hosts reported; go on, halt or finish."""
    time.sleep(TOGETHER_S)
    rollouts.count(RolloutId(rollout), deps())


@app.task(name=pipeline.RECONCILE)  # type: ignore[untyped-decorator]
def reconcile_all() -> None:
    """Ring again whatever nobody works on."""
    reconcile.sweep(deps(), following=NEXTS)


@app.task(name=pipeline.POLL)  # type: ignore[untyped-decorator]
def poll() -> None:
    """Look at the branches."""
    poll_all(deps())
