"""Whatever happens to the branch, to its webhooks and to commits: what automation ships is what may be shipped."""

import dataclasses
import itertools
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
from tests.conftest import ALL_FAULTS
from tests.support.world import ModelWorkshop, World, ancestry

CAP = 3
# Without shrinking: that takes minutes here, and a walk is read as it is.
WALK = settings(
    deadline=None,
    database=None,
    max_examples=200 if ALL_FAULTS else 8,
    stateful_step_count=40,
    phases=[Phase.generate],
)
ANY = st.integers(0, 1000)
MOVES = ["push", "merge", "pull", "force", "again"]
MINUTES = st.sampled_from([1, 25])


class Server(ModelWorkshop):
    """A git server whose branch may be forced anywhere, and the mirror, which knows it as of its last fetch."""

    def __init__(self):
        super().__init__()
        self.every: dict[str, BranchCommit] = {}
        self.brought: dict[str, list[str]] = {}  # of each merge
        self.mirror: list[BranchCommit] = []

    def push(self, message="a change", *, fails=False, tree=None):
        sha = self._make(message, *(one.sha for one in self.commits[-1:]), tree=tree)
        self.commits.append(self.every[sha])
        if fails:
            self.failing.add(sha)
        return sha

    def pull(self, since, messages, *, pulled):
        """These commits, which follow `since`, are merged; `pulled`: into them, so that they are the first parent."""
        head, inner = self.commits[-1].sha, [since]
        for message in messages:
            inner.append(self._make(message, inner[-1]))
        merge = self._make("merge", *((inner[-1], head) if pulled else (head, inner[-1])))
        self.brought[merge] = inner[1:]
        self.commits.append(self.every[merge])
        return merge

    def _make(self, message, *parents, tree=None):
        sha = f"{len(self.every) + 1:040x}"
        tree = tree or f"{sha[1:]}f"  # files of its own
        self.every[sha] = BranchCommit(sha, 0, "a change", "Ann", message, parents, tree=tree)
        return sha

    def tree(self, sha):
        return self.every[sha].tree

    def _graph(self):
        return self.every

    def has(self, sha):
        """All that the commit has, itself included."""
        return ancestry(self.every, sha).keys()

    def fetch(self, app, config, *, limit_s=None):
        self.mirror = list(self.commits)
        return self.mirror[-1].sha

    def remote_head(self, app, config):
        return self.commits[-1].sha

    def branch(self, app, config, limit):
        found = [self.mirror[-1]]
        while found[-1].parents:
            found.append(self.every[found[-1].parents[0]])
        return [dataclasses.replace(one, position=at) for at, one in enumerate(found[::-1], start=1)][-limit:]

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
        self.let_go, self.went_well = set(), set()  # by name; what a rollout that came to its end has shipped
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

    @rule(amount=st.integers(1, 6), fails=st.integers(0, 9), undoes=st.none() | ANY, like=st.none() | ANY)
    def push(self, amount, fails, undoes, like=None):
        """`like`: the last one has the files of any other commit."""
        for number in range(amount):
            message = "a change"
            if undoes is not None:
                message = self._undoes(undoes, [one.sha for one in self.server.commits])
            tree = self._files(like) if like is not None and number + 1 == amount else None
            head = self.server.push(message, fails=number + 1 == fails, tree=tree)
        self.post(head)

    def _files(self, like):
        """Half of the time those of a barred commit, if there is one."""
        among = sorted(self.barred) if self.barred and like % 2 else list(self.server.every)
        return self.server.tree(self._one(among, like // 2))

    @rule(since=ANY, undoes=st.lists(st.none() | ANY, max_size=3), pulled=st.booleans())
    def merge(self, since, undoes, pulled):
        """Commits of another line come in, begun at any commit: the last one of them may be a merge's inner one."""
        start = self._one(sorted(self.server.has(self.server.commits[-1].sha)), since)
        messages = ["a change"]
        for which in undoes:
            before = f"{len(self.server.every) + len(messages):040x}"  # of those that come in
            among = [*self.server.every, *[before] * len(self.server.every)]
            messages.append("a change" if which is None else self._undoes(which, among))
        self.post(self.server.pull(start, messages, pulled=pulled))

    @precondition(lambda self: self.left)
    @rule(which=ANY, pulled=st.booleans())
    def merge_again(self, which, pulled):
        """What was forced away comes back by a merge."""
        lost = self._one(self.left, which)[-1].sha
        if lost not in self.server.has(self.server.commits[-1].sha):
            self.post(self.server.pull(lost, ["a change"], pulled=pulled))

    @rule(back=st.integers(1, 4))
    def force_back(self, back):
        self.left.append(list(self.server.commits))
        del self.server.commits[max(1, len(self.server.commits) - back) :]
        self.post(self.server.commits[-1].sha)

    @rule(back=st.integers(1, 4), amount=st.integers(1, 4))
    def force_sideways(self, back, amount):
        self.force_back(back)
        self.push(amount, 0, None)

    @precondition(lambda self: self.barred)
    @rule(which=ANY, mended=st.booleans())
    def bring_again(self, which, mended):
        """What is barred is undone, and its files come once more; perhaps with a person's word for it."""
        bad = self._one(sorted(self.barred), which)
        self.server.push(f"This reverts commit {bad}.")
        message = f"once more\n\nRollout-Fixes: {bad}" if mended else "once more"
        self.post(self.server.push(message, tree=self.server.tree(bad)))
        self.quiet(2, 25)

    @rule(amount=st.integers(1, 4))
    def rebase(self, amount):
        """The newest commits come again under other hashes, with the same files."""
        again = self.server.commits[1:][-amount:]
        self.force_back(len(again))
        for one in again:
            self.post(self.server.push(one.message, fails=one.sha in self.server.failing, tree=one.tree))

    @precondition(lambda self: self.left)
    @rule(which=ANY)
    def force_again(self, which):
        """What was forced away comes back."""
        self.left.append(list(self.server.commits))
        self.server.commits[:] = self._one(self.left, which)
        self.post(self.server.commits[-1].sha)

    def _undoes(self, which, among):
        """Half of the time what is barred, if anything is."""
        return f"This reverts commit {self._one(sorted(self.barred) if self.barred and which % 2 else among, which // 2)}."

    @rule(move=st.sampled_from(MOVES), one=ANY, undoes=st.lists(ANY, max_size=2), barred=st.none() | ANY)
    def day(self, move, one, undoes, barred):
        """The branch moves and is looked at, a person may bar something, and then all goes well."""
        match move:
            case "push":
                self.push(1 + one % 3, 0, next(iter(undoes), None))
            case "merge" | "pull":
                self.merge(one, undoes, pulled=move == "pull")
            case "force":
                self.force_sideways(1 + one % 2, 1)
            case "again" if self.left:
                self.merge_again(one, pulled=bool(undoes))
        self.poll()
        if barred is not None:
            self.bar(barred)
        self.quiet(1, 25)

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
        name = self._one(sorted(self.server.has(self.server.commits[-1].sha)), which)
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
            self.let_go.discard(name)

    @rule(which=ANY)
    def unbar(self, which):
        name = self._one(sorted(self.barred) or list(self.server.every), which)
        if self._try(lambda: bars.unbar("shop", name, self.deps, who="ann", why="checked")):
            self.barred.discard(name)
            self.let_go.add(name)

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
                commit = tx.commits.get("shop", rollout.commit)
                gone = commit.state is CommitState.BARRED or not commit.on_branch
                kept = "is barred since it was planned" in (rollout.reason or "")
                assert gone or was_ahead or kept, rollout.reason
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
            self._went_wrong(rollout, said=how == "stop")
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
            self.went_well.add(rollout.commit)
        else:
            stopping.stop(rollout.id, self.deps, who="ann", why="no")
            self._went_wrong(rollout, said=True)
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
        self._went_wrong(rollout, said=True)
        stopping.finish_roll_back(rollout.id, self.deps)

    def _went_wrong(self, rollout, *, said):
        """What a person takes back is barred as a whole; of what failed its canary only who went alone."""
        if said or len(rollout.commits) == 1:
            bad = set(rollout.commits)
            self.barred |= bad
            self.let_go -= bad

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
        head = self.server.mirror[-1].sha
        assert rollout.commit in self.server.has(head)
        running = self._running()
        if running is None:
            assert rollout.commit == head, "before the first release the head goes out"
            return
        assert 1 <= len(rollout.commits) <= CAP
        self._brings_nothing_barred_again(tx, commit)
        line = [running, *rollout.commits]
        for older, newer in itertools.pairwise(line):
            assert older in self.server.has(newer), (
                "what ships has what ran, and all that it is said to carry"
            )
        carried = self.server.has(rollout.commit) - self.server.has(running)
        base = tx.commits.get("shop", running)
        assert base.state is not CommitState.BARRED or any(
            running in fixes(self.server.every[fix].message) for fix in carried if self._lasts(fix)
        ), "what runs is barred: only what mends it follows"
        for sha in carried:
            row = tx.commits.get("shop", sha)
            assert row.sha in line or row.merged_into in line, (
                "each that ships is known, and where it came in"
            )
            if sha in self.barred or row.is_barred:
                names = {sha, row.same_as}
                assert any(
                    names & fixes(self.server.every[fix].message) for fix in carried if self._lasts(fix)
                )

    def _brings_nothing_barred_again(self, tx, commit):
        """The files of a barred commit do not ship under another hash: decision 0010, with its exceptions."""
        tree, mirror = self.server.tree(commit.sha), [one.sha for one in self.server.mirror]
        barred = {sha for sha in self.barred if self.server.tree(sha) == tree}
        ran_well = {sha for sha in self.went_well - self.barred if self.server.tree(sha) == tree}
        if commit.sha in self.let_go or ran_well:
            return
        for sha in barred:
            row = tx.commits.get("shop", sha)
            assert (
                sha in fixes(commit.message)
                or sha in mirror[mirror.index(commit.sha) :]  # what comes before it is not gone back to
                or (row.merged_into is not None and commit.id < row.id)
            ), f"the files of {sha}, which is barred"

    def _lasts(self, fix):
        """Whether what it says was not taken back by another one that came in with it."""
        group = next((inner for inner in self.server.brought.values() if fix in inner), [])
        later = group[group.index(fix) + 1 :] if group else []
        return not any(
            fix in fixes(self.server.every[one].message) for one in reversed(later) if self._lasts(one)
        )

    def every_commit_above_the_running_one_has_its_row(self):
        """Whenever the branch was looked at: on the line, which goes through what runs if the head has it, or inside a merge."""
        head, running = self.server.mirror[-1].sha, self._running()
        has = self.server.has(head)
        with self.world.store.reading() as tx:
            base = None if running is None else tx.commits.get("shop", running)
            line = tx.commits.after("shop", 0 if base is None else base.position)
            rows = {sha: tx.commits.get("shop", sha) for sha in has}
        if running is None or running not in has:
            assert rows[head] is not None
            assert rows[head].on_branch
            return
        assert base.on_branch, "what runs is on the branch"
        assert [row.position for row in line] == list(range(base.position + 1, base.position + 1 + len(line)))
        for older, newer in itertools.pairwise([running, *(row.sha for row in line)]):
            assert older in self.server.has(newer)
        assert (line[-1].sha if line else running) == head
        known = {row.sha for row in line}
        for sha in has - self.server.has(running):
            assert rows[sha].sha in known or rows[sha].merged_into in known
            assert "not on branch" not in (rows[sha].reason or "")

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
    """Never a failing or barred commit, more than the cap, backwards, or one that lacks what runs; each above it has its row."""
    monkeypatch.setattr(Queue, "folder", tmp_path)
    monkeypatch.setattr(Queue, "patch", monkeypatch)
    run_state_machine_as_test(Queue, settings=WALK)
