"""Which release a host's delta goes by."""

from dataclasses import replace

import pytest

from rollout.domain.model import UNREAD, Delta
from rollout.domain.transfer import SMALL
from rollout.services import hosts
from tests.support.fakes import a_commit, a_deps, a_rollout


@pytest.fixture
def prepared(tmp_path):
    """Prepares the first host of a rollout; what the workshop was asked, and the order that the fleet got."""

    def prepare(*, size=SMALL, runs="previous"):
        deps = a_deps(tmp_path)
        asked, orders = [], []
        previous, other, commit = (a_commit(deps) for _ in range(3))
        rollout = a_rollout(deps, commit=commit, previous=previous.sha)
        with deps.store.transaction() as tx:
            for one in (previous, other, commit):
                release = tx.commits.release("shop", one.sha)
                tx.commits.add_release("shop", replace(release, size=size))
            host = tx.hosts.of(rollout.id)[0]
            recorded = {"previous": previous.sha, "other": other.sha}.get(runs, runs)
            tx.fleet.runs(host, recorded)

        def delta(app, base, target):
            asked.append((app, {previous.sha: "previous", other.sha: "other"}[base.commit]))
            assert target.commit == commit.sha
            return Delta(base.commit, base.digest, "/nowhere/delta", 10)

        def send(target, order, *, timeout_s, go_on, real=deps.fleet.prepare):
            orders.append(order)
            return real(target, order, timeout_s=timeout_s, go_on=go_on)

        deps.workshop.delta, deps.fleet.prepare = delta, send
        hosts.prepare(host.rollout, host.id, deps)
        with deps.store.reading() as tx:
            assert tx.hosts.get(host.id).state == "prepared"
        return asked, orders[0].delta

    return prepare


@pytest.mark.parametrize(
    ("runs", "base"),
    [
        ("previous", "previous"),
        ("other", "other"),
        (None, "previous"),
        (UNREAD, "previous"),
        ("foreign", "previous"),
    ],
)
def test_the_base_is_what_the_host_runs(prepared, runs, base):
    """As recorded; where nobody knows, what the fleet runs (the host looks for itself before it takes a delta)."""
    asked, delta = prepared(runs=runs)
    assert asked == [("shop", base)]
    assert delta.size == 10


def test_a_small_release_asks_for_nothing(prepared):
    """Below the threshold nothing is looked up: the hot path of small releases stays what it was."""
    assert prepared(size=SMALL - 1) == ([], None)


def test_a_host_that_runs_what_nobody_built_gets_the_archive(prepared):
    """Without a known base there is no delta."""
    assert prepared(runs="e" * 40) == ([], None)
