"""Whatever happens to the branch, to its webhooks and to commits: what automation ships is what may be shipped."""

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rollout.domain import pipeline
from rollout.domain.model import BranchCommit, Push
from rollout.domain.selection import fixes
from rollout.domain.states import CommitState, RolloutEvent, RolloutState
from rollout.errors import Conflict, NotFound
from rollout.services import bars, intake, planning, rollouts, stopping, testing, turns
from tests.support.world import ModelWorkshop, World

CAP = 3
# Without shrinking: that takes minutes here, and a walk is read as it is.
WALK = settings(
    deadline=None, database=None, max_examples=20, stateful_step_count=40, phases=[Phase.generate]
)
ANY = st.integers(0, 1000)
MINUTES = st.sampled_from([1, 25])


class Server(ModelWorkshop):
    """A git server whose branch may be forced anywhere, and the mirror, which knows it as of its last fetch."""

    def __init__(self):
        super().__init__()
        self.every: dict[str, BranchCommit] = {}
        self.mirror: list[BranchCommit] = []

    def push(self, message="a change", *, fails=False):
        sha = f"{len(self.every) + 1:040x}"
        self.every[sha] = BranchCommit(sha, len(self.commits) + 1, "a change", "Ann", message)
        self.commits.append(self.every[sha])
        if fails:
            self.failing.add(sha)
        return sha

    def fetch(self, app, config):
        self.mirror = list(self.commits)
        return self.mirror[-1].sha

    def remote_head(self, app, config):
        return self.commits[-1].sha

    def branch(self, app, config, limit):
        return self.mirror[-limit:]

    def resolve(self, app, name):
        return name


class Queue(RuleBasedStateMachine):
    """People push, force, bar and deploy; webhooks come late, twice, or not at all; rollouts end in every way."""

    folder, patch = Path(), None  # the test's own

    @initialize()
    def begin(self):
        place = Path(tempfile.mkdtemp(dir=self.folder))
        self.world = World(place, self.patch, hosts=1)
        self.server = Server()
        self.deps = dataclasses.replace(self.world.deps, workshop=self.server)
        self.app = self.world.config.app(None)
        self.posts, self.left, self.barred = [], [], set()
        self.ran, self.seen = (
            [],
            0,
        )  # what the fleet ran, the present one last; the newest rollout that was checked
        self.out = None  # what fans out
        self.post(self.server.push())

    def teardown(self):
        if hasattr(self, "world"):
            self.world.store.close()

    # -- the branch ----------------------------------------------------------------------------------------------------

    @rule(amount=st.integers(1, 6), fails=st.integers(0, 9), undoes=st.none() | ANY)
    def push(self, amount, fails, undoes):
        for number in range(amount):
            message = "a change"
            if undoes is not None:
                message = f"This reverts commit {self._one(self.server.commits, undoes).sha}."
            head = self.server.push(message, fails=number + 1 == fails)
        self.post(head)

    @rule(back=st.integers(1, 4))
    def force_back(self, back):
        self.left.append(list(self.server.commits))
        del self.server.commits[max(1, len(self.server.commits) - back) :]
        self.post(self.server.commits[-1].sha)

    @rule(back=st.integers(1, 4), amount=st.integers(1, 4))
    def force_sideways(self, back, amount):
        self.force_back(back)
        self.push(amount, 0, None)

    @precondition(lambda self: self.left)
    @rule(which=ANY)
    def force_again(self, which):
        """What was forced away comes back."""
        self.left.append(list(self.server.commits))
        self.server.commits[:] = self._one(self.left, which)
        self.post(self.server.commits[-1].sha)

    def post(self, head):
        self.posts.append(head)

    # -- who tells us --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.posts)
    @rule(which=ANY, again=st.booleans())
    def webhook(self, which, again):
        """Any of those that were sent, in any order; what is never drawn is lost."""
        head = self._one(self.posts, which)
        if not again:
            self.posts.remove(head)
        push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=head)
        intake.receive_all([(push, self.app)], self.deps)

    @rule()
    def poll(self):
        intake.poll("shop", self.deps, force=True)
        self.every_commit_above_the_running_one_has_its_row()

    @rule(which=ANY, now=st.booleans())
    def deploy(self, which, now):
        wish = intake.Wish("hurry", "ann") if now else None
        name = self._one(self.server.commits, which).sha
        self._try(lambda: intake.enqueue(self.app, name, self.deps, who="ann", now=wish))

    # -- what follows --------------------------------------------------------------------------------------------------

    @rule(lost=st.integers(0, 3), minutes=MINUTES)
    def work(self, lost, minutes=1):
        """The workers at work for a while; they lose some of the messages."""
        self.world.seconds += 60.0 * minutes
        turns.ring(self.app, self.deps)
        queue = self.world.bell.queue
        del queue[: lost // 3]
        for _ in range(20):
            if not queue:
                break
            _, (task, *_), arguments = queue.pop(0)
            if task == pipeline.RUN_TESTS:
                testing.run_tests(arguments[0], self.deps)
                self.what_ships_may_ship()
        planning.start_next("shop", self.deps)

    @rule(which=ANY)
    def bar(self, which):
        name = self._one(list(self.server.every), which)
        if self._try(lambda: bars.bar("shop", name, self.deps, who="ann", why="slow")):
            self.barred.add(name)

    @rule(which=ANY)
    def unbar(self, which):
        name = self._one(sorted(self.barred) or list(self.server.every), which)
        if self._try(lambda: bars.unbar("shop", name, self.deps, who="ann", why="checked")):
            self.barred.discard(name)

    @rule(rounds=st.integers(1, 3), minutes=MINUTES)
    def quiet(self, rounds, minutes):
        """All goes well for a while."""
        for _ in range(rounds):
            self.poll()
            self.work(0, minutes)
            self.what_ships_may_ship()
            if self.out is None:
                self.canary("passed")
                self.what_ships_may_ship()
            if self.out is not None:
                self.end("done")
                self.what_ships_may_ship()

    # -- how a rollout ends --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.out is None)
    @rule(how=st.sampled_from(["passed", "passed", "stop", "red"]))
    def canary(self, how):
        """What is planned begins, and passes its canary or not."""
        with self.world.store.reading() as tx:
            rollout = tx.rollouts.pending("shop")
        if rollout is None:
            return
        was_ahead = rollout.is_ahead  # it may be planned anew then
        rollouts.deploy_canary(rollout.id, self.deps)
        with self.world.store.transaction() as tx:
            rollout = tx.rollouts.get(rollout.id)
            if rollout.state is not RolloutState.DEPLOYING_CANARY:
                assert rollout.commit in self.barred or was_ahead, rollout.reason
                return
            if was_ahead:
                self._check(tx, rollout)
            if how == "passed":
                for edge in (RolloutEvent.CANARY_DEPLOYED, RolloutEvent.CANARY_PASSED):
                    rollout = tx.rollouts.change(rollout, edge, who="walk")
                self.out = rollout
            elif how == "red":
                stopping.fail_canary(tx, rollout, "500s")
        if how == "stop":
            stopping.stop(rollout.id, self.deps, who="ann", why="no")
        if how != "passed":
            self._went_wrong(rollout)
            stopping.drive(rollout.id, self.deps)
        planning.start_next("shop", self.deps)

    @precondition(lambda self: self.out is not None)
    @rule(how=st.sampled_from(["done", "done", "stop"]))
    def end(self, how):
        """What fans out ends; another one may have been planned behind it."""
        rollout, self.out = self.out, None
        if how == "done":
            with self.world.store.transaction() as tx:
                done = tx.rollouts.change(tx.rollouts.get(rollout.id), RolloutEvent.FINISH, who="walk")
                bars.after_success(tx, done, who="automation")
            self.ran.append(rollout.commit)
        else:
            stopping.stop(rollout.id, self.deps, who="ann", why="no")
            self._went_wrong(rollout)
            stopping.drive(rollout.id, self.deps)
        planning.start_next("shop", self.deps)

    @precondition(lambda self: self.ran)
    @rule()
    def roll_back(self):
        try:
            rollout = stopping.roll_back_done(self.app, self.deps, to=None, who="ann", why="no")
        except Conflict:
            return
        assert rollout.commit == self.ran.pop()
        self._went_wrong(rollout)
        stopping.finish_roll_back(rollout.id, self.deps)

    def _went_wrong(self, rollout):
        if len(rollout.commits) == 1:
            self.barred.add(rollout.commit)

    # -- what must be true ---------------------------------------------------------------------------------------------

    @invariant()
    def what_ships_may_ship(self):
        """Of each rollout as soon as it is planned."""
        with self.world.store.reading() as tx:
            new = tx.rollouts.numbered(self.seen + 1, self.seen + 100, 100)
            assert len(new) <= 1
            for rollout in new:
                self.seen = rollout.id
                self._check(tx, rollout)

    def _check(self, tx, rollout):
        commit = tx.commits.get("shop", rollout.commit)
        assert commit.state is CommitState.PASSED
        assert rollout.commit not in self.server.failing | self.barred
        if rollout.requested_by != planning.AUTOMATION:
            return
        branch = [one.sha for one in self.server.mirror]
        assert rollout.commit in branch
        at = branch.index(rollout.commit)
        running = self._running()
        if running is None:
            assert at == len(branch) - 1, "before the first release the head goes out"
            return
        assert running in branch, "nobody knows what comes after what left the branch"
        carried = branch[branch.index(running) + 1 : at + 1]
        assert 1 <= len(carried) <= CAP
        assert list(rollout.commits) == carried
        for place, sha in enumerate(carried):
            if sha in self.barred or tx.commits.get("shop", sha).state is CommitState.BARRED:
                assert any(sha in fixes(self.server.every[later].message) for later in carried[place + 1 :])

    def every_commit_above_the_running_one_has_its_row(self):
        """Whenever the branch was looked at."""
        branch = [one.sha for one in self.server.mirror]
        running = self._running()
        if not branch or (running is not None and running not in branch):
            return
        above = branch[-1:] if running is None else branch[branch.index(running) + 1 :]
        with self.world.store.reading() as tx:
            rows = {row.sha: row.position for row in tx.commits.after("shop", 0)}
        assert {sha: branch.index(sha) + 1 for sha in above}.items() <= rows.items()

    def _running(self):
        """What the next rollout replaces."""
        if self.out is not None:
            return self.out.commit
        return self.ran[-1] if self.ran else None

    @staticmethod
    def _one(among, which):
        return among[which % len(among)]

    @staticmethod
    def _try(deed):
        """Whether it was not refused."""
        try:
            deed()
        except (Conflict, NotFound):
            return False
        return True


def test_automation_ships_only_what_may_be_shipped(tmp_path, monkeypatch):
    """Never a failing or barred commit, more than the cap, out of order, or backwards; each above the running one has its row."""
    monkeypatch.setattr(Queue, "folder", tmp_path)
    monkeypatch.setattr(Queue, "patch", monkeypatch)
    run_state_machine_as_test(Queue, settings=WALK)
