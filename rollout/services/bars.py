"""Keeping a commit out: by hand, and after every stop, rollback and failed canary."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf

from rollout.config.deploy_file import AppConfig
from rollout.domain import selection
from rollout.domain.model import AppName, Commit, Rollout, RolloutId
from rollout.domain.states import STAGES, CommitEvent, CommitState, RolloutState
from rollout.errors import Conflict, NotFound
from rollout.services import deliveries, silence
from rollout.services.ports import Deps
from rollout.store.store import Transaction

R = RolloutState
ALSO = "; and: "  # between the reasons of a bar
MOST_REASONS = 5
MOST_NAMES = 5  # of commits in one reason
WENT_WRONG = frozenset({R.STOPPING, R.STOPPED, R.ROLLING_BACK, R.ROLLED_BACK, R.ERROR})
ON_ITS_WAY = STAGES | {R.HALTED}
AUTOMATION = "automation"  # who asks for a rollout that no person asked for


def candidate(commit: Commit, tx: Transaction) -> selection.Candidate:
    """A commit as selection sees it."""
    commit = _with_hashes(tx, commit)
    undone = _undone_by(tx, commit)
    brought = set(commit.mends.split())
    perhaps = {one[1:] for one in brought if one.startswith(selection.PERHAPS)} - brought
    reverts = selection.mended(commit.message) | (undone - perhaps)
    return selection.Candidate(
        sha=commit.sha,
        state=CommitState.PASSED if _has_passed(commit) else commit.state,
        built=commit.is_built_again,
        barred=commit.is_barred,
        age_s=age_s(commit, tx),
        suspect=commit.suspect,
        reverts=reverts,
        undoes=undone,
        same_as=commit.same_as,
        took_along=_took_along(tx, commit, reverts),
        author=commit.author,
        silent_from_s=0.0 if commit.is_late else inf,
    )


def _took_along(tx: Transaction, commit: Commit, reverts: Collection[str]) -> frozenset[str]:
    """Of one that is barred for failed rollouts and for nothing else: what each of these took along that may have been bad in its place.

    That is what has no passed test, or was barred itself, and this one does not mend. Of one that is barred for being the same
    as another: what that one took along.
    """
    shipped = commit if commit.same_as is None else tx.commits.get(commit.app, commit.same_as)
    if shipped is None or shipped.state is not CommitState.BARRED:
        return frozenset()
    its = reasons(shipped.reason)
    stopped = [one for one in tx.rollouts.of_commit(shipped.app, shipped.sha) if one.stop_epoch is not None]
    cited = [one for one in stopped if any(why.endswith(_show(one.id)) for why in its)]
    if not cited or not all(why.endswith(tuple(_show(one.id) for one in cited)) for why in its):
        return frozenset()
    shared = frozenset(cited[0].commits).intersection(*(one.commits for one in cited)) - {shipped.sha}
    rows = (tx.commits.get(commit.app, sha) for sha in shared if not _are_in(sha, reverts))
    return frozenset(one.sha for one in rows if one is not None and (one.is_barred or not _has_passed(one)))


def _has_passed(commit: Commit) -> bool:
    """Its tests say that it is good; it may lack its archive meanwhile."""
    return commit.state is CommitState.PASSED or commit.is_built_again


def _show(rollout: RolloutId) -> str:
    """How the reason ends for which automation bars what went wrong with a rollout."""
    return f"(rollout show {rollout})"


def age_s(commit: Commit, tx: Transaction) -> float:
    """Since it was received, by now: by the store's clock, which a step of this machine's does not move."""
    if commit.received_s is not None:
        return max(0.0, tx.now() - commit.received_s)
    return max(0.0, (tx.today() - commit.received_at).total_seconds())


def candidates(tx: Transaction, app: AppConfig, queue: Sequence[Commit]) -> list[selection.Candidate]:
    """A queue as selection sees it; where CI servers decide, with who waits for runs that were cancelled, or for none."""
    name = AppName(app.name)
    found = _with_below(tx, name, _with_inner(tx, name, [candidate(commit, tx) for commit in queue]))
    if found and tx.rollouts.released(name) is None:
        found[0] = _with_older(tx, queue[0], found[0])
    return _heard(tx, app, queue, found)


def tested(tx: Transaction, app: AppConfig, queue: Sequence[Commit]) -> list[selection.Candidate]:
    """As `candidates`, by what is said of their tests only."""
    return _heard(tx, app, queue, [candidate(commit, tx) for commit in queue])


def _heard(
    tx: Transaction, app: AppConfig, queue: Sequence[Commit], seen: list[selection.Candidate]
) -> list[selection.Candidate]:
    if not app.tests.external:
        return seen
    from_s = silence.silent_from_s(tx, app, queue)
    return [
        replace(one, silent_from_s=min(one.silent_from_s, its)) for one, its in zip(seen, from_s, strict=True)
    ]


def _with_inner(tx: Transaction, app: AppName, seen: list[selection.Candidate]) -> list[selection.Candidate]:
    """With those of the commits inside merges that keep something from shipping."""
    undone = frozenset[str]().union(*(one.reverts for one in seen))
    inner = tx.bars.in_the_way(app, [one.sha for one in seen], undone)
    return [replace(one, inner=tuple(inner.get(one.sha, ()))) for one in seen]


def _with_older(tx: Transaction, oldest: Commit, seen: selection.Candidate) -> selection.Candidate:
    """Before the first release all that is older goes out with the branch's head, as if it had come in with it: what is barred too."""
    line = [one for one in tx.commits.after(oldest.app, 0) if is_in(one, oldest)]
    kept = selection.kept_back(_with_inner(tx, oldest.app, [candidate(commit, tx) for commit in line]))
    return replace(seen, inner=(*seen.inner, *((sha, True) for sha in kept)))


def after_failure(tx: Transaction, rollout: Rollout, *, who: str, why: str, seen: bool = True) -> None:
    """Automation takes it back: its commit is barred; of a batch, each that could have gone alone is suspect instead.

    Nobody is barred when it brought what was barred already (`deploy --now` goes past a bar): the others are suspect, and wait
    for its fix, as before. What is barred when it was on its way already explains nothing.
    `seen`: on hosts, now, which refutes whatever a person said of one of them before, and what he wanted out on top of it.
    """
    batch = _batch(tx, rollout)
    if not batch:
        return
    failed = _with_mended(
        tx, rollout.app, _with_inner(tx, rollout.app, [candidate(one, tx) for one in batch])
    )
    past = [sha for sha in selection.explained(failed) if tx.events.was_barred(rollout.id, f"commit {sha}")]
    guilty = set() if past else set(selection.culprits(failed))
    if past:
        said = f"nobody else is barred: {past[0][:12]}, which it brought, was barred before"
        tx.record(rollout.app, f"rollout {rollout.id}", "explained", who=who, why=said, rollout=rollout.id)
    elif guilty:
        found = [commit for commit in batch if commit.sha in guilty]
        its = f"{_first_sentence(why)}{_or(selection.rode_along(failed))} {_show(rollout.id)}"
        _found(tx, found, who=who, why=its, seen=seen)
        return
    suspects = selection.suspects(failed, past)
    if seen:
        _withdraw_what_brings(tx, rollout, past or suspects, who=who, why=why)
    for commit in (one for one in batch if one.sha in suspects):
        unbarred = commit.unbarred and not seen
        tx.bars.suspect(commit, rollout.id, unbarred=unbarred)
        if seen:
            tx.bars.refute(commit)
        tx.record(rollout.app, f"commit {commit.sha}", "suspect", who=who, why=why)


def _withdraw_what_brings(
    tx: Transaction, rollout: Rollout, shas: Iterable[str], *, who: str, why: str
) -> None:
    """Nobody is barred, and each of these may be what was wrong: it is not brought again by a word of before."""
    its = f"{_first_sentence(why)} {_show(rollout.id)}"
    for commit in (tx.commits.get(rollout.app, sha) for sha in shas):
        if commit is not None:
            withdraw_wishes(tx, commit, who=who, why=its)


def taken_back(tx: Transaction, rollout: Rollout, *, who: str, why: str) -> None:
    """A person takes it back: all that it carried is barred, and no `deploy --now` of before takes one of them along.

    Not suspect: no canary has told that they are bad, so none would tell which of them is.
    """
    for commit in _batch(tx, rollout):
        take_back_with(tx, commit, who=who, why=why)


def take_back_with(tx: Transaction, commit: Commit, *, who: str, why: str) -> None:
    """One of what a person takes back, for whoever holds the app's row."""
    tx.bars.refute(commit)
    bar_as_last_word(tx, commit, who=who, why=why)


def _or(others: Sequence[str]) -> str:
    """That they may be what was wrong: no canary tells them from who is barred."""
    if not others:
        return ""
    names = ", ".join(sha[:12] for sha in others[:MOST_NAMES]) + ", …" * (len(others) > MOST_NAMES)
    return f", or what it took along without a passed test did: {names}"


def _first_sentence(why: str) -> str:
    return re.split(r"\.(?= [A-Z]|$)", why, maxsplit=1)[0]


def _batch(tx: Transaction, rollout: Rollout) -> list[Commit]:
    """Its commits, and their rows are held."""
    tx.apps.lock(rollout.app)  # before its commits, as everywhere
    return [commit for sha in rollout.commits if (commit := tx.commits.lock(rollout.app, sha)) is not None]


def _found(tx: Transaction, culprits: Sequence[Commit], *, who: str, why: str, seen: bool = True) -> None:
    """What comes after them waits for their fix only."""
    explained = {(one.app, batch) for one in culprits for batch in _went_wrong_with(tx, one)}
    for culprit in culprits:
        if seen:
            tx.bars.refute(culprit)
            bar_as_last_word(tx, culprit, who=who, why=why)
        else:
            bar_locked(tx, culprit, who=who, why=why)
    guilty = [culprit.id for culprit in culprits]
    for app, batch in explained:
        tx.bars.clear_suspects(app, batch, guilty=guilty)


def _went_wrong_with(tx: Transaction, commit: Commit) -> list[RolloutId]:
    """The rollouts of which somebody is suspect still, and it may be what was wrong with them, or was barred when they went past it."""
    return [
        batch
        for batch in tx.bars.suspected_of(commit.app)
        if (commit.suspect and commit.suspect_of == batch) or commit.sha in tx.rollouts.get(batch).commits
    ]


def after_success(tx: Transaction, rollout: Rollout, *, who: str) -> None:
    """One of a batch is out and well: the only suspect of it that is left is the culprit, and costs no canary of its own."""
    tx.apps.lock(rollout.app)
    shipped = tx.commits.get(rollout.app, rollout.commit)
    if shipped is None:
        return
    commit = last_left(tx, shipped)
    if commit is None:
        return
    why = (
        f"its batch went wrong, and all others of it are out and well, the last one with rollout {rollout.id}"
        f"{_or_with_it(tx, commit, shipped)}"
    )
    _found(tx, [commit], who=who, why=why)
    tx.notices.add(
        rollout.app,
        rollout.id,
        f"{rollout.app}: commit {commit.sha[:12]} is barred",
        f"{commit.subject}, by {commit.author}: {why}.\nNext: revert it and push, or rollout unbar {commit.sha[:12]} --reason …",
    )


def _or_with_it(tx: Transaction, culprit: Commit, shipped: Commit) -> str:
    """That it may have been what its batch took along without a passed test, and is not out."""
    batch = tx.rollouts.get(culprit.suspect_of) if culprit.suspect_of is not None else None
    if batch is None:
        return ""
    commits = _commits(tx, batch)
    out = {one.sha for one in commits if is_in(tx.commits.on_line(one), shipped)}
    left = [sha for sha in selection.rode_along([candidate(one, tx) for one in commits]) if sha not in out]
    return f"{_or(left)} {_show(batch.id)}" if left else ""


def last_left(tx: Transaction, shipped: Commit) -> Commit | None:
    """Which one of its batch is the culprit when this one of it is out and well; None while nothing follows."""
    for batch in _went_wrong_with(tx, shipped):
        suspects = tx.bars.suspects(shipped.app, batch)
        left = [one for one in suspects if not is_in(tx.commits.on_line(one), shipped)]
        culprit = selection.last_suspect([candidate(commit, tx) for commit in left])
        if culprit is not None and not _was_spoken_of(tx, shipped, batch):
            return next(one for one in left if one.sha == culprit)
    return None


def _was_spoken_of(tx: Transaction, shipped: Commit, batch: RolloutId) -> bool:
    """One of the batch was let go, or is kept in for a reason of somebody's: whether that was the culprit nobody knows."""
    return any(
        (one.unbarred and one.suspect_of == batch)
        or (one.is_barred and not is_in(tx.commits.on_line(one), shipped))
        for one in tx.bars.of_batch(shipped.app, batch)
    )


def brought(tx: Transaction, rollout: Rollout) -> list[str]:
    """What it brings, or would, and is barred by now: commits of its own, and what came in with them."""
    seen = [candidate(commit, tx) for commit in _commits(tx, rollout)]
    return list(dict.fromkeys(selection.brought(_with_inner(tx, rollout.app, seen))))


def keeps_from_beginning(tx: Transaction, rollout: Rollout) -> str | None:
    """What has been barred since it was planned: in it, or while it is pending in what it follows, and nothing in it mends that.

    Also what was reverted meanwhile: it goes out together with its revert, or not at all.
    """
    batch = _commits(tx, rollout)
    seen = _with_inner(tx, rollout.app, [candidate(commit, tx) for commit in batch])
    if rollout.state is R.PENDING:  # what has begun is itself what others would follow
        seen = _with_below(tx, rollout.app, seen)
    kept = selection.brought(seen)
    if not kept:
        return undone_since(tx, batch)
    way = "follow" if kept[0] in dict(seen[0].below) else "bring"
    return f"commit {kept[0][:12]}, which it would {way}, is barred since it was planned"


def undone_since(tx: Transaction, batch: Sequence[Commit], before: Collection[str] = ()) -> str | None:
    """Which commit that these would bring is undone by what lies above them, and not in `before`."""
    app, place = batch[-1].app, tx.commits.on_line(batch[-1]).position
    above = [] if place is None else tx.commits.undoing_after(app, place)
    later = [commit for commit in above if commit.sha not in before]
    if not later:
        return None
    line = _with_inner(tx, app, [candidate(commit, tx) for commit in (*batch, *later)])
    found = selection.undone_later(line, len(batch))
    if found is None:
        return None
    bad, fix = found
    return f"commit {bad[:12]}, which it would bring, ships only together with {fix[:12]}, which undoes it"


def _with_below(tx: Transaction, app: AppName, seen: list[selection.Candidate]) -> list[selection.Candidate]:
    """With what is barred in what they follow."""
    if seen:
        barred = (tx.commits.get(app, sha) for sha in barred_below(tx, app))
        below = tuple((one.sha, tx.commits.on_line(one).sha) for one in barred if one is not None)
        seen[0] = replace(seen[0], below=below)
    return seen


def _with_mended(tx: Transaction, app: AppName, seen: list[selection.Candidate]) -> list[selection.Candidate]:
    """With what is barred in what they followed, and they mend: none of them could have gone out without its fix.

    What none of them mends was barred when they had begun, or a person stepped over it: it kept nobody back.
    """
    seen = _with_below(tx, app, seen)
    left = selection.brought(seen)
    seen[0] = replace(seen[0], below=tuple(one for one in seen[0].below if one[0] not in left))
    return seen


def barred_below(tx: Transaction, app: AppName) -> list[str]:
    """Barred while they were on their way or out, in the rollout that the next one follows: what comes after them waits.

    When that rollout was a person's wish only what it shipped: what else is barred in it, he has taken along.
    """
    active = tx.rollouts.active(app)
    rollout = active if active is not None and active.state in ON_ITS_WAY else tx.rollouts.newest_done(app)
    if rollout is None:
        return []
    barred = brought(tx, rollout)
    return barred if rollout.requested_by == AUTOMATION else [sha for sha in barred if sha == rollout.commit]


def what_a_bar_leaves(tx: Transaction, commit: Commit) -> str | None:
    """Of a barred commit that is out, and will be: how it is taken back, and whether what comes after it waits; None of all others."""
    rollout = tx.rollouts.newest_done(commit.app)
    shipped = None if rollout is None else tx.commits.get(commit.app, rollout.commit)
    if rollout is None or shipped is None:
        return None
    if not is_inside(tx, commit, shipped) and commit.sha not in rollout.commits:
        return None
    if commit.sha in barred_below(tx, commit.app):
        return (
            f"it is out, with rollout {rollout.id}, and stays there: rollout rollback takes it back; what comes after it waits"
            " for a commit that mends it, or for rollout unbar"
        )
    active = tx.rollouts.active(commit.app)
    follows, where = shipped, "runs"
    if active is not None and active.state in ON_ITS_WAY:
        follows, where = tx.commits.get(commit.app, active.commit) or shipped, "is on its way"
        if not is_inside(tx, commit, follows):
            return None
    short = follows.sha[:12]
    return (
        f"it is out, inside of {short}, which {where}: what comes after that goes on; revert it, or keep that back too:"
        f" rollout bar {short} --reason …"
    )


def is_inside(tx: Transaction, commit: Commit, shipped: Commit) -> bool:
    """Whether who has the one has the other. Of what a force-push has taken off the branch the place on the line is another commit's now."""
    return commit.sha == shipped.sha or (shipped.on_branch and is_in(tx.commits.on_line(commit), shipped))


def is_in(commit: Commit, shipped: Commit) -> bool:
    """What has left the branch is not out, and may be what was bad."""
    return commit.on_branch and (commit.position or 0) <= (shipped.position or 0)


def blamed(tx: Transaction, rollout: Rollout) -> tuple[list[Commit], list[Commit]]:
    """Of the commits of a rollout that went wrong: those that are barred, and no later one of it mends; and those that are suspect still."""
    if rollout.state not in WENT_WRONG:
        return [], []
    batch = _commits(tx, rollout)
    suspects = [commit for commit in batch if commit.suspect and not commit.is_barred]
    kept = brought(tx, rollout)
    barred = [commit for commit in batch if commit.is_barred and commit.sha in kept]
    return barred, suspects


def barred_on_its_way(tx: Transaction, rollout: Rollout) -> str | None:
    """Of a rollout that is on its way: what of it is barred, and what takes it back; a bar does not stop what has begun."""
    if rollout.state not in ON_ITS_WAY:
        return None
    names = _are_barred(tx, rollout)
    return f"{names} (to take it back: rollout stop {rollout.id})" if names else None


def barred_though_out(tx: Transaction, rollout: Rollout) -> str | None:
    """Of a rollout that is done: what of it is barred, and what becomes of that."""
    if rollout.state is not R.DONE or not (names := _are_barred(tx, rollout)):
        return None
    if not set(brought(tx, rollout)) & set(barred_below(tx, rollout.app)):
        return names
    return f"{names} (what comes after it waits for a commit that mends it, or: rollout unbar COMMIT)"


def _are_barred(tx: Transaction, rollout: Rollout) -> str:
    found = (tx.commits.get(rollout.app, sha) for sha in brought(tx, rollout))
    return " and ".join(_told_as_barred(tx, commit) for commit in found if commit is not None)


def _told_as_barred(tx: Transaction, commit: Commit) -> str:
    line = tx.commits.on_line(commit)
    inside = "" if line.id == commit.id else f", which came in with {line.sha[:12]},"
    return f"{commit.sha[:12]}{inside} is barred: {commit.barred_for}"


def _commits(tx: Transaction, rollout: Rollout) -> list[Commit]:
    return [commit for sha in rollout.commits if (commit := tx.commits.get(rollout.app, sha)) is not None]


def how_the_innocent_ship(barred: Sequence[Commit]) -> str:
    """Of several that a person took back together; "" of a single one."""
    way = "any of them may be what was wrong: rollout unbar COMMIT --reason … lets an innocent one ship"
    return way if len(barred) > 1 else ""


def passed(tx: Transaction, commit: Commit) -> None:
    """It has passed this moment: barred at once, if it was before, or if it is the same as a barred one."""
    if commit.bar_wanted is not None:
        bar_locked(tx, commit, who="bar", why=commit.bar_wanted, same_as=commit.same_as)
    elif not _bar_the_same(tx, commit):
        _suspect_the_same(tx, commit)


def look_again(tx: Transaction, app: AppName, queue: Sequence[Commit]) -> None:
    """Bar what is the same as a barred one, whatever its own tests say: an amended commit, also one that is forced back.

    What is the same as a suspect is one. `queue`: what may be planned now. The caller holds the app's row.
    """
    barred, suspect = tx.bars.contents_of_trouble(app)
    for commit in queue:
        if commit.is_barred:
            continue
        content = {commit.digest, commit.tree}
        looks_barred = content & barred or _undone_by(tx, commit)
        if not (looks_barred and _bar_the_same(tx, commit)) and content & suspect:
            _suspect_the_same(tx, commit)


def _suspect_the_same(tx: Transaction, commit: Commit) -> None:
    """A suspect that was forced away and comes again under another hash goes out alone, as that one would have.

    Or, when its own tests are red, with as little as can be. The suspicion moves: one of the two is there to be innocent.
    Whom a person has let go, and what ran well, is not suspected.
    """
    commit = (
        tx.commits.lock(commit.app, commit.sha) or commit
    )  # a bar on another one may have cleared it, or barred it
    if commit.is_barred or commit.suspect or commit.unbarred or commit.is_pull:
        return
    other = tx.bars.suspect_with(commit)
    if other is None or tx.bars.ran_well(commit) or selection.is_fix_of(candidate(commit, tx), other.sha):
        return
    why = f"the same as {other.sha[:12]}, which was in a batch that went wrong"
    tx.bars.suspect(commit, other.suspect_of)
    tx.bars.acquit(other)
    tx.record(commit.app, f"commit {commit.sha}", "suspect", who="bar", why=why)


def was_taken_back(tx: Transaction, batch: Sequence[Commit]) -> bool:
    """Automation has shipped these files already, and they were taken back: it is as if they had gone out, and gone wrong, once more.

    The caller holds the app's row.
    """
    found = brought_before(tx, batch)
    if found is None:
        return False
    before, same = found
    why = f"the same files as rollout {before.id} brought, which was taken back: {before.reason}"
    again = replace(before, commits=tuple(one.sha for one in same))
    after_failure(tx, again, who="bar", why=why, seen=False)
    return True


def brought_before(tx: Transaction, batch: Sequence[Commit]) -> tuple[Rollout, Sequence[Commit]] | None:
    """The rollout that was taken back, and brought the files that this batch would; and as much of the batch as has them.

    Also what lies below the last one goes out, whatever its own tests say: unless something later in the batch undoes it.
    """
    seen = _with_inner(tx, batch[-1].app, [candidate(one, tx) for one in batch])
    for reach in selection.reaches(seen):
        if (before := _brought_all(tx, batch[:reach])) is not None:
            return before, batch[:reach]
    return None


def _brought_all(tx: Transaction, batch: Sequence[Commit]) -> Rollout | None:
    """The rollout that was taken back, and brought the files of the last one of these.

    Of a batch that failed, and comes again squashed or cut otherwise, none has the files of a barred commit, and yet all of
    it together is known to be bad. Not of what shipped then, alone: it has its turn like the others of its batch; nor when a
    person's word, or what ran well, counts more (`_bar_the_same`). A word on a suspect is one on itself, not on the batch
    whose last commit it was.
    """
    shipped = batch[-1]
    number = tx.bars.taken_back_with(shipped)
    if number is None or tx.bars.ran_well(shipped):
        return None
    if shipped.unbarred and (len(batch) == 1 or shipped.suspect_of != number):
        return None
    before, named = tx.rollouts.get(number), selection.mended(shipped.message)
    if before.commit == shipped.sha and len(batch) == 1:
        return None
    fixes = selection.is_fix_of(candidate(shipped, tx), before.commit)
    return None if fixes or any(_are_in(sha, named) for sha in before.commits) else before


def _bar_the_same(tx: Transaction, commit: Commit) -> bool:
    """A commit must not ship, whatever its tests say, when a barred one has the same in it, under another hash; whether it is barred.

    The same bytes to ship, or the same files in git: no build needs to give the same bytes twice. Or when it takes the revert
    of a barred one back. Not when its author says that it mends that one: what was wrong may have been elsewhere, and the word
    of a person is what lifts a bar; nor when somebody has unbarred it. Nor when the very same has run well: it was not this
    that the other was barred for.
    """
    if commit.unbarred or tx.bars.ran_well(commit):
        return False
    seen = candidate(commit, tx)
    for what, other in _same(tx, commit):
        first = other.same_as or other.sha
        if not any(selection.is_fix_of(seen, sha) for sha in (other.sha, first)):
            why = _one_reason(f"{what} {other.sha[:12]}, which is barred: {other.barred_for}")
            bar_locked(tx, commit, who="bar", why=why, same_as=first)
            return True
    return False


def _same(tx: Transaction, commit: Commit) -> Iterator[tuple[str, Commit]]:
    """Barred commits that this one brings again, and in which way."""
    for other in tx.bars.barred_with(commit):
        # What is before a barred one on the branch is not gone back to by automation anyway; and what was known before
        # work that is not of the line is what that was made from, not what became of it.
        made_from_it = (other.is_pull or other.merged_into is not None) and commit.id < other.id
        if not made_from_it and not (commit.on_branch and other.on_branch and is_in(commit, other)):
            what = "bytes" if commit.digest is not None and commit.digest == other.digest else "files"
            yield f"the same {what} as", other
    for back in _of_hashes(tx, commit.app, _undone_by(tx, commit)):
        for bad in _of_hashes(tx, commit.app, _undone_by(tx, back)):
            if bad.is_barred:
                yield f"takes {back.sha[:12]} back, and with it the revert of", bad


def _undone_by(tx: Transaction, commit: Commit) -> frozenset[str]:
    """Hashes, or their first digits, that it takes back, by its own message or by what came in with it.

    A squashed message may list an undoing, and that this was undone: by the hash of a commit that we know or, as squashing
    loses them, of one that nobody knows. Then nothing says that the other ones are undone still, unless the message does.
    """
    commit = _with_hashes(tx, commit)
    brought = frozenset(one.removeprefix(selection.PERHAPS) for one in commit.mends.split())
    said = selection.undoes(commit.message)
    if len(said) <= 1:
        return brought | {one.sha for one in said}
    known = tx.commits.called(commit.app, {one.sha for one in said})
    unclear = {one.sha for one in said if not known[one.sha] and not one.is_explained}
    again = [
        sha
        for rows in known.values()
        for row in rows
        for sha in selection.reverts(_with_hashes(tx, row).message)
    ]
    stays = {one.sha for one in said if not unclear - {one.sha} and not _are_in(one.sha, again)}
    return brought | stays | unclear


def _with_hashes(tx: Transaction, commit: Commit) -> Commit:
    """Where it says that it undoes requests, by its own message or by what came in with it: as if it named their commits."""
    named = selection.requests_undone(commit.message) | selection.requests_in(commit.mends)
    if not named:
        return commit
    merged = tx.commits.merged_as(commit.app, named, tx.commits.on_line(commit).position)
    return replace(
        commit,
        message=selection.with_hashes(commit.message, merged),
        mends=selection.mends_with_hashes(commit.mends, merged),
    )


def undoes_nobody(tx: Transaction, commit: Commit) -> str | None:
    """The request that it says it undoes, when no commit is known that was it, and nothing else is undone."""
    if _undone_by(tx, commit) != {selection.NOBODY}:
        return None
    return " and ".join(
        sorted(selection.requests_undone(commit.message) | selection.requests_in(commit.mends))
    )


def _are_in(sha: str, hashes: Iterable[str]) -> bool:
    """By their first digits."""
    return any(one.startswith(sha) or sha.startswith(one) for one in hashes)


def _of_hashes(tx: Transaction, app: AppName, hashes: Iterable[str]) -> Iterator[Commit]:
    for found in tx.commits.called(app, sorted(hashes)).values():
        yield from found


def bar(app: str, name: str, deps: Deps, *, who: str, why: str) -> Commit:
    """Automation must not ship this commit, neither by itself nor inside of a later one, whatever its tests say or will say."""
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app))
        return bar_as_last_word(tx, named(tx, app, name), who=who, why=why)


def bar_as_last_word(tx: Transaction, commit: Commit, *, who: str, why: str) -> Commit:
    """What a person says, hosts show, or a check after it had passed, for whoever holds the app's row.

    It reaches what has the same in it too, and withdraws what would take either along.
    """
    withdraw_wishes(tx, commit, who=who, why=why)
    barred = bar_locked(tx, commit, who=who, why=_one_reason(why))
    for twin in tx.bars.barred_as(barred):
        withdraw_wishes(tx, twin, who=who, why=why)
    return barred


def brought_by(tx: Transaction, commit: Commit) -> tuple[Rollout, Commit] | None:
    """The rollout that brings it to hosts now, or what is barred for being the same, and goes on all the same; and which of them."""
    active = tx.rollouts.active(commit.app)
    if active is None or active.state not in ON_ITS_WAY:
        return None
    its = (commit, *tx.bars.barred_as(commit))
    found = next((one for one in its if tx.commits.on_line(one).sha in active.commits), None)
    return None if found is None else (active, found)


def withdraw_wishes(tx: Transaction, commit: Commit, *, who: str, why: str) -> None:
    """Of two words on this commit the later one counts: no `deploy --now` of before takes it along, but together with its fix.

    Automation's word too, when hosts or a late check have shown that it is bad: who wanted out what is above it had not seen that.
    """
    line = tx.commits.on_line(commit)
    for wished in tx.commits.wanted_now(commit.app):
        its = tx.commits.on_line(wished)
        if is_in(line, its) and not _is_mended_up_to(tx, commit, line, its):
            said = f"{who} said later of {commit.sha[:12]}, which it would take along: {why}"
            end_wish(tx, wished, who=who, said=said)


def _is_mended_up_to(tx: Transaction, commit: Commit, line: Commit, wished: Commit) -> bool:
    """Whether what undoes or mends it, or what it is the same as, goes out with the wished one too. `line`: where the commit is."""
    below = (line.position or 0) - (line.id != commit.id)  # what came in with a merge may be mended by that
    later = [one for one in tx.commits.undoing_after(commit.app, below) if is_in(one, wished)]
    if not later:
        return False
    seen = _with_inner(tx, commit.app, [candidate(one, tx) for one in later])
    names = {sha for sha in (commit.sha, commit.same_as) if sha}
    seen[0] = replace(seen[0], below=tuple((sha, line.sha) for sha in names))
    return not names <= set(selection.brought(seen))


def end_wish(tx: Transaction, wished: Commit, *, who: str, said: str, first: str = "") -> None:
    """A person's `deploy --now` counts no more, and people are told for what reason; nothing when there was none.

    `first`: what is to be done before it can be said again.
    """
    if wished.now_reason is None:
        return
    tx.commits.wish_now(wished, None, None)
    tx.record(wished.app, f"commit {wished.sha}", "deploy --now withdrawn", who=who, why=said)
    tx.notices.add(
        wished.app,
        None,
        f"{wished.app}: `deploy --now` of {wished.sha[:12]} is withdrawn",
        f"{wished.now_by} said: {wished.now_reason}; {said}.\n"
        f"Next: if it is to go out all the same, {first}rollout deploy {wished.sha[:12]} --now --reason …",
    )


def bar_locked(tx: Transaction, commit: Commit, *, who: str, why: str, same_as: str | None = None) -> Commit:
    """As `bar`, for whoever holds the app's row; a barred commit stays barred, for this reason too.

    What has not passed keeps its state beside the bar, and its tests may be run again: when it passes it is BARRED.
    Whatever its twins on the branch are, waiting, planned or on their way, they are barred with it.

    `same_as`: the barred commit that this one is the same as; when that may ship again, so may this one.
    """
    commit = tx.commits.lock(commit.app, commit.sha) or commit  # its tests may be passing at this moment
    if commit.state is CommitState.PASSED and not commit.is_pull:
        values = {"reason": why, "same_as": same_as, "unbarred": False}
        barred = tx.commits.change(commit, CommitEvent.BAR, who=who, why=why, **values)
        deliveries.settle(tx, barred.app)
    elif commit.is_barred and same_as is not None:
        return commit
    else:
        barred = _bar_beside(tx, commit, who=who, why=why, same_as=same_as)
    for twin in tx.bars.free_with(barred):
        _bar_the_same(tx, twin)
    return barred


def _bar_beside(tx: Transaction, commit: Commit, *, who: str, why: str, same_as: str | None) -> Commit:
    """The state of the commit stays: it has not passed, or is not merged; or it is barred, and now for this reason too.

    What it was the same as may be let go, and this stays.
    """
    what = "bar"
    if commit.is_pull and commit.state is CommitState.PASSED:
        what = "bar as soon as it is merged"
    tx.record(commit.app, f"commit {commit.sha}", what, who=who, why=why)
    reason = _also(None if commit.same_as is not None else commit.barred_for, why)
    if commit.state is CommitState.BARRED:
        return tx.commits.update(commit, reason=reason, same_as=same_as)
    return tx.bars.wish(commit, reason, same_as=same_as)


def _also(before: str | None, why: str) -> str:
    """All that it is barred for, each reason once; of very many the newest."""
    return ALSO.join([*(one for one in reasons(before) if one != why), why][-MOST_REASONS:])


def _one_reason(why: str) -> str:
    """It is one, also when somebody writes what stands between several, or tells of all those of another bar."""
    return why.replace(ALSO, "; and ")


def reasons(text: str | None) -> list[str]:
    """Those of a bar, one by one."""
    return text.split(ALSO) if text else []


def unbar(app: str, name: str, deps: Deps, *, who: str, why: str) -> tuple[Commit, str | None]:
    """Automation may ship this commit after all, and what is barred for being the same as it; and all that it was barred for."""
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app))
        commit = named(tx, app, name)
        lifted = commit.barred_for
        allowed = _let_go(tx, commit, who=who, why=why)
        _free_twins(tx, commit, who=who, why=why)
        return allowed, lifted


def take_back(tx: Transaction, commit: Commit, wrong: Collection[str], *, who: str, why: str) -> None:
    """Who had it barred for these reasons, and is no person, says that they were wrong; what else bars it stays, or is looked for.

    The caller holds the app's row.
    """
    if left := [one for one in reasons(commit.barred_for) if one not in wrong]:
        tx.record(commit.app, f"commit {commit.sha}", "bar taken back in part", who=who, why=why)
        if commit.state is CommitState.BARRED:
            tx.commits.update(commit, reason=ALSO.join(left))
        else:
            tx.bars.wish(commit, ALSO.join(left))
        return
    _bar_the_same(tx, _lift(tx, commit, who=who, why=why, unbarred=False))
    _free_twins(tx, commit, who=who, why=why)


def _free_twins(tx: Transaction, commit: Commit, *, who: str, why: str) -> None:
    its = f"{commit.sha[:12]} may ship again: {why}"
    freed = [_lift(tx, twin, who=who, why=its, unbarred=False) for twin in tx.bars.barred_as(commit)]
    for twin in freed:
        _bar_the_same(tx, twin)  # as another barred one, perhaps


def _let_go(tx: Transaction, commit: Commit, *, who: str, why: str) -> Commit:
    if commit.is_barred:
        return _lift(tx, commit, who=who, why=why, unbarred=True)
    if not commit.suspect or commit.unbarred:
        raise Conflict(f"commit {commit.sha[:12]} is {commit.state}, not barred")
    tx.record(commit.app, f"commit {commit.sha}", "unbar", who=who, why=why)
    # It goes out alone all the same, as the others do: what has failed together is not tried together again.
    return tx.commits.update(commit, unbarred=True)


def _lift(tx: Transaction, commit: Commit, *, who: str, why: str, unbarred: bool) -> Commit:
    """Its bar; what has not passed keeps its state. `unbarred`: a person has said so of this very commit."""
    if commit.state is not CommitState.BARRED:
        tx.record(commit.app, f"commit {commit.sha}", "unbar", who=who, why=why)
        return tx.bars.wish(commit, None, unbarred=unbarred)
    clean = {"reason": None, "same_as": None, "bar_wanted": None, "unbarred": unbarred}
    return tx.commits.change(commit, CommitEvent.UNBAR, who=who, why=why, **clean)


def named(tx: Transaction, app: str, name: str) -> Commit:
    """The known commit whose hash starts with `name`; NotFound, Conflict when there are several."""
    found = tx.commits.starting_with(AppName(app), name.lower())
    if not found:
        raise NotFound(
            f"no commit of {app} starts with {name!r}", remedy="give more digits, or push it first"
        )
    if len(found) > 1:
        raise Conflict(f"several commits of {app} start with {name!r}", remedy="give more digits")
    return found[0]
