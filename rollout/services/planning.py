"""Which commit goes out next, and how: a pending rollout with its fleet and its limits frozen."""

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain import budget, plan, selection
from rollout.domain.model import FOREIGN, AppName, Commit, Member, Role, Rollout
from rollout.domain.pipeline import pipeline, sweep
from rollout.domain.states import CommitState, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.errors import ConfigError, Conflict, ReleaseError, RolloutError
from rollout.services import bars, editions, freezes, notices
from rollout.services.policies import asks, unreadable
from rollout.services.ports import Deps
from rollout.store.rollouts import Planned
from rollout.store.store import Transaction

log = structlog.get_logger()
UNDER_WAY = "a rollout is under way"
UNREAD = "the branch is read again first: commits of it that would go out are not known yet"
FIRST_COMMIT = "push one, or have the branch's head looked up now with `rollout deploy`"
FIRST_READING = "it is being read for the first time, which takes as long as a clone of the repository"
GONE = (
    "the commit that runs is no longer on the branch (a force-push), and automation does not guess what replaces it;"
    " a person may: `rollout deploy COMMIT --now --reason …`"
)
TAKES_ALONG = "whatever newer goes out brings this host along"
AUTOMATION = bars.AUTOMATION
CANNOT = (
    "no rollout can be planned: "  # so begins the app's note from when planning failed until it has succeeded
)
CANARY_CONFIRM, FAN_OUT_CONFIRM = "canary", "fan_out"  # stages of `fan_out.confirm`
_ASKED_IN = {RolloutState.DEPLOYING_CANARY: CANARY_CONFIRM, RolloutState.FANNING_OUT: FAN_OUT_CONFIRM}
BEFORE_THE_NEXT = frozenset({RolloutState.FANNING_OUT})  # has its PASS: the one after it is planned ahead


@dataclass(frozen=True, slots=True)
class Draft:
    """What a rollout would be: nothing of it is written."""

    commits: tuple[Commit, ...]  # oldest first, the shipped one last
    fleet: tuple[tuple[Member, Role], ...]  # in the order of activation
    limits: budget.Limits


@crashpoints.stage("plan")
def start_next(app_name: str, deps: Deps, *, may_wait: bool = False) -> Rollout | None:
    """Plan the app's next rollout if one is due, and ring its chain; or of the one that was planned ahead, when its time is there.

    None says why in the app's note. An inventory program may hang for a minute: without `may_wait` the sweep, which waits
    for each app apart, is rung for in its place, so that no task's slot is held from other apps. So it is by who goes by
    another rollout.toml than automation.
    """
    app = deps.config.apps.get(app_name)
    if app is None:  # taken out of rollout.toml, or its table is wrong; what is under way ends all the same
        return None
    with deps.store.reading() as tx:
        astray = editions.is_astray(tx, deps.config)
    if astray:
        deps.bell.ring([sweep()])
        return None
    return _plan_next(app, deps, may_wait=may_wait)


def _plan_next(app: AppConfig, deps: Deps, *, may_wait: bool) -> Rollout | None:
    with deps.store.reading() as tx:
        chosen, why = _next(tx, app)
        name = AppName(app.name)
        noted = _noted(tx, name)
        before = tx.rollouts.newest(name)
        active = tx.rollouts.active(name)
        waits = None if active else tx.rollouts.pending(name)
        reverted = active if active is not None and why_it_waits(tx, app, active) != active.reason else None
    if reverted is not None:
        _ask_again(app, reverted, deps)
    if waits is not None and waits.is_ahead:
        deps.bell.ring([pipeline(waits.id)])
    if chosen is None:
        # Every process asks every few seconds for every app: each writing would keep the others out.
        if why != noted:
            _note(app, why, deps)
        return None
    if app.fleet.inventory is not None and not may_wait:
        deps.bell.ring([sweep()])
        return None
    try:
        fleet = deps.fleet.members(app)  # an inventory may take its time, so outside the transaction
        with deps.store.transaction() as tx:
            tx.apps.lock(name)
            look_again(tx, name)
            chosen, why = _next(tx, app)
            if chosen is None or _was_taken_back(tx, chosen) or is_built_again(tx, chosen, deps):
                return None
            rollout = _add(tx, app, chosen, fleet, why)
            tx.fleet.take_stock(name, fleet)
            tx.apps.note(rollout.app, None)
            if not rollout.is_ahead:
                tx.rollouts.ring_again(rollout.id, deps.settings.ring_again_s)
            crashpoints.reach("in-decision")
    except Conflict:
        return None  # another worker was faster
    except (ConfigError, ReleaseError) as error:
        _fails(app, error, before, deps)
        return None
    deps.bell.ring([pipeline(rollout.id)])
    log.info(
        "rollout_planned",
        rollout=rollout.id,
        app=app.name,
        commit=rollout.commit,
        why=why,
        ahead=rollout.is_ahead,
    )
    return rollout


def is_built_again(tx: Transaction, chosen: Commit, deps: Deps) -> bool:
    """What waited long may have lost its archive: the reconciler rings for it, and whoever needs it goes on when it is built."""
    if deps.workshop.has_archive(chosen.app, chosen.sha):
        return False
    tx.commits.build_again(chosen, who=AUTOMATION, why="its archive had made room for those of newer commits")
    return True


def not_to_be_had(sha: str, commit: Commit | None) -> str:
    """Why nobody is brought to the release of a commit that has not passed, or not any more."""
    short, state = sha[:12], commit.state if commit else None
    if state in {CommitState.RECEIVED, CommitState.TESTING}:
        return f"commit {short} is built again: its archive had made room for those of newer commits"
    if commit is not None and state is CommitState.FAILED:
        then = f"`rollout deploy {short}` has it built again, and {TAKES_ALONG}"
        return f"commit {short} is failed: {commit.reason}; {then}"
    return f"commit {short} is {state or 'gone'}"


def lacks_archive(tx: Transaction, app: AppName, sha: str, deps: Deps) -> str:
    """What becomes of a release that a host lacks and whose archive is not there, or what a person does about it.

    Built again is only what the fleet runs, or goes back to by a person's word: that hosts have by its digest, so no other bytes come of it.
    """
    if sha == FOREIGN:
        return f"rollout has not brought it; put it there by hand, or {TAKES_ALONG}"
    commit, short = tx.commits.get(app, sha), sha[:12]
    if commit is None:
        return f"{not_to_be_had(sha, None)}; {TAKES_ALONG}"
    if not commit.is_built_again and not _is_the_fleets(tx, app, sha):
        return f"the archive of commit {short} has made room for those of newer commits; {TAKES_ALONG}"
    return _built_for_a_host(tx, commit, deps)


def tell_not_to_be_had(tx: Transaction, commit: Commit, why: str) -> None:
    """What the fleet runs, or goes back to, does not build again: hosts that lack it stay on what they have until a person acts."""
    goal = _is_the_fleets(tx, commit.app, commit.sha) or tx.rollouts.released(commit.app) == commit.sha
    if not (commit.is_built_again and goal):
        return
    short = commit.sha[:12]
    title = f"{commit.app}: hosts cannot be brought to commit {short}"
    step = f"rollout deploy {short} has it built again; or push a revert of what is wrong"
    body = f"The fleet runs it or goes back to it, its archive is gone, and it does not build again: {why}."
    tx.notices.add(commit.app, None, title, f"{body}\nNext: {step}")


def _is_the_fleets(tx: Transaction, app: AppName, sha: str) -> bool:
    runs, active = tx.rollouts.newest_done(app), tx.rollouts.active(app)
    return (runs is not None and runs.commit == sha) or (active is not None and active.rollback_to == sha)


def _built_for_a_host(tx: Transaction, commit: Commit, deps: Deps) -> str:
    """What becomes of the release that the fleet runs, or goes back to."""
    short = commit.sha[:12]
    if commit.state is CommitState.PASSED and not is_built_again(tx, commit, deps):
        return f"the archive of commit {short} was not there, and is now; it is tried again"
    why = not_to_be_had(commit.sha, tx.commits.get(commit.app, commit.sha))
    if commit.state is CommitState.BARRED:
        return f"{why}; `rollout unbar {short} --reason …` has it built again, or {TAKES_ALONG}"
    return why


def no_commit(app: AppConfig) -> str:
    """That there is nothing at all yet."""
    return f"nothing was released yet, and no commit of branch {app.branch} is known"


def waits_for(app: AppConfig, tx: Transaction) -> str:
    """Why nothing is being started, in one sentence for people."""
    if _busy(tx, app):
        return gone_then(tx, app) or UNDER_WAY
    chosen, why = _choose(tx, app)
    return why if chosen is None else hindered(tx, chosen.app) or why


def stuck(app: AppConfig, tx: Transaction) -> str | None:
    """Why nothing will start until a person acts or somebody pushes; None while something is under way or about to be."""
    if _busy(tx, app) or _are_tested(tx, app):
        return None
    if freezes.over_at(tx, app) is not None:
        return None
    chosen, why = _choose(tx, app)
    return why if chosen is None else None


def _are_tested(tx: Transaction, app: AppConfig) -> bool:
    """Whether tests are to come to an end; not of one on which CI servers say no more, and nobody waits for."""
    found = untested(tx, AppName(app.name))
    if not found or not app.tests.external:
        return bool(found)
    seen = bars.tested(tx, app, waiting(tx, AppName(app.name)))
    return bool({commit.sha for commit in found} - {one.sha for one in seen if one.silent})


def hindered(tx: Transaction, app: AppName) -> str | None:
    """Why planning failed when it was tried last: the inventory cannot be read, no host is left. A person mends that."""
    noted = tx.apps.noted(app) or ""
    return noted.partition("\n")[0] if noted.startswith(CANNOT) else None


def look_again(tx: Transaction, app: AppName) -> None:
    """As `bars.look_again`, at what waits: what is on its way to hosts is stopped by people or by what is seen of it.

    Before the first release all that is older goes out with the branch's head.
    """
    base = _base(tx, app)
    bars.look_again(tx, app, tx.commits.after(app, 0) if base is None else _behind(tx, app, base))


def released(tx: Transaction, app: AppName) -> Commit | None:
    """The commit that the fleet runs; None before the first one."""
    sha = tx.rollouts.released(app)
    return tx.commits.get(app, sha) if sha else None


def waiting(tx: Transaction, app: AppName) -> list[Commit]:
    """The branch behind the last done release, oldest first; the head alone when there is none."""
    return _behind(tx, app, released(tx, app))


def untested(tx: Transaction, app: AppName) -> list[Commit]:
    """Received or in test, oldest first; without those that are out, taken along by a later one: nothing waits for them.

    What is built again is waited for wherever it is: by what goes out, or by a host that lacks it.
    """
    runs = released(tx, app)
    return [
        commit
        for commit in tx.commits.unfinished(app)
        if runs is None or commit.is_built_again or not is_out(commit, runs)
    ]


def is_out(commit: Commit, runs: Commit) -> bool:
    """Whether it is on the branch at or below what runs."""
    if commit.position is None or not (runs.on_branch and commit.on_branch):
        return False
    return commit.position <= _position(runs)


def unread(tx: Transaction, app: AppName) -> bool:
    """Whether git is to be asked before anything is planned.

    A webhook told of a head, which may have taken away what was to go out (what git said within `LOOK_S` counts: it is not
    asked more often). Or something else ran when the branch was read last: a commit above what runs now has no row, and
    would ship unseen; or what runs is inside a merge, and not on the line.
    """
    base = _base(tx, app)
    return _unread(tx, app, base, _behind(tx, app, base))


def _unread(
    tx: Transaction, app: AppName, base: Commit | None, queue: list[Commit], *, wanted: bool = False
) -> bool:
    """`wanted`: for what a person wants out, which waits for no git server that does not answer."""
    told = tx.apps.unread(app, lately=True) and not (wanted and tx.apps.poll_failures(app, silent=True))
    return told or _is_inside(tx, base) or _has_gaps(base, queue)


def floor(tx: Transaction, app: AppName) -> int | None:
    """Above this position each commit of the branch needs its row: above what runs, and what is on its way; None before that."""
    return min((one.position for one in running(tx, app) if one.position is not None), default=None)


def running(tx: Transaction, app: AppName) -> list[Commit]:
    """What is on its way to the fleet, and what the fleet runs."""
    return [commit for commit in (_base(tx, app), released(tx, app)) if commit is not None]


def _has_gaps(base: Commit | None, queue: list[Commit]) -> bool:
    return base is not None and bool(queue) and _position(queue[-1]) - _position(base) != len(queue)


def under_way(tx: Transaction, app: AppName) -> Rollout | None:
    """The app's rollout that is active, or planned and about to begin."""
    return tx.rollouts.active(app) or tx.rollouts.pending(app)


def planned_ahead(tx: Transaction, app: AppConfig) -> Rollout | None:
    """The rollout that begins when the app's active one is done."""
    found = tx.rollouts.pending(AppName(app.name))
    if found is None or not found.is_ahead or tx.rollouts.active(found.app) is None:
        return None
    return None if is_of_before(found, app) else found


def is_of_before(rollout: Rollout, app: AppConfig) -> bool:
    """It is planned ahead by another rollout.toml, and so planned anew when its time is there: until then who has not read that goes on with it."""
    return rollout.is_ahead and dict(rollout.policy) != app.policy()


def ahead(tx: Transaction, app: AppConfig) -> list[Commit]:
    """The branch behind all that is on its way out or planned, oldest first: what will wait when that is done. Else as `waiting`."""
    name, sha = AppName(app.name), runs_then(tx, app)
    return _behind(tx, name, tx.commits.get(name, sha) if sha else None)


def runs_then(tx: Transaction, app: AppConfig) -> str | None:
    """What the fleet runs when all that is on its way out or planned is out: what the next rollout follows."""
    name = AppName(app.name)
    rollout = under_way(tx, name)
    if rollout is None or rollout.state in {RolloutState.STOPPING, RolloutState.ROLLING_BACK}:
        return tx.rollouts.released(name)
    return (planned_ahead(tx, app) or rollout).commit


def gone_then(tx: Transaction, app: AppConfig) -> str | None:
    """That nothing follows by itself what is on its way, since that has left the branch."""
    sha = runs_then(tx, app)
    commit = tx.commits.get(AppName(app.name), sha) if sha else None
    return GONE if commit is not None and _is_gone(commit) and not _is_inside(tx, commit) else None


def outdated(tx: Transaction, app: AppConfig | None, rollout: Rollout) -> str | None:  # noqa: PLR0911  # one reason a line
    """Why nothing is to come of a rollout that has not begun; None: it may begin, or go on waiting for the active one.

    `app` is None when it was taken out of rollout.toml meanwhile.
    """
    commit, active = tx.commits.get(rollout.app, rollout.commit), tx.rollouts.active(rollout.app)
    if commit is None or commit.state is not CommitState.PASSED:
        return f"commit {rollout.commit[:12]} is {commit.state if commit else 'gone'} since it was planned"
    if active is not None and active.state not in BEFORE_THE_NEXT:
        return f"rollout {active.id}, which it was to follow, is {active.state}; it is planned anew"
    if rollout.requested_by != AUTOMATION:
        return None
    if left := _has_left(tx, commit):
        return left
    if app is None:
        return f"app {rollout.app} is not in rollout.toml any more"
    if frozen := freezes.frozen(tx, app):  # also while it waits: then nothing is prepared for it either
        return f"{frozen}: nothing was touched, and it is planned anew afterwards"
    if unread := unreadable(rollout):
        return f"{unread}; it is planned anew"
    if kept := bars.keeps_from_beginning(tx, rollout):
        return kept
    if rollout.is_ahead:
        return _not_as_now(tx, app, rollout) if active is None else _not_before_a_wish(tx, rollout)
    return None


def waits_for_the_branch(tx: Transaction, rollout: Rollout) -> bool:
    """A head of which a webhook told may have forced it off the branch, or undo it: it begins after one reading, however many come then."""
    return rollout.requested_by == AUTOMATION and tx.apps.unread(rollout.app, since_s=rollout.began_s)


def _not_as_now(tx: Transaction, app: AppConfig, rollout: Rollout) -> str | None:
    """Ahead of time nothing is decided, only made ready: what begins is what would be planned now."""
    if rollout.previous != tx.rollouts.released(rollout.app):
        return f"it was to follow {(rollout.previous or 'nothing')[:12]}, which is not what runs; it is planned anew"
    if is_of_before(rollout, app):
        return "rollout.toml has changed since it was planned; it is planned anew"
    chosen, why = _choose(tx, app)
    if chosen is None:
        return f"{why}; it is planned anew"
    if chosen.now_by is not None or [commit.sha for commit in _taken(tx, chosen)] != list(rollout.commits):
        return _in_its_place(chosen, why)
    return None


def _not_before_a_wish(tx: Transaction, rollout: Rollout) -> str | None:
    """A person's wish has passed, and goes out next: nothing more is prepared, nor promised, that would come before it."""
    wanted = _wanted(tx, rollout.app)
    return None if wanted is None else _in_its_place(wanted, f"{wanted.now_by}: {wanted.now_reason}")


def _in_its_place(chosen: Commit, why: str) -> str:
    return f"{chosen.sha[:12]} goes out in its place: {why}"


def _has_left(tx: Transaction, commit: Commit | None) -> str | None:
    """That a force-push has taken it off the branch."""
    if commit is None or tx.commits.on_line(commit).on_branch:
        return None
    return f"commit {commit.sha[:12]} is no longer on the branch"


def set_aside(tx: Transaction, rollout: Rollout, why: str, *, who: str) -> Rollout:
    """Nothing comes of a rollout that has not begun; what is being prepared for it is cut."""
    given_up = tx.rollouts.change(rollout, RolloutEvent.GIVE_UP, who=who, why=why, reason=why, due_at=None)
    for host in tx.hosts.of(rollout.id, HostState.PREPARING):
        tx.hosts.change(host, HostEvent.PUT_OFF, who=who, why=why)
    log.info("rollout_set_aside", rollout=rollout.id, app=rollout.app, why=why)
    return given_up


def waits_before(rollout: Rollout) -> str | None:
    """The stage for which a rollout waits for a person's yes, which may take a night; None: for none."""
    if rollout.state is not RolloutState.HALTED or rollout.halted_stage is None:
        return None
    stage = _ASKED_IN.get(rollout.halted_stage)
    return stage if stage in asks(rollout) - set(rollout.confirmed) else None


def waits_for_yes(stage: str) -> str:
    """What is said of one that does."""
    return f"waits for your yes before {stage.replace('_', '-')}"


def may_get_no_yes(rollout: Rollout) -> bool:
    """It waits for a person's, and no person has asked for it."""
    return waits_before(rollout) is not None and rollout.requested_by == AUTOMATION


def undone_before_yes(tx: Transaction, app: AppConfig | None, rollout: Rollout) -> str | None:
    """Why a rollout that waits for a person's yes gets none: a force-push, a bar, a revert, or, before any host has it, a freeze.

    Not of one that a person asked for.
    """
    if not may_get_no_yes(rollout):
        return None
    left = _has_left(tx, tx.commits.get(rollout.app, rollout.commit))
    return left or bars.keeps_from_beginning(tx, rollout) or _frozen_before_canary(tx, app, rollout)


def _frozen_before_canary(tx: Transaction, app: AppConfig | None, rollout: Rollout) -> str | None:
    """It touched nothing, and begins in a freeze as little as what is only planned."""
    frozen = freezes.frozen(tx, app) if app is not None and waits_before(rollout) == CANARY_CONFIRM else None
    return frozen and f"{frozen} (past that: rollout deploy {rollout.commit[:12]} --now --reason …)"


def in_place_of_yes(rollout: Rollout) -> str:
    """What leads on from there."""
    if waits_before(rollout) == FAN_OUT_CONFIRM:
        return f"rollout stop {rollout.id} takes it back from its canary; what goes out then is planned anew"
    return "it is set aside in a moment, and planned anew: rollout status"


def why_it_waits(tx: Transaction, app: AppConfig | None, rollout: Rollout) -> str | None:
    """What is to be said by now of one that waits for a yes; of any other the reason that it has."""
    stage, undone = waits_before(rollout), undone_before_yes(tx, app, rollout)
    if stage is None:
        return rollout.reason
    words = waits_for_yes(stage)
    return f"{words}, but {undone}: {in_place_of_yes(rollout)}" if undone else words


def _ask_again(app: AppConfig, rollout: Rollout, deps: Deps) -> None:
    """Who was asked for a yes is told why that is not to be. What no host has is set aside, and planned anew; what the canary runs a person takes back."""
    with deps.store.transaction() as tx:
        locked = tx.rollouts.lock(rollout.id)
        tx.apps.lock(locked.app)
        if _needs_no_yes(tx, app, locked, who=deps.worker):
            return
        undone, why = undone_before_yes(tx, app, locked), why_it_waits(tx, app, locked)
        if why != locked.reason:
            tx.rollouts.update(locked, reason=why)
            if undone:
                notices.add(tx, locked, "is not to get your yes", undone, in_place_of_yes(locked))


def _needs_no_yes(tx: Transaction, app: AppConfig, rollout: Rollout, *, who: str) -> bool:
    """Set aside what gets no yes, if no host has it; whether it was."""
    undone = undone_before_yes(tx, app, rollout)
    if undone is None or waits_before(rollout) != CANARY_CONFIRM:
        return False
    aside = set_aside(tx, rollout, undone, who=who)
    notices.add(tx, aside, "needs no yes any more", f"{undone}; it is planned anew", "rollout status")
    return True


def grant(tx: Transaction, rollout: Rollout) -> None:
    """It begins: nobody waits any more for one of those that it brings to go before the queue.

    A wish that is left would bring that one again after this is taken back, past a freeze, or backwards after a force-push.
    """
    shipped = tx.commits.get(rollout.app, rollout.commit)
    for wished in tx.commits.wanted_now(rollout.app):
        if wished.sha in rollout.commits or (shipped is not None and bars.is_inside(tx, wished, shipped)):
            tx.commits.wish_now(wished, None, None)


def above_wishes(tx: Transaction, app: AppName) -> set[str]:
    """What the branch has above the commits that people want out before the queue: whoever said so, said it in spite of that."""
    places = [_position(wished) for wished in tx.commits.wanted_now(app)]
    return {sha for _, sha in tx.commits.line(app, min(places))} if places else set()


def end_wishes(tx: Transaction, app: AppName, before: Collection[str]) -> None:
    """The branch was read: what has been pushed since is a later word than a `deploy --now`. `before`: as `above_wishes` told then.

    A revert keeps in what it undoes, as a bar does. And what was forced off the branch, and is back weeks later, is not
    wanted past the freeze of then.
    """
    for wished in tx.commits.wanted_now(app):
        if not wished.on_branch:
            said, first = "a force-push has taken it off the branch", "push it again, then "
            bars.end_wish(tx, wished, who="git", said=said, first=first)
        elif undone := bars.undone_since(tx, _taken(tx, wished), before):
            bars.end_wish(tx, wished, who="git", said=f"pushed since: {undone}")


def make_way(tx: Transaction, app: AppConfig, why: str, *, who: str) -> None:
    """What was planned ahead, or waits for a reading of the branch, and nobody asked for, is not in the way of what a person says.

    Nor is what gets no yes before its canary.
    """
    name = AppName(app.name)
    pending, active = tx.rollouts.pending(name), tx.rollouts.active(name)
    if pending is not None:
        locked = tx.rollouts.lock(pending.id)
        waits = locked.state is RolloutState.PENDING and waits_for_the_branch(tx, locked)
        if locked.is_ahead or waits:
            set_aside(tx, locked, why, who=who)
    if active is not None and waits_before(active) == CANARY_CONFIRM:
        _needs_no_yes(tx, app, tx.rollouts.lock(active.id), who=who)


def _noted(tx: Transaction, app: AppName) -> str | None:
    """Why nothing was chosen when somebody looked last."""
    noted, trouble = tx.apps.noted(app), hindered(tx, app)
    return noted if trouble is None or noted is None else noted.removeprefix(trouble).removeprefix("\n")


def _note(app: AppConfig, why: str, deps: Deps) -> None:
    name = AppName(app.name)
    with deps.store.transaction() as tx:
        # Kept below why planning failed: between two tries it waits for a reading or for tests, and nothing is mended by that.
        trouble = hindered(tx, name)
        news = tx.apps.note(name, why if trouble is None else f"{trouble}\n{why}")
        if why == UNREAD:
            tx.apps.look([name])
    if news:
        log.info("nothing_started", app=app.name, why=why)


def _fails(app: AppConfig, error: RolloutError, before: Rollout | None, deps: Deps) -> None:
    """Something is to go out, and nothing can be planned: people are told once, until a rollout has been planned.

    `before`: the newest one when this try began. An inventory may take its time, and is no news when another worker has planned meanwhile.
    """
    name, why = AppName(app.name), CANNOT + "; ".join(str(error).splitlines())
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        newest = tx.rollouts.newest(name)
        if newest is not None and (before is None or newest.id != before.id):
            return
        is_first, news = hindered(tx, name) is None, tx.apps.note(name, why)
        if is_first:
            tx.record(name, "automation", "planning fails", who=AUTOMATION, why=why)
            body = f"{why}.\nNothing goes out until somebody mends it; it is tried again all the time."
            step = error.remedy or "rollout plan says whether it works"
            tx.notices.add(name, None, f"{app.name}: no rollout can be planned", f"{body}\nNext: {step}")
    if news:
        log.warning("planning_failed", app=app.name, why=why)


def _busy(tx: Transaction, app: AppConfig) -> bool:
    return under_way(tx, AppName(app.name)) is not None


def _next(tx: Transaction, app: AppConfig) -> tuple[Commit | None, str]:
    """What is to be planned now, were it ahead of its time."""
    name = AppName(app.name)
    active = tx.rollouts.active(name)
    if tx.rollouts.pending(name) is not None or (active and active.state not in BEFORE_THE_NEXT):
        return None, UNDER_WAY
    chosen, why = _choose(tx, app)
    if active is None:
        return chosen, why
    # A person's wish is planned when it can begin, with its reason, and past a freeze; and which suspect goes out
    # depends on what becomes of the one before it.
    not_yet = chosen is None or chosen.now_by is not None or any(one.suspect for one in _taken(tx, chosen))
    return (None, UNDER_WAY) if not_yet else (chosen, why)


def _was_taken_back(tx: Transaction, chosen: Commit) -> bool:
    return chosen.now_by is None and bars.was_taken_back(tx, _taken(tx, chosen))


def _base(tx: Transaction, app: AppName) -> Commit | None:
    """What the fleet runs when the next rollout begins; None before the first one."""
    active = tx.rollouts.active(app)
    return released(tx, app) if active is None else tx.commits.get(app, active.commit)


def _behind(tx: Transaction, app: AppName, base: Commit | None) -> list[Commit]:
    if base is None:
        newest = tx.commits.newest(app)
        return [newest] if newest else []
    return [] if _is_gone(base) else tx.commits.after(app, _position(base))


def _taken(tx: Transaction, chosen: Commit) -> list[Commit]:
    """What goes out with it, oldest first, itself the last."""
    queue = _behind(tx, chosen.app, _base(tx, chosen.app))
    return [commit for commit in queue if _position(commit) <= _position(chosen)] or [chosen]


def _choose(tx: Transaction, app: AppConfig) -> tuple[Commit | None, str]:
    name = AppName(app.name)
    base = _base(tx, name)
    queue, gone = _behind(tx, name, base), base is not None and _is_gone(base)
    first = base is None and not queue and tx.apps.first_read(name)
    wanted = _wanted(tx, name)
    if _unread(tx, name, base, queue, wanted=wanted is not None):
        return None, f"{no_commit(app)}: {FIRST_READING}" if first else UNREAD
    frozen = freezes.frozen(tx, app)
    if wanted is not None:
        past = f"{freezes.HOTFIX}{frozen}; " if frozen else ""
        return wanted, f"{past}{wanted.now_by}: {wanted.now_reason}"
    if frozen is not None:  # who waits for its end is told at once what comes of it
        return None, f"{frozen}; {GONE}" if gone else frozen
    if gone:
        return None, GONE
    if base is None and not queue:
        return None, f"{no_commit(app)}: {FIRST_READING if first else FIRST_COMMIT}"
    candidates = bars.candidates(tx, app, queue)
    choice = selection.choose(candidates, tx.rollouts.durations(name), app.queue.goal, app.queue.most)
    return (None if choice.position is None else queue[choice.position - 1]), choice.reason


def _wanted(tx: Transaction, app: AppName) -> Commit | None:
    """What a person wants out before the queue, the newest wish first, and has passed: it goes out next."""
    wishes = [one for one in tx.commits.wanted_now(app) if one.state is CommitState.PASSED]
    if not wishes:
        return None  # as nearly always, and whoever waits asks every second
    base = _base(tx, app)
    gone, behind = base is not None and _is_gone(base), {one.id for one in _behind(tx, app, base)}
    return next((one for one in wishes if (one.on_branch if gone else one.id in behind)), None)


def _is_inside(tx: Transaction, base: Commit | None) -> bool:
    """What runs had left the branch, and was merged into it since: the line will go through it."""
    return base is not None and not base.on_branch and tx.commits.on_line(base).on_branch


def _is_gone(base: Commit) -> bool:
    """What runs has left the branch: only a person says what comes next."""
    return base.position is None or not base.on_branch


def draft(tx: Transaction, app: AppConfig, commits: list[Commit], fleet: list[Member]) -> Draft:
    """The rollout of these commits on this fleet, were it planned now. Reads only."""
    excluded = {host.name for host in tx.fleet.hosts(AppName(app.name)) if host.excluded is not None}
    members = {member.name: member for member in fleet if member.name not in excluded}
    names = list(members)
    total = len(names)
    wanted = app.canary.hosts
    if not isinstance(wanted, int):
        wanted = tuple(name for name in wanted if name not in excluded) or 1
    canary = plan.canary_hosts(names, wanted)
    places = plan.order(names, canary, app.canary.baseline)
    limits = budget.Limits(
        max_failed=plan.k_of(app.fan_out.max_failed.of(total), total),
        concurrency=max(1, min(app.fan_out.at_once(total), total)),
        mode=budget.Mode(app.fan_out.mode),
    )
    return Draft(tuple(commits), tuple((members[place.name], place.role) for place in places), limits)


def _add(tx: Transaction, app: AppConfig, chosen: Commit, fleet: list[Member], why: str) -> Rollout:
    release = tx.commits.release(chosen.app, chosen.sha)
    if release is None:
        raise ReleaseError(
            f"commit {chosen.sha} passed, and its release is gone", remedy="test it again: rollout deploy"
        )
    active = tx.rollouts.active(chosen.app)
    drafted = draft(tx, app, _taken(tx, chosen), fleet)
    tx.commits.wish_now(chosen, None, None)  # granted: were it stopped, the same would go out again
    return tx.rollouts.add(
        Planned(
            app=chosen.app,
            commit=chosen.sha,
            commits=[commit.sha for commit in drafted.commits],
            previous=tx.rollouts.released(chosen.app) if active is None else active.commit,
            digest=release.digest,
            requested_by=chosen.now_by or AUTOMATION,
            policy=app.policy(),
            max_failed=drafted.limits.max_failed,
            mode=drafted.limits.mode,
            concurrency=drafted.limits.concurrency,
            worst_case=budget.worst_case(drafted.limits, len(drafted.fleet)),
            fleet=drafted.fleet,
            ahead=active is not None,
        ),
        why=why,
    )


def _position(commit: Commit) -> int:
    return commit.position or 0
