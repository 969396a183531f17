"""A CI server decides in place of our own test run; what is shipped is built by us all the same (I9)."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rollout.config.deploy_file import AppConfig
from rollout.domain import checks
from rollout.domain.checks import Decision, Word
from rollout.domain.deliveries import End, Outcome
from rollout.domain.model import AppName, Check, CheckState, Commit, Push
from rollout.domain.states import CommitState
from rollout.errors import Conflict
from rollout.services import bars, planning, turns
from rollout.services.intake import NOT_OURS, Ended, Received, ToldOf, add_ended
from rollout.services.ports import Deps
from rollout.store.checks import MOST_NAMES, MOST_WORDS
from rollout.store.store import Transaction

LONGEST_WAIT_S = 600.0  # then it is looked at again
LATE = "it was told of before, or what came later was"
TAKEN = "taken"  # then somebody's turn may have come
AGAIN = "it was sent before"


def decision(tx: Transaction, app: AppConfig, commit: Commit) -> Decision:
    """What the reports so far say of the commit."""
    reported = _reported(tx, commit)
    return checks.decide(app.tests.required, reported, bars.age_s(commit, tx), app.tests.deadline)


def took_s(tx: Transaction, app: AppConfig, commit: Commit) -> float | None:
    """How long they took to decide; None where no server said when it began, nor the commit was known."""
    return checks.took_s(app.tests.required, _reported(tx, commit))


def _reported(tx: Transaction, commit: Commit) -> list[Check]:
    reported = tx.checks.of(commit.app, commit.sha)
    return checks.of_a_request(reported) if _is_a_request(commit) else reported


def _is_a_request(commit: Commit) -> bool:
    return commit.pull is not None and not commit.on_branch


def put_off(tx: Transaction, app: AppConfig, commit: Commit, why: str) -> None:
    """It waits for reports: they ring; and its time limit does."""
    left_s = app.tests.deadline - bars.age_s(commit, tx)
    tx.commits.update(commit, reason=why, due_at=tx.now() + min(LONGEST_WAIT_S, max(0.0, left_s)))


def receive_all(told: ToldOf, deps: Deps) -> list[Received]:
    """Verified webhooks with reports: each is kept for every app of its repository that lets CI servers decide."""
    taking = {AppName(app.name): app for _, apps in told for app in apps if app.tests.external}
    with deps.store.transaction() as tx:
        tx.apps.lock_all(taking)
        came: set[tuple[str, str]] = set()
        moved: set[AppName] = set()
        received = add_ended(tx, [_end_of_report(tx, push, apps, came, moved) for push, apps in told])
        rings = [ring for name in taking if name in moved for ring in turns.take(tx, taking[name], deps)]
    deps.bell.ring(rings)
    return received


def _end_of_report(
    tx: Transaction, push: Push, apps: Sequence[AppConfig], came: set[tuple[str, str]], moved: set[AppName]
) -> Ended:
    """`came`: the reports without a time that came together with it, and before it; `moved`: the apps that took one. It is added to them."""
    taking = [app for app in apps if app.tests.external]
    if not apps:
        return push, apps, End(Outcome.IGNORED, NOT_OURS)
    if not taking:
        return push, apps, End(Outcome.IGNORED, 'a report, and tests.source is not "external"')
    assert push.check is not None
    if not push.check.stamp:  # then nothing else tells a webhook that is sent again from news
        before = tx.deliveries.taken(AppName(taking[0].name), push)
        if before is not None or (push.provider, push.delivery) in came:
            ref = None if before is None else f"delivery {before}"
            return push, taking, End(Outcome.DUPLICATE, f"a report on commit {push.head}: {AGAIN}", ref)
        came.add((push.provider, push.delivery))
    said = _keep(tx, taking, push.head, [_for(app, push, push.check) for app in taking])
    moved.update(_taken(taking, said))
    if None in said:
        return push, taking, End(Outcome.REJECTED, _too_many(push.head))
    if set(said) == {LATE}:
        return push, taking, End(Outcome.DUPLICATE, f"a report on commit {push.head}: {LATE}")
    return push, taking, End(Outcome.REPORTED, f"a report on commit {push.head}")


def _for(app: AppConfig, push: Push, check: Check) -> Check:
    return checks.of_its_branch(check, push.branch, app.branch) if push.branch else check


def report(apps: Sequence[AppConfig], sha: str, check: Check, deps: Deps) -> list[str]:
    """Keep the report for these, and do what follows from it; what that is for each, in words. Conflict where CI servers do not decide."""
    for app in apps:
        if not app.tests.external:
            raise Conflict(
                f"{app.name} runs its own tests",
                remedy='to let reports decide: [apps.X.tests] source = "external"',
            )
    with deps.store.transaction() as tx:
        tx.apps.lock_all([AppName(app.name) for app in apps])
        said = _keep(tx, apps, sha, [check] * len(apps))
        moved = _taken(apps, said)
        rings = [ring for app in apps if app.name in moved for ring in turns.take(tx, app, deps)]
    deps.bell.ring(rings)
    told = [one for one in said if one is not None]
    if len(told) < len(said):
        raise Conflict(_too_many(sha), remedy="give a check the same name each time")
    return told


def _taken(apps: Sequence[AppConfig], said: Sequence[str | None]) -> set[AppName]:
    return {AppName(app.name) for app, one in zip(apps, said, strict=True) if one == TAKEN}


def _keep(tx: Transaction, apps: Sequence[AppConfig], sha: str, given: Sequence[Check]) -> list[str | None]:
    """As `report`, of a word for each, for whoever holds the apps' rows; None where the commit has reports of too many checks.

    However many apps ship from its repository: asked and written for all together.
    """
    names = [AppName(app.name) for app in apps]
    known = tx.checks.alike(names, sha, {check.name for check in given})
    commits, now = tx.commits.lock_each(names, sha), tx.today()
    words = {
        name: word
        for name, check in zip(names, given, strict=True)
        if (word := _news(check, known[name], now, commits.get(name))) is not None
    }
    full = _put(tx, apps, sha, words)

    def said(app: AppConfig) -> str | None:
        name = AppName(app.name)
        if name in full:
            return None
        if name not in words or checks.says_nothing(words[name], known[name]):
            return LATE
        if name not in commits:
            return "kept until the commit is known"
        return _follow(tx, app, commits[name], words[name], known[name])

    return list(map(said, apps))


def _news(check: Check, known: Sequence[Check], now: datetime, commit: Commit | None) -> Check | None:
    """The word as it is kept; None when there is nothing new in it."""
    if not checks.came_late(check, known):
        return checks.timed(check, known, now, None if commit is None else commit.received_at)
    begun = checks.begun_by(check, known)
    return None if begun in known else begun


def _put(
    tx: Transaction, apps: Sequence[AppConfig], sha: str, words: Mapping[AppName, Check]
) -> set[AppName]:
    """Those whose commit has too many already, also when the oldest word that decides nothing has made room."""
    full = tx.checks.put(sha, words)
    for app in apps:
        if (name := AppName(app.name)) in full:
            every = tx.checks.of(name, sha)
            if len(every) >= MOST_WORDS and (old := checks.makes_room(app.tests.required, every)):
                tx.checks.drop(name, sha, old)
    return tx.checks.put(sha, {name: words[name] for name in full})


def _too_many(sha: str) -> str:
    return f"commit {sha[:12]} has reports of {MOST_NAMES} checks already, or of {MOST_WORDS} runs of them"


def _follow(tx: Transaction, app: AppConfig, commit: Commit, check: Check, known: Sequence[Check]) -> str:
    """`known`: what was said before it."""
    if _is_a_request(commit):
        check, *known = checks.of_a_request([check, *known])
    if commit.is_pull and not app.tests.pull_requests:
        return "kept; heads of pull requests are not tested any more"
    lifted = _lift(tx, app, commit, check)
    if check.name not in app.tests.required:
        return TAKEN if lifted else "kept; not a required check"
    match commit.state:
        case CommitState.RECEIVED if not commit.is_left_out:
            _look_again(tx, app, commit)
        case CommitState.FAILED if commit.is_late and check.state is CheckState.PENDING:
            tx.commits.hear_again(commit, who=check.source, why=f"check {check.name} is under way")
        # It came late, or was run again over there.
        case CommitState.FAILED if decision(tx, app, commit).word is Word.PASS:
            tx.commits.test_again(commit, who=check.source, why=_after_all(check))
        case CommitState.PASSED | CommitState.BARRED if checks.turns_red(check, known):
            _contradicted(tx, app, commit, check.name, who=check.source)
        case _ if not lifted:
            return f"kept; the commit is {commit.state}"
    return TAKEN


def _look_again(tx: Transaction, app: AppConfig, commit: Commit) -> None:
    """It says what it waits for by now, or that it fails: its turn comes when another one's build is over, which may take long."""
    told = decision(tx, app, commit)
    if _is_spoken_for(commit):
        tx.commits.update(commit, due_at=tx.now())
    elif told.word is Word.FAIL:
        tx.commits.update(commit, reason=told.why, due_at=tx.now())
    elif told.word is Word.WAIT:
        put_off(tx, app, commit, told.why)
    else:
        built = "" if commit.is_pull else ", waits for its build"
        tx.commits.update(commit, reason=told.why + built, due_at=tx.now())


def red(tx: Transaction, app: AppConfig, commit: Commit) -> str | None:
    """Why a commit fails as soon as its turn has come."""
    if commit.state is not CommitState.RECEIVED or _is_spoken_for(commit) or not app.tests.external:
        return None
    told = decision(tx, app, commit)
    return told.why if told.word is Word.FAIL and not told.late else None


def _is_spoken_for(commit: Commit) -> bool:
    """It has passed before, or a person's word may be enough."""
    return commit.is_built_again or commit.unbarred


def _lift(tx: Transaction, app: AppConfig, commit: Commit, check: Check) -> bool:
    """Take back the bar for checks that are a success after all, be it one that waits for a merge; whether there was any."""
    late = _late_ones(tx, commit)
    if not late or decision(tx, app, commit).word is not Word.PASS:
        return False
    bars.take_back(tx, commit, late, who=check.source, why=_after_all(check))
    return True


def _after_all(check: Check) -> str:
    return f"check {check.name} is a success after all"


def _late(name: str) -> str:
    return f"check {name} failed after the commit had passed"


def _late_ones(tx: Transaction, commit: Commit) -> set[str]:
    """What it is barred for by checks that are a success, be they required still or not any more."""
    if not commit.is_barred or commit.same_as is not None:
        return set()
    said = checks.by_name(_reported(tx, commit))
    good = {_late(one.name) for one in said if one.state is CheckState.SUCCESS}
    return good.intersection(bars.reasons(commit.barred_for))


def _contradicted(tx: Transaction, app: AppConfig, commit: Commit, name: str, *, who: str) -> None:
    """A failure after the commit had passed, of which people are told: it is kept in, or, when it is on its way, they decide."""
    why = _late(name)
    if not _is_on_its_way(tx, commit):
        is_news = why not in bars.reasons(commit.barred_for)
        bars.bar_as_last_word(tx, commit, who=who, why=why)
        if is_news:
            _tell_bar(tx, commit, why)
        return
    tx.record(commit.app, f"commit {commit.sha}", "check failed late", who=who, why=why)
    short = commit.sha[:12]
    tx.notices.add(
        commit.app,
        None,
        f"{app.name}: {why}",
        f"Commit {short} is out or on its way, and a report stops no rollout.\nNext: rollout status, or rollout bar {short}",
    )


def _tell_bar(tx: Transaction, commit: Commit, why: str) -> None:
    """Unless nobody waits for it: it was forced off the branch, and nothing there is the same."""
    short, is_open = commit.sha[:12], commit.is_pull and commit.merged_into is None
    when = ", as soon as it is merged" * is_open
    twins = "".join(f", and so is {one.sha[:12]}, the same" for one in tx.bars.barred_as(commit))
    if not (is_open or twins or tx.commits.on_line(commit).on_branch):
        return
    tx.notices.add(
        commit.app,
        None,
        f"{commit.app}: {why}",
        f"{commit.subject}\nCommit {short} by {commit.author} is barred{when}{twins}: what comes after it waits until a commit mends it,"
        f" or until that check is a success after all.\nNext: rollout log {short}, or rollout unbar {short}",
    )


def look_back(tx: Transaction, app: AppConfig, built: Commit) -> None:
    """What had passed, and was built only now, is kept in by a check that failed meanwhile; but for a person's word."""
    commit = tx.commits.get(built.app, built.sha)
    if commit is None or commit.state is not CommitState.PASSED or commit.unbarred:
        return
    for check in checks.by_name(tx.checks.of(commit.app, commit.sha)):
        if check.name in app.tests.required and check.state is CheckState.FAILURE:
            _contradicted(tx, app, commit, check.name, who=check.source)
            return


def _is_on_its_way(tx: Transaction, commit: Commit) -> bool:
    """To hosts, or out on them; neither what is only planned, nor what a bar gets no yes, nor what is, or was, taken back."""
    active = tx.rollouts.active(commit.app)
    goes = active is not None and active.state in bars.ON_ITS_WAY and not planning.may_get_no_yes(active)
    newest = (
        tx.commits.get(commit.app, active.commit) if active and goes else planning.released(tx, commit.app)
    )
    return newest is not None and bars.is_inside(tx, commit, newest)
