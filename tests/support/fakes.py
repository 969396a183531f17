"""Neighbours that do what a test says, and builders with defaults: `a_deps(tmp_path)`, `a_rollout(deps, …)`.

The store is a real SQLite file, so commands and services see exactly what they would see at work. The clock is real.
"""

import dataclasses
import sys
import textwrap
import threading
import traceback

from rollout.config import deploy_file
from rollout.config.settings import Settings
from rollout.domain import plan
from rollout.domain.model import AppName, BranchCommit, Member, Release
from rollout.domain.states import CommitEvent, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.errors import NotFound, ServiceUnavailable
from rollout.fleet import inventory
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.store.rollouts import Planned
from tests.support import stores
from tests.support.world import ModelFleet, ModelMetrics, ModelWorkshop

TOML = """
[server]
state_dir = "{state}"
"""
APP_TOML = """
[apps.{app}]
repository = "{state}/{app}.git"
[apps.{app}.release]
path = "/srv/{app}"
restart = "true"
health = "true"
[apps.{app}.canary]
log = "/srv/{app}/shared/access.log"
bake = "10s"
{canary}
[apps.{app}.fan_out]
{fan_out}
[apps.{app}.fleet]
hosts = ["{app}[01:{hosts:02d}]"]
known_hosts = "{state}/known_hosts"
"""


class FakeFleet(ModelFleet):
    """Hosts that follow host.sh's rules, unless `script[verb, host]` holds an error to raise or a value to answer.

    `calls` lists (verb, host) in order. With `gate` set to an Event, roll-backs wait for it.
    """

    def __init__(self, names):
        super().__init__(names)
        self.script, self.calls, self.gate = {}, [], None

    def _scripted(self, verb, target):
        self.calls.append((verb, target.name))
        told = self.script.get((verb, target.name))
        if isinstance(told, Exception):
            raise told
        return told

    def prepare(self, target, order, *, timeout_s, go_on):
        return self._scripted("prepare", target) or super().prepare(
            target, order, timeout_s=timeout_s, go_on=go_on
        )

    def activate(self, target, order, permit, *, timeout_s, on_switch=None):
        return self._scripted("activate", target) or super().activate(
            target, order, permit, timeout_s=timeout_s, on_switch=on_switch
        )

    def roll_back(self, target, order, permit, *, timeout_s):
        if self.gate is not None:
            assert self.gate.wait(30)
        return self._scripted("roll_back", target) or super().roll_back(
            target, order, permit, timeout_s=timeout_s
        )

    def status(self, target, *, asked=0, seal=None, timeout_s):
        return self._scripted("status", target) or super().status(
            target, asked=asked, seal=seal, timeout_s=timeout_s
        )

    def check(self, target, *, timeout_s):
        return self._scripted("check", target) or super().check(target, timeout_s=timeout_s)


class FakeWorkshop(ModelWorkshop):
    """A branch in a list. `down` and `branchless` are what git says then."""

    def __init__(self):
        super().__init__()
        self.down = self.branchless = False

    def remote_head(self, app, config):
        if self.down:
            raise ServiceUnavailable(
                f"{config.repository} does not answer", remedy="is the git server reachable?"
            )
        if self.branchless:
            raise NotFound(f"{config.repository} has no branch {config.branch!r}", remedy="correct `branch`")
        return self.commits[-1].sha

    def fetch(self, app, config, *, limit_s=None):
        return self.remote_head(app, config)

    def resolve(self, app, name):
        found = [commit.sha for commit in self.commits if commit.sha.startswith(name)]
        if not found:
            raise NotFound(f"no commit {name!r} in the mirror", remedy="is it pushed?")
        return found[0]


class RecordingBell:
    """Keeps what it is asked to send. `deaf`: the broker is gone."""

    def __init__(self):
        self.rung, self.revoked, self.deaf = [], [], False

    def ring(self, rings):
        if not self.deaf:
            self.rung += rings
        return not self.deaf

    def revoke(self, rollout):
        if not self.deaf:
            self.revoked.append(rollout)
        return not self.deaf

    def alive(self):
        return not self.deaf

    def crowded(self):
        return True

    waiting = 0

    def count(self):
        return self.waiting


class FakeNotifier:
    """Keeps what it is asked to deliver."""

    def __init__(self):
        self.sent = []

    def send(self, urls, title, body, *, only=None):
        self.sent.append((tuple(urls), title, body))


def a_config(folder, *, apps=("shop",), hosts=4, fan_out="", canary="", more=""):
    """A rollout.toml in `folder`, read; each app has its own hosts, shop01 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rollout.toml"
    text = textwrap.dedent(TOML).format(state=folder) + more
    for app in apps:
        text += APP_TOML.format(state=folder, app=app, hosts=hosts, fan_out=fan_out, canary=canary)
    file.write_text(text)
    return deploy_file.load(file, {})


def a_deps(folder, *, settings=None, **of_config):
    """Everything a service needs, with a real store and fakes for the rest."""
    config = a_config(folder, **of_config)
    store = stores.opened(config.server.database_url)
    settings = settings or Settings()
    members = [member for app in config.apps.values() for member in inventory.members(app)]
    return Deps(
        config=config,
        settings=settings,
        store=store,
        fleet=FakeFleet([member.name for member in members]),
        workshop=FakeWorkshop(),
        metrics={"access-log": ModelMetrics()},
        bell=RecordingBell(),
        notifier=FakeNotifier(),
        leases=LeaseKeeper(store, "test", settings.lease_s),
        worker="test",
    )


def without_broker(deps):
    """The same, with a broker that does not answer."""
    deps.bell.deaf = True
    return deps


H, HE, R, RE = HostState, HostEvent, RolloutState, RolloutEvent
_SWITCHED = [HE.PREPARE, HE.PREPARED, HE.ACTIVATE]
WAYS = {
    H.PENDING: [],
    H.PREPARING: [HE.PREPARE],
    H.PREPARED: [HE.PREPARE, HE.PREPARED],
    H.ACTIVATING: _SWITCHED,
    H.DONE: [*_SWITCHED, HE.DONE],
    H.FAILED: [*_SWITCHED, HE.FAIL],
    H.UNKNOWN: [*_SWITCHED, HE.LOSE],
    H.EXCLUDED: [HE.EXCLUDE],
    H.ROLLING_BACK: [*_SWITCHED, HE.DONE, HE.ROLL_BACK],
    H.ROLLED_BACK: [*_SWITCHED, HE.DONE, HE.ROLL_BACK, HE.ROLLED_BACK],
    H.ROLLBACK_FAILED: [*_SWITCHED, HE.DONE, HE.ROLL_BACK, HE.ROLLBACK_FAILED],
}
_OUT = [RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED]
STAGES = {
    R.PENDING: [],
    R.DEPLOYING_CANARY: _OUT[:1],
    R.EVALUATING_CANARY: _OUT[:2],
    R.FANNING_OUT: _OUT,
    R.HALTED: [*_OUT, RE.HALT],
    R.STOPPING: [*_OUT, RE.STOP],
    R.ROLLING_BACK: [*_OUT, RE.STOP, RE.ROLL_BACK],
    R.DONE: [*_OUT, RE.FINISH],
    R.ROLLED_BACK: [*_OUT, RE.STOP, RE.ROLL_BACK, RE.ROLLED_BACK],
    R.STOPPED: [*_OUT, RE.STOP, RE.ACKNOWLEDGE],
    R.ERROR: [RE.GIVE_UP],
}


def a_commit(deps, *, app="shop", message="a change", passed=True):
    """A commit on the branch, tested and built unless not `passed` (None: it has not been tested)."""
    sha = deps.workshop.push(message)
    told: BranchCommit = deps.workshop.commits[-1]
    with deps.store.transaction() as tx:
        commit, _ = tx.commits.add(AppName(app), sha, who="test", why="pushed")
        tx.commits.place(AppName(app), [told])
        commit = tx.commits.by_id(commit.id)
        if passed is None:
            return commit
        commit = tx.commits.change(commit, CommitEvent.TEST, who="test", attempt=1)
        if passed:
            tx.commits.add_release(AppName(app), Release(sha, "d" * 64, f"/nowhere/{sha}.tar.gz", 1000))
        what = CommitEvent.PASS if passed else CommitEvent.FAIL
        reason = None if passed else "exit status 1"
        return tx.commits.change(
            commit,
            what,
            who="test",
            reason=reason,
            due_at=None,
            output="the tests' output",
            reds=int(not passed),
        )


def a_rollout(
    deps,
    *,
    app="shop",
    state="fanning_out",
    hosts=None,
    below=(),
    commit=None,
    reason=None,
    previous=None,
    why="a test",
):
    """A rollout of a new commit in this state. `hosts` maps names to states, in order; the first one is the canary. `below`: commits that it takes along.

    By default every host is done in a done rollout, and pending otherwise. What hosts run is set on the fake fleet too.
    """
    state = RolloutState(state)
    config = deps.config.app(app)
    members = deps.fleet.members(config)
    default = H.DONE if state is R.DONE else H.PENDING
    wanted = {member.name: default for member in members} | {
        name: HostState(one) for name, one in (hosts or {}).items()
    }
    commit = commit or a_commit(deps, app=app)
    places = plan.order(list(wanted), [next(iter(wanted))], 0)
    by_name: dict[str, Member] = {member.name: member for member in members}
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.add(
            Planned(
                app=AppName(app),
                commit=commit.sha,
                commits=[*(one.sha for one in below), commit.sha],
                previous=previous,
                digest="d" * 64,
                requested_by="automation",
                policy=config.policy(),
                max_failed=0,
                mode="ramp",
                concurrency=10,
                worst_case=10,
                fleet=[(by_name[place.name], place.role) for place in places],
            ),
            why=why,
        )
        if previous is not None and tx.commits.release(AppName(app), previous) is None:
            tx.commits.add_release(
                AppName(app), Release(previous, "d" * 64, f"/nowhere/{previous}.tar.gz", 1000)
            )
        for host in tx.hosts.of(rollout.id):
            _bring(deps, tx, host, wanted[host.name], commit.sha, previous)
        tx.rollouts.set_counting(rollout.id, counting=False)
        return _advance(tx, tx.rollouts.get(rollout.id), state, reason)


def _advance(tx, rollout, state, reason):
    for what in STAGES[state]:
        values = {"due_at": None}
        if what is RE.CANARY_PASSED:
            values |= {"canary_status": "pass", "canary_reason": "all 200 answers were good"}
        if what is RE.HALT:
            values |= {"halted_stage": rollout.state, "reason": reason or "2 of 4 hosts failed"}
        if what is RE.STOP:
            values |= {
                "stop_epoch": tx.apps.next_epoch(rollout.app),
                "stop_started": tx.now(),
                "reason": reason or "stopped by a test",
                "due_at": 0.0,
            }
        rollout = tx.rollouts.change(rollout, what, who="test", why=reason, **values)
    return rollout


def _bring(deps, tx, host, state, sha, previous):
    """Along the edges of the state machine, as a worker would."""
    model = deps.fleet.hosts.setdefault(host.name, None)
    model.current = previous
    model.prepared |= dict.fromkeys([sha, *([previous] if previous else [])], "d" * 64)
    for what in WAYS[state]:
        values = {}
        if what is HE.ACTIVATE:
            epoch = tx.apps.next_epoch(host.app)
            values = {
                "token": True,
                "touched": True,
                "previous": previous,
                "epoch": epoch,
                "operation": epoch,
            }
            values |= {"lease_owner": "gone", "lease_until": tx.now() - 1}
            model.current = sha
        if what in {HE.DONE, HE.FAIL}:
            values = {"token": False, "release": sha if what is HE.DONE else previous, "took_s": 1.4}
        if what is HE.FAIL:
            values |= {"error": f"{host.name}: unhealthy", "cause": "StepFailed"}
            tx.outputs.add(host.rollout, host.name, "activate", 1, "connection refused\n")
            model.current = previous
        if what is HE.LOSE:
            values = {"lost_at": tx.now(), "lease_owner": None, "lease_until": None}
        if what is HE.ROLL_BACK:
            values = {"lease_owner": "gone", "lease_until": tx.now() - 1}
        if what is HE.ROLLED_BACK:
            values, model.current = {"release": previous}, previous
        if what is HE.ROLLBACK_FAILED:
            values = {"error": f"{host.name}: no answer", "cause": "Unreachable"}
        host, _ = tx.hosts.change(host, what, who="test", **values)
    if state is H.DONE:
        tx.fleet.runs(host, sha, settled=True)


class Meanwhile:
    """Something else happens while a command waits: `with Meanwhile(work):`; what it raises comes out at the end."""

    def __init__(self, work):
        self._work, self._error = work, None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # raised in the test's own thread
            self._error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(60)
        assert not self._thread.is_alive(), f"it stands\n{self._where()}"
        if self._error is not None:
            raise self._error

    def _where(self):
        frame = sys._current_frames().get(self._thread.ident)
        return "".join(traceback.format_stack(frame)) if frame else "nowhere"


def fields_of(row):
    """A frozen row as a dictionary."""
    return dataclasses.asdict(row)
