"""Access logs and releases through the real fleet: OpenSSH, the program installed on the host, a real clock."""

import time
from datetime import UTC, datetime
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


def line(status):
    return f'- - - [{datetime.now(UTC):%d/%b/%Y:%H:%M:%S} +0000] "GET / HTTP/1.1" {status} 1 "-" "x"\n'


def test_canary_that_answers_badly_fails_by_its_log_over_ssh(host, fleet, tmp_path):
    """From lines on a host's disk to a verdict, over one warm connection."""
    log = tmp_path / "access.log"
    log.write_text(line(200) * 100)
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
    assert verdict.evidence["good"] * 9 == verdict.evidence["requests"] - verdict.evidence["good"]


def test_log_that_is_not_on_the_host_is_named(host, fleet, tmp_path):
    """The error names host and path, and is not taken for an unreachable host."""
    with pytest.raises(MetricUnavailable, match=f"{host.name}: there is no access log: {tmp_path}/none"):
        source("access-log", fleet, Settings()).read(
            host, "canary", an_app("/nowhere", log=f"{tmp_path}/none"), None
        )


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
