"""The real Celery application and the real task shells over services that write down that they were called.

`celery -A tests.support.celery_stages worker` runs it; PROBE names the folder it writes to.
"""

import os
import time
from pathlib import Path

from celery import current_task

from rollout.dispatch import CeleryBell
from rollout.services import canaries, hosts, rollouts
from rollout.services.steps import Again, End, GoOn
from workers import tasks
from workers.app import app

FOLDER = Path(os.environ["PROBE"])
ENDS, LOOKS_LATER = 2, 7  # rollouts: whose first stage ends the chain; whose first stage looks again later
AGAIN_S = 3.0
_looks: dict[int, int] = {}


def _write(line: str) -> None:
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{line}\n")


def _stage(name, answer):
    def called(rollout, _deps):
        stamps = current_task.request.stamps or {}
        _write(f"{name} {rollout} stamp={','.join(map(str, stamps.get('rollout', [])))}")
        return answer(rollout)

    return called


def _first(rollout):
    if rollout == ENDS:
        return End()
    if rollout == LOOKS_LATER:
        return Again(AGAIN_S)
    _looks[rollout] = _looks.get(rollout, 0) + 1
    return Again(0.1) if _looks[rollout] < 3 else GoOn()


def _host(name):
    def called(_rollout, host, _deps):
        _write(f"{name} {host}")
        while name == "deploy_host" and not (FOLDER / "let-go").exists():
            time.sleep(0.02)

    return called


def _row(_rollout, host, _deps):
    """Whether others wait for its place, each time that this changes; until it may go."""
    before = None
    while not (FOLDER / "row-may-end").exists():
        now = bell.crowded()
        if now != before:
            _write(f"row {host} crowded={now}")
            before = now
        time.sleep(0.05)


bell = CeleryBell(app)
tasks.deps = lambda: None
rollouts.deploy_canary = _stage("deploy_canary", _first)
canaries.evaluate = _stage("evaluate_canary", lambda _: GoOn())
rollouts.fan_out = _stage("fan_out", lambda _: End())
rollouts.count = _stage("count_outcome", lambda _: None)
hosts.prepare = _row
hosts.deploy = _host("deploy_host")
hosts.roll_back = _host("roll_back_host")

__all__ = ["app"]
