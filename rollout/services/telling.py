"""What people are told of tests: who made the branch red, which commit is flaky, that the suite has grown slow."""

from rollout.config.deploy_file import AppConfig
from rollout.domain import checks, selection
from rollout.domain.model import NOT_ON_BRANCH, AppName, CheckState, Commit, TestResult
from rollout.domain.states import CommitState
from rollout.services import bars
from rollout.services.ports import Deps
from rollout.store.store import Transaction

SLOW_S = 300.0  # a suite that takes longer keeps every commit waiting


def first_red(tx: Transaction, app: AppConfig) -> Commit | None:
    """The commit that made the branch red, as far as tests have come; None while its newest result is good."""
    found = _first_red(tx, app)
    return None if found is None else found[0]


def _first_red(tx: Transaction, app: AppConfig) -> tuple[Commit, bool] | None:
    """With whether it is certain that it was the first one.

    A long branch is not read again and again: while none has failed none is red, and who was told to be it stays it until a newer one
    is good. Between the two it is read until all before the red one have a result, or CI servers' `deadline` is over for them.
    """
    name = AppName(app.name)
    oldest = tx.commits.oldest_red(name)
    if oldest is None:
        return None
    if tx.apps.red_told(name) == oldest:
        commit = tx.commits.get(name, oldest)
        return None if commit is None else (commit, True)
    queue = tx.commits.after_the_last_good(name)
    found = selection.first_red(bars.tested(tx, app, queue))
    return None if found is None else (queue[found.position - 1], found.certain)


def broken(commit: Commit) -> str:
    """Of the first commit that did not pass: the branch is red by it, or stands still as nobody vouches for it."""
    by = f"{commit.sha[:12]} by {commit.author}"
    return f"red since {by}" if commit.reds else f"nobody says whether {by} is good"


def where(commit: Commit) -> str:
    """Where a commit that is received or in test stands, in a few words."""
    if commit.is_built_again:
        return "passed, and its archive is built again" + f": {commit.reason}" * bool(commit.reason)
    words = "tests run" if commit.state is CommitState.TESTING else commit.reason or "waits for its tests"
    return f"{words} again: {commit.reds} red so far" if commit.reds else words


def verdict(commit: Commit) -> str:
    """Of a commit that did not pass: that it is bad, or that nobody said whether it is; and why."""
    if (commit.reason or "").startswith(NOT_ON_BRANCH):
        return commit.reason or ""
    return f"its tests failed: {commit.reason}" if commit.reds else f"not tested: {commit.reason}"


def look(tx: Transaction, commit: Commit) -> str:
    """The command that shows what its tests printed, here or in a CI server's report; "" when there is nothing: then the reason says where."""
    if commit.output or any(
        check.details
        for check in checks.by_name(tx.checks.of(commit.app, commit.sha))
        if check.state is CheckState.FAILURE
    ):
        return f"rollout log {commit.sha[:12]}"
    return ""


def told_of_tests(commit: Commit) -> list[str]:
    """What the last run of its tests deserves to have said about it, a line each."""
    lines = []
    if commit.is_pull:
        lines.append(f"head of pull request {commit.pull}: never shipped as such")
    if commit.flaky:
        lines.append(f"flaky: passed after {commit.reds} red")
    if commit.took_s is not None:
        slow = f", more than {SLOW_S / 60:.0f} min" if commit.took_s > SLOW_S else ""
        lines.append(f"the tests took {commit.took_s:.1f} s{slow}")
    return lines


def red_branch(tx: Transaction, app: AppConfig) -> None:
    """One notice for each first red commit, once all before it are tested and it is certain."""
    name, found = AppName(app.name), _first_red(tx, app)
    if found is None:
        tx.apps.tell_red(name, None)
        return
    red, certain = found
    if certain and tx.apps.tell_red(name, red.sha):
        short = red.sha[:12]
        tx.record(name, f"commit {red.sha}", "branch red", who="tests", why=red.reason)
        tx.notices.add(
            name,
            None,
            f"{name}: {f'{app.branch} is ' * bool(red.reds)}{broken(red)}",
            f"{red.subject}\n{red.reason}\n\n{_until(red)}\nNext: {look(tx, red) or f'rollout why {short}'}",
        )


def _until(red: Commit) -> str:
    """What lets newer commits ship: a good one takes a red one along, but none that is barred."""
    if not red.is_barred:
        return "Nothing newer ships until a commit passes."
    return (
        f"It is barred as well: {red.barred_for}. Nothing newer ships until a commit that mends it passes, or until one passes"
        f" and a person has said `rollout unbar {red.sha[:12]} --reason …`."
    )


def red_at_last(name: str, deps: Deps) -> None:
    """As `red_branch`, when no report does it: nobody is waited for any more who could speak of what lies before the red commit."""
    app = deps.config.app(name)
    if not app.tests.external:
        return
    with deps.store.reading() as tx:
        found = _first_red(tx, app)
        if found is None or not found[1] or tx.apps.red_told(AppName(name)) == found[0].sha:
            return
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(name))
        red_branch(tx, app)


def flaky(tx: Transaction, app: AppConfig, commit: Commit, result: TestResult, reds: int) -> None:
    """Each time."""
    short = commit.sha[:12]
    if result.passed and reds:
        tx.notices.add(
            commit.app,
            None,
            f"{app.name}: commit {short} is flaky",
            f"Its tests were red {reds} of {reds + 1} times, on the same bytes. It may ship.\nNext: rollout log {short}",
        )


def slow(tx: Transaction, app: AppConfig, commit: Commit, result: TestResult) -> None:
    """When the suite becomes slow, be it on the branch or on a pull request, not at every commit; a run that passes tells."""
    if not result.passed:
        return
    short = commit.sha[:12]
    took_s, before_s = result.took_s or 0.0, tx.commits.last_took(commit.app, but=commit, pulls=True) or 0.0
    if took_s > SLOW_S >= before_s:
        faster = "Make them faster, split them, or raise tests.parallel."
        if app.tests.external:
            faster = "Make them faster, or split them into checks that run side by side."
        tx.notices.add(
            commit.app,
            None,
            f"{app.name}: the tests took {took_s / 60:.1f} min",
            f"Every commit waits for them; more than {SLOW_S / 60:.0f} min and the queue grows at a busy hour. Commit {short} is"
            f" the first one that took so long.\n{faster}",
        )
