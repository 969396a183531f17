"""A commit on its way to the fleet: enqueued, and watched until its rollout has ended."""

from dataclasses import dataclass
from typing import Any

from rollout.cli import following, output, scene, waiting
from rollout.cli.call import Call, who
from rollout.cli.failures import FAILED, OK, TimedOut
from rollout.cli.scene import Bar
from rollout.cli.tellers import teller
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName, Commit, Rollout, RolloutId
from rollout.domain.states import FINISHED, CommitState, RolloutState
from rollout.errors import NotFound
from rollout.services import explaining, intake, planning, telling, views
from rollout.store.store import Transaction

WAITS = {CommitState.RECEIVED: "its tests come next", CommitState.TESTING: "its tests run"}


def ship(call: Call, name: str | None, reason: str | None, *, wait: bool, timeout_s: float | None) -> int:
    """Enqueue the commit, before the queue if there is a reason; with `wait`, until it is out, or is not."""
    app = call.app()
    wish = intake.Wish(reason, who()) if reason else None
    placed = intake.enqueue(app, name, call.deps, who=who(), now=wish)
    way = Way(call, app, placed.sha, _failed_before(call, placed))
    following.warn_if_nobody_hears(call)
    look = way.to_its_end(timeout_s) if wait else way.look()
    if call.json:
        output.document(look.document())
    else:
        output.say(look.sentence())
    if not wait:
        return OK
    return OK if look.out else FAILED


@dataclass(frozen=True, slots=True)
class Look:
    """Where a commit is."""

    commit: Commit
    rollout: Rollout | None  # that brings it
    view: dict[str, Any] | None  # of that rollout
    why: str  # what it waits for, when there is no rollout
    over: bool  # nothing more will come of it by itself

    @property
    def out(self) -> bool:
        """The fleet has it."""
        return self.rollout is not None and self.rollout.state is RolloutState.DONE

    def document(self) -> dict[str, Any]:
        """The contract's JSON."""
        number = None if self.rollout is None else self.rollout.id
        return {"commit": self.commit.sha, "state": str(self.commit.state), "rollout": number}

    def sentence(self) -> str:
        """The same for people."""
        if self.view is not None:
            return scene.headline(self.view)
        return f"commit {output.short(self.commit.sha)} is {self.commit.state}: {output.clean(self.why)}"

    def bars(self) -> list[Bar]:
        """Its progress."""
        if self.view is not None:
            return scene.of_rollout(self.view)
        testing = self.commit.state in WAITS
        return [Bar("tests" if testing else "queue", 0, None, output.clean(self.why))]


@dataclass(frozen=True, slots=True)
class Way:
    """A commit that somebody wants out."""

    call: Call
    app: AppConfig
    sha: str
    before: frozenset[RolloutId]  # rollouts of it that had gone wrong already

    def look(self) -> Look:
        """Where it is now."""
        with self.call.store.reading() as tx:
            commit = tx.commits.get(AppName(self.app.name), self.sha)
            if commit is None:
                raise NotFound(f"commit {output.short(self.sha)} is gone from the store")
            rollout = self._rollout(tx, commit)
            if rollout is not None:
                settled = rollout.state in FINISHED or rollout.state is RolloutState.HALTED
                return Look(commit, rollout, views.rollouts(tx, [rollout])[0], "", over=settled)
            why, over = self._waits_for(tx, commit)
            return Look(commit, None, None, why, over)

    def to_its_end(self, timeout_s: float | None) -> Look:
        """Wait until it is out, or nothing more comes of it by itself; TimedOut."""
        with teller(as_json=self.call.json) as told:
            for _ in waiting.ticks(timeout_s):
                look = self.look()
                if look.over:
                    return look
                told.show(look.bars())
        if look.rollout is not None:
            raise following.late(look.rollout.id, timeout_s)
        raise TimedOut(
            f"commit {output.short(self.sha)} is not out after {timeout_s or 0:g} s: {look.why}",
            remedy="it goes on; look with: rollout status",
        )

    def _rollout(self, tx: Transaction, commit: Commit) -> Rollout | None:
        found = views.carrying(tx, commit.app, commit.sha)
        # One that was not begun is planned anew, or its commit says why not.
        return (
            None if found is None or found.id in self.before or found.state is RolloutState.ERROR else found
        )

    def _waits_for(self, tx: Transaction, commit: Commit) -> tuple[str, bool]:
        """Why there is no rollout of it, and whether none will come by itself."""
        if commit.is_built_again:
            return telling.where(commit), False
        if commit.state in WAITS:
            return WAITS[commit.state], False
        if commit.state is not CommitState.PASSED:
            return commit.reason or "", True
        if not commit.on_branch:
            return f"it is no longer on branch {self.app.branch}", True
        stuck = planning.stuck(self.app, tx)
        return stuck or explaining.why(tx, self.app, commit).in_full, stuck is not None


def _failed_before(call: Call, commit: Commit) -> frozenset[RolloutId]:
    with call.store.reading() as tx:
        past = tx.rollouts.finished(commit.app, views.RECENT)
    return frozenset(
        one.id for one in past if commit.sha in one.commits and one.state is not RolloutState.DONE
    )
