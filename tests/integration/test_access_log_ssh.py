"""Access logs and releases through the real fleet: OpenSSH, the program installed on the host, a real clock."""

import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollout.config.settings import Settings
from rollout.domain.judge import judge
from rollout.domain.model import Answer, PrepareOrder
from rollout.domain.verdict import Policy, Status
from rollout.errors import MetricUnavailable
from rollout.fleet.ssh import SshFleet
from rollout.metrics.sources import source
from rollout.releases.workshop import GitWorkshop
from tests.support.sources import Source, an_app
from tests.support.sshd import running_sshd

pytestmark = pytest.mark.needs("sshd")


@pytest.fixture
def host(tmp_path):
    with running_sshd(tmp_path / "sshd", 1) as sshd:
        yield sshd.target()


@pytest.fixture
def fleet():
    fleet = SshFleet()
    yield fleet
    fleet.close()


def line(status, ago=0):
    return f'- - - [{datetime.now(UTC) - timedelta(seconds=ago):%d/%b/%Y:%H:%M:%S} +0000] "GET / HTTP/1.1" {status} 1 "-" "x"\n'


def test_canary_that_answers_badly_fails_by_its_log_over_ssh(host, fleet, tmp_path):
    """From lines on a host's disk to a verdict, over one warm connection."""
    log = tmp_path / "access.log"
    log.write_text(line(200, ago=60) * 100)
    config = an_app("/nowhere", log=str(log))
    access_log = source("access-log", fleet, Settings())
    intervals, cursor = access_log.read(host, "canary", config, None)
    until = time.monotonic() + 40
    while judge(intervals, Policy()).status is Status.RUNNING:
        assert time.monotonic() < until
        with log.open("a") as file:
            file.write(line(500) * 9 + line(200))
        new, cursor = access_log.read(host, "canary", config, cursor)
        intervals += new
        time.sleep(0.2)
    verdict = judge(intervals, Policy())
    assert verdict.status is Status.FAIL
    assert verdict.evidence["bad"] == 9 * (verdict.evidence["requests"] - verdict.evidence["bad"])


def test_log_that_is_not_on_the_host_is_named(host, fleet, tmp_path):
    """The error names host and path, and is not taken for an unreachable host."""
    with pytest.raises(MetricUnavailable, match=f"{host.name}: there is no access log: {tmp_path}/none"):
        source("access-log", fleet, Settings()).read(
            host, "canary", an_app("/nowhere", log=f"{tmp_path}/none"), None
        )


def test_history_over_ssh_ends_where_the_host_was_switched(host, fleet, tmp_path):
    """The old release's answers by the host's own `current`, for the canary; all ten minutes for a baseline host."""
    log, current = tmp_path / "access.log", Path(host.path) / "current"
    log.write_text(line(404, ago=700) + line(200, ago=60) * 3 + line(500, ago=10) * 2)
    current.parent.mkdir(parents=True)
    current.symlink_to("releases/new")
    os.utime(current, (time.time() - 30,) * 2, follow_symlinks=False)
    config, access_log = an_app("/nowhere", log=str(log)), source("access-log", fleet, Settings())
    past = {role: access_log.read(host, role, config, None)[0] for role in ("canary", "baseline")}
    counted = {
        role: sum((Counter(one.counts) for one in bins if one.t <= 0), Counter())
        for role, bins in past.items()
    }
    assert +counted["canary"] == {"2xx": 3}
    assert +counted["baseline"] == {"2xx": 3, "5xx": 2}
    assert len(past["baseline"]) >= 300
    assert -34 <= max(one.t for one in past["canary"]) <= -28


@pytest.mark.needs("git")
def test_built_release_is_prepared_by_a_host(host, fleet, tmp_path):
    """The digest of the build is the one that the host computes, from push to disk."""
    shop = Source(tmp_path / "shop")
    (shop.path / "data").symlink_to("../../shared/data")
    commit = shop.commit({"app.py": "print('hi')", "bin/run.sh": "#!/bin/sh\n"})
    workshop = GitWorkshop(tmp_path / "state")
    config = an_app(shop.path, build="echo built > stamp")
    workshop.fetch("shop", config)
    release, told = workshop.build("shop", config, commit)
    assert told.passed
    order = PrepareOrder(epoch=1, operation=1, release=release, keep=2, spare=())
    assert fleet.prepare(host, order, timeout_s=30, go_on=lambda: True).answer is Answer.DONE
    assert (Path(host.path) / "releases" / commit / "stamp").read_text() == "built\n"
