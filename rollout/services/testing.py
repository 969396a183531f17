"""A commit's tests and its release: claimed, done outside any transaction, reported with the claim."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.checks import Decision, Word
from rollout.domain.model import NOT_ON_BRANCH, AppName, Commit, CommitId, Release, TestResult
from rollout.domain.retry import backoff_s
from rollout.domain.states import CommitEvent, CommitState
from rollout.errors import LeaseLost, NotFound, ReleaseError, RolloutError, ServiceUnavailable, StaleWrite
from rollout.services import bars, checks, deliveries, editions, intake, planning, pulls, telling, turns
from rollout.services.ports import Deps
from rollout.store.store import Transaction

log = structlog.get_logger()
PATIENT_ATTEMPTS = 3  # a webhook may be faster than the git server's own copies
MERGED = "it was merged at this very moment: it is tested again, and built"
OTHER_BYTES = "it gives other bytes than those that were rolled out (is `release.build` the same each time?)"
FETCH_S = 20.0  # in a place for tests; what takes longer is the poll's to fetch, which holds up no other app
MOST_LOST = 5  # runs in a row that end with their worker: then it is the tests that end it


@crashpoints.stage("tests")
def run_tests(commit_id: CommitId, deps: Deps) -> None:
    """Test this commit and build its release; then see whether something can be shipped, and who is tested next."""
    with deps.store.reading() as tx:
        known = tx.commits.by_id(commit_id)
    if known is None:
        return
    app = deps.config.app(known.app)
    editions.tell_astray("tests worker", deps)
    commit = _claim(commit_id, app, deps)
    if commit is not None and _test(commit, deps):
        planning.start_next(commit.app, deps)
    turns.ring(app, deps)


def _claim(commit_id: CommitId, app: AppConfig, deps: Deps) -> Commit | None:
    crashpoints.reach("before-claim")
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app.name))
        known = tx.commits.by_id(commit_id)
        if known is None or known.is_left_out:
            return None
        if known.is_pull and not app.tests.pull_requests:
            tx.commits.current_pulls(known.app, [])
            return None
        told = (
            checks.decision(tx, app, known) if app.tests.external and not _passed_before(known, app) else None
        )
        if told is not None and told.word is Word.WAIT and known.state is CommitState.RECEIVED:
            checks.put_off(tx, app, tx.commits.lock(known.app, known.sha) or known, told.why)
            return None
        commit = tx.commits.claim_tests(
            commit_id, deps.worker, deps.settings.lease_s, parallel=app.tests.parallel
        )
        if commit is not None and told is not None and told.word is Word.FAIL:
            _refuse(tx, commit, told, deps)
            commit = None
        if commit is not None and commit.lost >= MOST_LOST:
            _give_up(tx, commit, deps)
            commit = None
        crashpoints.reach("in-claim")
    crashpoints.reach("after-claim")
    return commit


def _refuse(tx: Transaction, commit: Commit, told: Decision, deps: Deps) -> None:
    result = TestResult(passed=False, reason=told.why, output="")
    _settle(tx, commit, result=result, release=None, deps=deps, final=True, late=told.late)


def _give_up(tx: Transaction, commit: Commit, deps: Deps) -> None:
    """It takes worker after worker with it: its memory, its kernel, or its time are not what a worker survives."""
    reason = (
        f"its tests ended with their worker {commit.lost} times in a row: run them by hand on that machine"
        f" (what killed them? `dmesg`), then `rollout deploy {commit.sha[:12]}` has them run again"
    )
    result = TestResult(passed=False, reason=reason, output="")
    _settle(tx, commit, result=result, release=None, deps=deps, final=True)


def _test(commit: Commit, deps: Deps) -> bool:
    """Whether there is a result."""
    app, final = deps.config.app(commit.app), False
    with deps.leases.hold("commit", commit.id):
        try:
            result, release = _test_and_build(commit, app, deps)
        except LeaseLost:
            log.info("tests_overtaken", commit=commit.sha)
            return False
        except ServiceUnavailable as error:
            _report(commit, deps, partial(_put_off, error=error, worker=deps.worker))
            return False
        except RolloutError as error:
            result, release = TestResult(passed=False, reason=str(error), output=""), None
            final = True
    return _report(commit, deps, partial(_settle, result=result, release=release, deps=deps, final=final))


def _test_and_build(commit: Commit, app: AppConfig, deps: Deps) -> tuple[TestResult, Release | None]:
    if not commit.is_pull and not _built_before(commit):
        _on_branch(commit, app, deps)

    def go_on() -> bool:
        crashpoints.reach("tests-running")
        with deps.store.reading() as tx:
            return tx.commits.still_leased(commit)

    if _passed_before(commit, app):
        told = f"passed as pull request {commit.pull}" if _passed_as_pull(commit) else "passed before"
        tests = TestResult(True, told, commit.output, commit.took_s)
    elif app.tests.external:
        tests = _reported(commit, app, deps)
    else:
        began = time.monotonic()
        tests = deps.workshop.run_tests(app.name, app, commit.sha, go_on=go_on)
        tests = replace(tests, took_s=round(time.monotonic() - began, 3))
    crashpoints.reach("after-tests")
    if not tests.passed or (commit.is_pull and not _merged(commit, deps)):
        return tests, None
    with deps.store.reading() as tx:
        runs = tx.rollouts.newest_done(commit.app)
        needed = {*tx.rollouts.unfinished_commits(commit.app), tx.rollouts.released(commit.app) or ""}
    if runs is not None and runs.previous is not None:  # a rollback goes there, and hosts may lack it then
        needed.add(runs.previous)
    release, built = deps.workshop.build(app.name, app, commit.sha, needed)
    crashpoints.reach("after-build")
    output = f"{tests.output}\n{built.output}".strip()
    if release is None:
        return replace(tests, passed=False, reason=f"build: {built.reason}", output=output), None
    if runs is not None and runs.commit == commit.sha and runs.digest != release.digest:
        # Hosts have it, and go back to it, by the digest that was rolled out.
        return replace(tests, passed=False, reason=f"build: {OTHER_BYTES}", output=output), None
    return replace(tests, output=output), release


def _passed_as_pull(commit: Commit) -> bool:
    """Its tests were run before it was merged, and it lacks its release only: of what is not merged nothing is built."""
    return commit.pull is not None and not commit.is_pull


def _passed_before(commit: Commit, app: AppConfig) -> bool:
    """Then it lacks its release only. Where CI servers decide, the branch's checks have yet to speak of what passed as a request, unless a person has."""
    spoken = commit.unbarred or not app.tests.external
    return _built_before(commit) or (_passed_as_pull(commit) and spoken)


def _built_before(commit: Commit) -> bool:
    """It was on the branch, and passed; its archive had to make room for others."""
    return commit.digest is not None


def _merged(commit: Commit, deps: Deps) -> bool:
    with deps.store.reading() as tx:
        fresh = tx.commits.by_id(commit.id)
    return fresh is not None and not fresh.is_pull


def _reported(commit: Commit, app: AppConfig, deps: Deps) -> TestResult:
    with deps.store.reading() as tx:
        told, took_s = checks.decision(tx, app, commit), checks.took_s(tx, app, commit)
    if told.word is Word.WAIT:
        raise ServiceUnavailable(told.why)
    if told.word is Word.FAIL:  # others of its checks may go on
        return TestResult(passed=False, reason=told.why, output="")
    return TestResult(passed=True, reason=told.why, output="", took_s=took_s)


def _on_branch(commit: Commit, app: AppConfig, deps: Deps) -> None:
    """NotFound when the branch does not have the commit: what is shipped is what the branch says."""
    missing = f"{NOT_ON_BRANCH} {app.branch} of {app.repository}"
    with deps.store.reading() as tx:
        fresh, silent = tx.commits.by_id(commit.id), tx.apps.poll_failures(commit.app, silent=True) > 0
        leave_it, missed = tx.commits.any_missed(commit.app), tx.commits.any_missed(commit.app, commit.id)
    if fresh is not None and fresh.position is not None and fresh.on_branch:
        return
    if silent:  # the poll that the webhook asked for waits for it, and takes no other app's place for tests
        raise ServiceUnavailable(f"{missing} yet: the git server does not answer")
    if not leave_it:  # else heads come that the branch does not have: the poll asks for all of them together
        fresh, missed = _read_branch(commit, app, deps, f"{missing} yet"), True
    if fresh is not None and fresh.merged_into is not None:
        raise ServiceUnavailable(f"came in with {fresh.merged_into[:12]}, and is not tested by itself")
    if fresh is None or fresh.position is None or not fresh.on_branch:
        if commit.attempt < PATIENT_ATTEMPTS or not missed:
            _look(commit, deps)
            raise ServiceUnavailable(f"{missing} yet")
        raise NotFound(missing)


def _read_branch(commit: Commit, app: AppConfig, deps: Deps, missing: str) -> Commit | None:
    """What is known of the commit when git has said what the branch is."""
    try:
        intake.read_branch(app, deps, who=deps.worker, why="on the branch", limit_s=FETCH_S)
    except ServiceUnavailable as error:
        _look(commit, deps)
        raise ServiceUnavailable(f"{missing}: {error}", remedy=error.remedy) from error
    with deps.store.reading() as tx:
        return tx.commits.by_id(commit.id)


def _look(commit: Commit, deps: Deps) -> None:
    """The poll takes the time that it wants, asks once for all, and has the commit tested when it is there."""
    with deps.store.transaction() as tx:
        tx.apps.lock(commit.app)
        tx.apps.look([commit.app])


def _report(commit: Commit, deps: Deps, report: Callable[[Transaction, Commit], None]) -> bool:
    crashpoints.reach("before-report")
    try:
        with deps.store.transaction() as tx:
            tx.apps.lock(commit.app)
            report(tx, commit)
            crashpoints.reach("in-report")
    except StaleWrite:
        log.info("tests_overtaken", commit=commit.sha)
        return False
    return True


def _put_off(tx: Transaction, commit: Commit, *, error: ServiceUnavailable, worker: str) -> None:
    log.warning("tests_put_off", commit=commit.sha, error=str(error))
    wait = backoff_s(commit.attempt, first=5.0, most=300.0)
    tx.commits.change(
        commit,
        CommitEvent.TESTS_LOST,
        who=worker,
        why=str(error),
        reason=str(error),
        due_at=tx.now() + wait,
        lost=0,
        lease_owner=None,
        lease_until=None,
    )


def _settle(
    tx: Transaction,
    commit: Commit,
    *,
    result: TestResult,
    release: Release | None,
    deps: Deps,
    final: bool,
    late: bool = False,
) -> None:
    """Write what came of it. A red run is followed by another one while `tests.retries` has some left, but for a `final` one.

    `late`: nobody said red, and nobody green in time.
    """
    app = deps.config.app(commit.app)
    told = None
    if release is not None and app.tests.external and not _passed_before(commit, app):
        told = checks.decision(tx, app, tx.commits.by_id(commit.id) or commit)  # merged meanwhile, perhaps
    if told is not None and told.word is Word.WAIT:  # a run began again while it was built
        _put_off(tx, commit, error=ServiceUnavailable(told.why), worker=deps.worker)
        return
    if told is not None and told.word is Word.FAIL:  # or failed
        result, release, final, late = replace(result, passed=False, reason=told.why), None, True, told.late
    _write(tx, commit, result=result, release=release, deps=deps, final=final, late=late)
    if _passed_before(commit, app) and app.tests.external:
        checks.look_back(tx, app, commit)


def _write(
    tx: Transaction,
    commit: Commit,
    *,
    result: TestResult,
    release: Release | None,
    deps: Deps,
    final: bool,
    late: bool,
) -> None:
    app = deps.config.app(commit.app)
    fresh = tx.commits.by_id(commit.id)
    is_pull = fresh is not None and fresh.is_pull
    red = not result.passed
    reds = 0 if late else commit.reds + red
    values: dict[str, Any] = {
        "who": deps.worker,
        "why": result.reason,
        "tested_at": tx.today(),
        "output": _outputs(commit, app, result),
        "took_s": result.took_s,
        "reds": reds,
        "lost": commit.lost if final else 0,
        "lease_owner": None,
        "lease_until": None,
        "due_at": None,
    }
    if _passed_as_pull(commit):
        values["pull"] = None
    if release is None and result.passed and not is_pull:
        if not commit.is_pull:
            raise ReleaseError(f"commit {commit.sha} passed without a release")
        tx.commits.change(commit, CommitEvent.TESTS_LOST, **values | {"due_at": tx.now(), "why": MERGED})
        return
    if red and not final and reds <= app.tests.retries:
        tx.commits.change(commit, CommitEvent.TESTS_LOST, **values | {"due_at": tx.now()})
        return
    if red:
        failed = tx.commits.change(commit, CommitEvent.FAIL, reason=result.reason, digest=None, **values)
        # Else whoever has it tested again some day would ship it by that word, past the freeze of then.
        bars.end_wish(tx, fresh or commit, who=deps.worker, said=telling.verdict(failed))
        planning.tell_not_to_be_had(tx, commit, result.reason)
    else:
        _passed(tx, commit, release, values)
    if not _passed_before(commit, app):  # that was told when it passed
        telling.slow(tx, app, commit, result)
    if is_pull:
        if red and not late:
            pulls.red(tx, commit, result.reason)
        return
    deliveries.settle(tx, commit.app)
    if not commit.is_built_again:
        telling.flaky(tx, app, commit, result, reds)
    telling.red_branch(tx, app)


def _passed(tx: Transaction, commit: Commit, release: Release | None, values: dict[str, Any]) -> None:
    reason = f"flaky: it passed after {commit.reds} red run{'s' * (commit.reds > 1)}" if commit.reds else None
    digest = None if release is None else release.digest
    passed = tx.commits.change(
        commit, CommitEvent.PASS, reason=reason, digest=digest, flaky=commit.reds > 0, **values
    )
    if release is None:
        return
    tx.commits.add_release(AppName(commit.app), release)
    fresh = tx.commits.by_id(passed.id)
    assert fresh is not None
    bars.passed(tx, fresh)


def _outputs(commit: Commit, app: AppConfig, result: TestResult) -> str:
    """What this run printed, below what the red ones before it did; at most as many as tests.retries allows."""
    if not commit.reds or _passed_before(commit, app):
        return result.output
    before = commit.output or "nothing was printed"
    return f"{before}\n\n--- run {commit.reds + 1}, after a red one ---\n{result.output}"
