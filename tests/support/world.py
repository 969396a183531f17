"""The real services on a real SQLite store, with a virtual clock, a queue in place of the broker, and modelled hosts.

Whatever order messages come in, however often, and whichever are lost: the rows decide. Tests drive the queue.
"""

import random
import threading
from dataclasses import replace
from graphlib import TopologicalSorter

from rollout.config import deploy_file, ranges
from rollout.config.settings import Settings
from rollout.domain import pipeline
from rollout.domain.model import BranchCommit, Pull, Release, TestResult
from rollout.domain.states import FINISHED, RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import OutcomeUnknown
from rollout.fleet import inventory
from rollout.services import canaries, hosts, intake, reconcile, rollouts, testing, watching
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.services.steps import Again, GoOn
from rollout.store import clock as store_clock
from tests.support import stores
from tests.support.model_host import (
    SENDING,
    WAITING,
    ModelHost,
    at_once,
    prepare_call,
    status_call,
    switch_call,
)


class ModelFleet:
    """`services.ports.Fleet` over ModelHosts."""

    def __init__(self, names):
        self.hosts = {name: ModelHost(name) for name in names}
        self.before_permit = lambda _host: None
        self.cuts = (
            set()
        )  # hosts whose next switch is permitted, and whose worker knows at once that it is cut off
        self.in_hand = {}  # what such a host has: a call, its steps, and for how long it is permitted

    def members(self, config):
        return inventory.members(config)

    def prepare(self, target, order, *, timeout_s, go_on):
        host = self.hosts[target.name]
        host.reach()
        if not go_on():
            raise OutcomeUnknown(f"{host.name}: cut")
        call = prepare_call(host, order)
        steps = call.run()
        if next(steps, None) == SENDING:
            at_once(steps, order.release.digest)
        return call.reply.outcome(call.reply.answer)

    def activate(self, target, order, permit, *, timeout_s, on_switch=None):
        self.before_permit(target.name)
        return self._switch("activate", target, order, permit, on_switch)

    def roll_back(self, target, order, permit, *, timeout_s):
        return self._switch("rollback", target, order, permit)

    def _switch(self, verb, target, order, permit, _on_switch=None):
        host = self.hosts[target.name]
        host.reach()
        call = switch_call(host, verb, order)
        steps = call.run()
        next(steps)
        within = permit(call.reply.greeting())
        if host.name in self.cuts:
            self.cuts.remove(host.name)
            self.in_hand[host.name] = call, steps, within
            raise OutcomeUnknown(f"{host.name}: the connection broke")
        host.before_act()
        at_once(steps, within)
        if call.acted:
            host.after_act()
            if host.loses_answer:
                host.loses_answer -= 1
                raise OutcomeUnknown(f"{host.name}: the connection broke")
        return call.reply.outcome(call.reply.answer)

    def status(self, target, *, asked=0, seal=None, timeout_s):
        host = self.hosts[target.name]
        host.reach()
        call = status_call(host, asked, seal)
        for moment in call.run():
            if moment == WAITING:
                self.while_waiting()
        return call.reply.status()

    @staticmethod
    def while_waiting():
        """For a host's lock."""
        raise AssertionError("somebody else has the lock")

    def check(self, target, *, timeout_s):
        self.hosts[target.name].reach()
        return {"rollout": "1", "writable": "yes", "missing": "", "free_kb": "1000000", "sh_ms": "2"}

    def read(self, target, program, lines, *, timeout_s):
        self.hosts[target.name].reach()
        return ""

    def close(self):
        pass


def ancestry(graph, head):
    """The commit and all that it has, by their hashes."""
    found, ahead = {}, [head]
    while ahead:
        sha = ahead.pop()
        if sha in graph and sha not in found:
            found[sha] = graph[sha]
            ahead += graph[sha].parents
    return found


class ModelWorkshop:
    """`services.ports.Workshop` over a list of commits: the branch as its head moved, each the child of the one before it.

    One that has parents of its own is a merge; `inner` are the others that merges brought.
    """

    def __init__(self):
        self.commits: list[BranchCommit] = []
        self.inner: dict[str, BranchCommit] = {}
        self.failing: set[str] = set()
        self.failing_build: set[str] = set()
        self.pulls: list[Pull] = []
        self.archives: list[str] = []  # the newest ones, and those that are needed
        self.room, self.gone = 20, set()
        self.mirrored = True  # False: this machine has no mirror (any more)

    def push(self, message="a change", *, fails=False, tree=None):
        sha = f"{len(self.commits) + 1:040x}"
        self.commits.append(
            BranchCommit(
                sha,
                len(self.commits) + 1,
                message.splitlines()[0],
                "Ann <ann@example.com>",
                message,
                tree=tree,
            )
        )
        if fails:
            self.failing.add(sha)
        return sha

    def merge(self, *messages, message="Merge branch 'side'", since=-1, pulled=False):
        """Commits with these messages on a line of their own, and the merge of it; the hash of that, and theirs.

        `pulled`: by somebody's `git pull` of the branch into his own work, so that that is the first parent.
        """
        head, tip, brought = self.commits[-1].sha, self.commits[since].sha, []
        for text in messages:
            sha = f"{len(self.inner) + 1:04x}{'e' * 36}"
            self.inner[sha] = BranchCommit(sha, 0, text.splitlines()[0], "Eve", text, (tip,))
            brought.append(sha)
            tip = sha
        merge = self.push(message)
        parents = (tip, head) if pulled else (head, tip)
        self.commits[-1] = replace(self.commits[-1], parents=parents)
        return merge, brought

    def _graph(self):
        befores = [(), *((one.sha,) for one in self.commits)]
        line = [
            one if one.parents else replace(one, parents=before)
            for one, before in zip(self.commits, befores, strict=False)
        ]
        return self.inner | {one.sha: one for one in line}

    def contains(self, app, head, sha):
        return sha in ancestry(self._graph(), head)

    def history(self, app, head, since, limit):
        graph = self._graph()
        told = ancestry(graph, head).keys() - ancestry(graph, since)
        parents = {sha: [one for one in graph[sha].parents if one in told] for sha in told}
        found = [graph[sha] for sha in TopologicalSorter(parents).static_order()]
        return None if len(found) > limit else found[::-1]

    def fetch(self, app, config, *, limit_s=None):
        return self.commits[-1].sha

    def has_branch(self, app, config):
        return self.mirrored

    def remote_head(self, app, config):
        return self.commits[-1].sha

    def remote_heads(self, app, config):
        return self.remote_head(app, config), list(self.pulls)

    def fetch_pulls(self, app, config, pulls):
        return list(pulls)

    def resolve(self, app, name):
        return next(sha for sha in self._graph() if sha.startswith(name))

    def branch(self, app, config, limit):
        return self.commits[-limit:]

    def run_tests(self, app, config, commit, *, go_on):
        return TestResult(
            commit not in self.failing, "exit status 1" if commit in self.failing else "ok", "out"
        )

    def has_archive(self, app, commit):
        return commit not in self.gone

    def build(self, app, config, commit, needed=()):
        if commit in self.failing_build:
            return None, TestResult(passed=False, reason="exit status 2", output="build")
        others = [one for one in self.archives if one != commit]
        newest = others[max(0, len(others) - self.room + 1) :]
        self.archives = [*(one for one in others if one in needed or one in newest), commit]
        self.gone = self.gone.union(others).difference(self.archives)
        return Release(commit, commit + "0" * 24, f"/nowhere/{commit}.tar.gz", 1000), TestResult(
            True, "built", ""
        )

    def delta(self, app, base, target):
        return None


class ModelMetrics:
    """Hosts that answer `rate` requests a second, all of them well but for the canary's share of bad answers.

    `share_of` may say otherwise: the share of good answers of a host, under its role, at a time of `clock`.
    """

    def __init__(self):
        self.share, self.rate, self.clock = 1.0, 100, lambda: 0.0

    def share_of(self, _name, role, _at):
        return self.share if role == "canary" else 1.0

    def read(self, target, role, config, cursor, *, elapsed=0.0):
        begun, until = float(cursor or 0.0), 2.0 * (elapsed // 2)
        source = "probe" if config.canary.source == "probe" else "log"
        found = []
        for number in range(round((until - begun) / 2)):
            t = begun + 2.0 * (number + 1)
            requests = self.rate * 2
            good = round(requests * self.share_of(target.name, role, self.clock() - elapsed + t - 2.0))
            counts = {"2xx": good, "3xx": 0, "4xx": 0, "499": 0, "5xx": requests - good}
            found.append(Interval(t, 2.0, target.name, role, observed=True, counts=counts, source=source))
        return found, str(max(begun, until))


class QueueBell:
    """Messages in a list. They may be dropped, doubled or shuffled by whoever drives the queue. `lonely`: nobody waits for a place."""

    def __init__(self):
        self.queue = []
        self.revoked = []
        self.deaf = self.lonely = False

    def ring(self, rings):
        if self.deaf:
            return False
        for ring in rings:
            self.send((0.0, (ring.task, *ring.then), ring.arguments))
        return True

    def send(self, entry):
        """Every message passes here, whoever sends it: when it is due, the tasks, and their arguments."""
        self.queue.append(entry)

    def revoke(self, rollout):
        self.revoked.append(rollout)
        return True

    def crowded(self):
        return not self.lonely

    waiting = 0

    def count(self):
        return self.waiting


class RecordingNotifier:
    def __init__(self):
        self.sent = []

    def send(self, urls, title, body, *, only=None):
        self.sent.append((title, body))


TOML = """
[server]
state_dir = "{state}"
[apps.shop]
repository = "{state}/shop.git"
[apps.shop.tests]
command = "true"
[apps.shop.release]
path = "/srv/shop"
restart = "true"
health = "true"
{release}
[apps.shop.canary]
log = "/srv/shop/shared/access.log"
bake = "10s"
{canary}
[apps.shop.fan_out]
{fan_out}
[apps.shop.fleet]
hosts = [{patterns}]
known_hosts = "{state}/known_hosts"
[notify]
urls = ["json://localhost/"]
"""

WATCH, SWEEP = reconcile.watch, reconcile.sweep
# From when on each row that it looks for is there: a rollout that stops, a host to be read.
WATCHED_FROM = """
SELECT 0 FROM rollouts WHERE state = 'stopping' UNION ALL
SELECT max(coalesce(due_at, 0), coalesce(lease_until, 0)) FROM rollout_hosts WHERE state = 'unknown'
"""
# When what rows wait for is due; and how long a sweep is put off at most, for what follows from other times.
DUE = " UNION ALL ".join(
    f"SELECT {column} FROM {table} WHERE {column} > {{0}}"
    for table, column in (
        ("apps", "poll_due_at"),
        ("commits", "due_at"),
        ("commits", "lease_until"),
        ("rollouts", "due_at"),
        ("rollouts", "watch_due_at"),
        ("rollout_hosts", "due_at"),
        ("rollout_hosts", "lease_until"),
        ("notices", "due_at"),
    )
)
QUIET_S = 30.0


def perform(task, arguments, deps):  # noqa: PLR0911  # one line a task
    """What the task shells do with a message."""
    match task:
        case pipeline.RUN_TESTS:
            return testing.run_tests(arguments[0], deps)
        case pipeline.DEPLOY_CANARY:
            return rollouts.deploy_canary(arguments[0], deps)
        case pipeline.EVALUATE_CANARY:
            return canaries.evaluate(arguments[0], deps)
        case pipeline.FAN_OUT:
            return rollouts.fan_out(arguments[0], deps)
        case pipeline.WATCH_FAN_OUT:
            return watching.watch(arguments[0], deps)
        case pipeline.PREPARE_HOST:
            return hosts.prepare(*arguments[:2], deps)
        case pipeline.DEPLOY_HOST:
            return hosts.deploy(*arguments[:2], deps)
        case pipeline.ROLL_BACK_HOST:
            return hosts.roll_back(*arguments[:2], deps)
        case pipeline.COUNT_OUTCOME:
            return rollouts.count(arguments[0], deps)
        case pipeline.RECONCILE:
            return reconcile.sweep(deps)
    raise AssertionError(task)


def _patterns(hosts):
    """web1 to as many, in as few patterns as may be."""
    width, most = max(2, len(str(hosts))), ranges.MOST
    for first in range(1, hosts + 1, most):
        yield f"web[{first:0{width}d}:{min(first + most - 1, hosts):0{width}d}]"


class World:
    """One app, a fleet, a queue, a clock that moves only when told."""

    def __init__(
        self, folder, monkeypatch, *, hosts=10, fan_out="", canary="", release="", url=None, store=None
    ):
        kind = {"hosts": hosts, "fan_out": fan_out, "canary": canary, "release": release}
        self.given = (
            None if url or store else kind
        )  # of a world that is the same in a new file as in any other
        self.seconds = 1000.0
        monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: self.seconds)
        monkeypatch.setattr(store_clock, "own_seconds", lambda: self.seconds)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "rollout.toml"
        file.write_text(
            TOML.format(
                state=folder,
                patterns=", ".join(f'"{pattern}"' for pattern in _patterns(hosts)),
                fan_out=fan_out,
                canary=canary,
                release=release,
            )
        )
        self.config = deploy_file.load(file, {})
        self.store = store or stores.until_the_end_of_the_test(url or f"sqlite:///{folder}/rollout.db")
        self._writes, self._known, self._looked_at, self._moments = stores.Writes(self.store), {}, None, []
        self._swept, self._next_sweep = None, 0.0
        self._foreseen = self.store.url.startswith("sqlite")  # when rows come due: nobody steps that clock
        self.bell, self.workshop, self.metrics = QueueBell(), ModelWorkshop(), ModelMetrics()
        self.notifier = RecordingNotifier()
        self.fleet = ModelFleet([member.name for member in inventory.members(self.config.app(None))])
        for model in (self.metrics, *self.fleet.hosts.values()):
            model.clock = lambda: self.seconds
        settings = Settings()
        leases = LeaseKeeper(self.store, "worker", settings.lease_s)
        # It takes itself for running: nothing here goes by the wall's clock.
        leases._thread = threading.main_thread()
        self.deps = Deps(
            config=self.config,
            settings=settings,
            store=self.store,
            fleet=self.fleet,
            workshop=self.workshop,
            metrics={"access-log": self.metrics},
            bell=self.bell,
            notifier=self.notifier,
            leases=leases,
            worker="worker",
        )

    def push(self, message="a change", *, fails=False):
        """A commit on the branch, found by the poller."""
        sha = self.workshop.push(message, fails=fails)
        intake.read_branch(self.config.app(None), self.deps, who="test", why="pushed")
        return sha

    def step(self, entry):
        """Perform one message, as the task shells do."""
        _, (task, *rest), arguments = entry
        outcome = self._perform(task, arguments)
        if isinstance(outcome, Again):
            self.bell.send((self.seconds + outcome.seconds, (task, *rest), arguments))
        elif isinstance(outcome, GoOn) and rest:
            self.bell.send((0.0, tuple(rest), arguments))

    def _perform(self, task, arguments):
        return perform(task, arguments, self.deps)

    def run(
        self,
        *,
        until=lambda: False,
        seconds=600.0,
        chooser: random.Random | None = None,
        loss=0.0,
        doubling=0.0,
    ):
        """Work the queue, moving the clock where nothing is due; the reconciler sweeps every 5 s of it, if there may be anything."""
        end, swept = self.seconds + seconds, self.seconds
        while self.seconds < end and not until():
            due = [entry for entry in self.bell.queue if entry[0] <= self.seconds]
            if not due:
                self.seconds += 0.5
                self._watch()
                if self.seconds - swept >= self.deps.settings.reconcile_s:
                    swept = self.seconds
                    self._sweep()
                continue
            entry = chooser.choice(due) if chooser else due[0]
            self.bell.queue.remove(entry)
            if chooser and chooser.random() < loss:
                continue
            if chooser and chooser.random() < doubling:
                self.bell.queue.append(entry)
            self.step(entry)

    def _sweep(self):
        """`reconcile.sweep`; not again while nobody has written since one that found nothing, and nothing has come due."""
        before = self._writes.version() if self._foreseen else None
        still = before is not None and before == self._swept and reconcile.sweep is SWEEP
        if still and self.seconds < self._next_sweep:
            return
        reconcile.heal(self.deps)
        reconcile.sweep(self.deps)
        reconcile.tell(self.deps)
        self._swept = before
        if before is not None:
            self._next_sweep = min([self.seconds + QUIET_S, *self._writes.ask(DUE.format(self.seconds))])

    def _watch(self):
        """`reconcile.watch`, where a row is there that it might have to do with: that is asked much faster."""
        if not self._foreseen or reconcile.watch is not WATCH:
            reconcile.watch(self.deps)
            return
        version = self._writes.version()
        if version != self._looked_at:
            self._looked_at, self._moments = version, self._writes.ask(WATCHED_FROM)
        if any(at <= self.seconds for at in self._moments):
            reconcile.watch(self.deps)

    def newest(self):
        """The rollout that is under way, not one that was planned behind it; else the last one."""
        return self._read("newest", lambda tx: tx.rollouts.active("shop") or tx.rollouts.newest("shop"))

    def rollout_hosts(self):
        number = self.newest().id
        return list(self._read(("hosts", number), lambda tx: tx.hosts.of(number)))

    def _read(self, what, how):
        """What rows say, asked at each step of the queue: read again when somebody has written, no earlier."""
        version = self._writes.version()
        if version != self._known.get("version"):
            self._known = {"version": version}
        if what not in self._known:
            with self.store.reading() as tx:
                self._known[what] = how(tx)
        return self._known[what]

    def settle(self, **chaos):
        """Run until nothing moves: the newest rollout is over or waits for a person."""
        waiting = {*FINISHED, RolloutState.HALTED}

        def over():
            newest = self.newest()
            if newest is None or newest.state not in waiting:
                return False
            return not self._read("tests", lambda tx: tx.commits.unfinished("shop"))

        self.run(until=over, **chaos)
        return self.newest()

    def runs(self):
        """What every host has on its disk."""
        return {name: host.current for name, host in self.fleet.hosts.items()}
