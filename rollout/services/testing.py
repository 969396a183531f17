"""A commit's tests and its release: claimed, done outside any transaction, reported with the claim."""

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName, Commit, CommitId, Release, TestResult
from rollout.domain.retry import backoff_s
from rollout.domain.states import CommitEvent
from rollout.errors import LeaseLost, NotFound, ReleaseError, RolloutError, ServiceUnavailable, StaleWrite
from rollout.services import intake, planning
from rollout.services.ports import Deps
from rollout.store.store import Transaction

log = structlog.get_logger()
PATIENT_ATTEMPTS = 3  # a webhook may be faster than the git server's own copies


@crashpoints.stage("tests")
def run_tests(commit_id: CommitId, deps: Deps) -> None:
    """Test this commit and build its release; then see whether something can be shipped."""
    commit = _claim(commit_id, deps)
    if commit is not None and _test(commit, deps):
        planning.start_next(commit.app, deps)


def _claim(commit_id: CommitId, deps: Deps) -> Commit | None:
    crashpoints.reach("before-claim")
    with deps.store.transaction() as tx:
        commit = tx.commits.claim_tests(commit_id, deps.worker, deps.settings.lease_s)
        crashpoints.reach("in-claim")
    crashpoints.reach("after-claim")
    return commit


def _test(commit: Commit, deps: Deps) -> bool:
    """Whether there is a result."""
    app = deps.config.app(commit.app)
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
    return _report(commit, deps, partial(_settle, result=result, release=release, worker=deps.worker))


def _test_and_build(commit: Commit, app: AppConfig, deps: Deps) -> tuple[TestResult, Release | None]:
    _on_branch(commit, app, deps)

    def go_on() -> bool:
        crashpoints.reach("tests-running")
        with deps.store.reading() as tx:
            return tx.commits.still_leased(commit)

    tests = deps.workshop.run_tests(app.name, app, commit.sha, go_on=go_on)
    crashpoints.reach("after-tests")
    if not tests.passed:
        return tests, None
    release, built = deps.workshop.build(app.name, app, commit.sha)
    crashpoints.reach("after-build")
    output = f"{tests.output}\n{built.output}".strip()
    if release is None:
        return TestResult(passed=False, reason=f"build: {built.reason}", output=output), None
    return TestResult(passed=True, reason=tests.reason, output=output), release


def _on_branch(commit: Commit, app: AppConfig, deps: Deps) -> None:
    """NotFound when the branch does not have the commit: what is shipped is what the branch says."""
    with deps.store.reading() as tx:
        fresh = tx.commits.by_id(commit.id)
    if fresh is not None and fresh.position is not None and fresh.on_branch:
        return
    intake.read_branch(app, deps, who=deps.worker, why="on the branch")
    with deps.store.reading() as tx:
        fresh = tx.commits.by_id(commit.id)
    if fresh is None or fresh.position is None or not fresh.on_branch:
        missing = f"not on branch {app.branch} of {app.repository}"
        if commit.attempt < PATIENT_ATTEMPTS:
            raise ServiceUnavailable(f"{missing} yet")
        raise NotFound(missing)


def _report(commit: Commit, deps: Deps, report: Callable[[Transaction, Commit], None]) -> bool:
    crashpoints.reach("before-report")
    try:
        with deps.store.transaction() as tx:
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
        lease_owner=None,
        lease_until=None,
    )


def _settle(
    tx: Transaction, commit: Commit, *, result: TestResult, release: Release | None, worker: str
) -> None:
    values: dict[str, Any] = {
        "who": worker,
        "why": result.reason,
        "tested_at": tx.today(),
        "output": result.output,
        "lease_owner": None,
        "lease_until": None,
        "due_at": None,
    }
    if release is None:
        if result.passed:
            raise ReleaseError(f"commit {commit.sha} passed without a release")
        tx.commits.change(commit, CommitEvent.FAIL, reason=result.reason, **values)
        return
    tx.commits.add_release(AppName(commit.app), release)
    passed = tx.commits.change(commit, CommitEvent.PASS, reason=None, digest=release.digest, **values)
    fresh = tx.commits.by_id(passed.id)
    if fresh is not None and fresh.bar_wanted is not None:
        tx.commits.change(fresh, CommitEvent.BAR, who="bar", why=fresh.bar_wanted, reason=fresh.bar_wanted)
