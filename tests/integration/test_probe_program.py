"""The program that probes an app from its host: curl, wget, BusyBox, and over real SSH."""

import shutil
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from rollout.errors import MetricUnavailable
from rollout.fleet.ssh import SshFleet
from rollout.metrics import probe
from rollout.metrics.probe import Probe
from tests.support.local_fleet import LocalFleet, a_target
from tests.support.prometheus import served
from tests.support.sources import an_app
from tests.support.sshd import running_sshd

PROGRAM = Path(probe.__file__).with_name("probe.sh")
NEEDED = ("timeout", "sed")


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.needs(name), pytest.mark.one_of(name)])
        for name in ("curl", "wget", "busybox")
    ]
)
def fleet(request, tmp_path):
    """A host that has this program, and no other."""
    if request.param == "busybox":
        box = shutil.which("busybox")
        return LocalFleet(tmp_path, [box, "sh"], [box, "awk"], box, more=(*NEEDED, "wget"))
    return LocalFleet(tmp_path, ["/bin/sh"], [shutil.which("awk")], more=(*NEEDED, request.param))


class App:
    """Answers with these statuses in turn."""

    def __init__(self, *statuses):
        self.statuses, self.asked, self.lock = statuses, [], threading.Lock()

    def respond(self, path, headers):
        with self.lock:
            self.asked.append((path, headers["User-Agent"]))
            return self.statuses[(len(self.asked) - 1) % len(self.statuses)], b"page"


def read(fleet, url, cursor=None, elapsed=0.0, role="canary"):
    return Probe(fleet).read(
        a_target(),
        role,
        an_app("/nowhere", canary={"source": "probe", "probe": url}),
        cursor,
        elapsed=elapsed,
    )


def nonzero(interval):
    return +Counter(interval.counts)


def test_program_is_clean_shell():
    """Shellcheck has nothing to say about it."""
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not here")
    assert subprocess.run(["shellcheck", "-s", "sh", PROGRAM], capture_output=True, text=True).stdout == ""


def test_four_requests_a_bin_are_counted_by_their_status(fleet):
    """Two a second, the address as it is written, and known by their agent so that no log counts them."""
    app = App(200, 404, 500, 302)
    with served(app.respond) as address:
        (one,), cursor = read(fleet, f"{address}/a?b=[c]&d={{e}}")
        fleet.now += 2
        (two,), _ = read(fleet, f"{address}/", cursor)
    assert nonzero(one) == {"2xx": 1, "3xx": 1, "4xx": 1, "5xx": 1}
    assert (one.t, one.dt, one.role, one.source, one.flags) == (2.0, 2.0, "canary", "probe", ())
    assert (two.t, sum(two.counts.values())) == (4.0, 4)
    assert {agent for _, agent in app.asked} == {"rollout-probe/1"}
    assert len({path for path, _ in app.asked[:4]}) == 1


def test_app_that_does_not_answer_has_failed(fleet):
    """It is asked from its own host: silence is its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (one,), _ = read(fleet, f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert nonzero(one) == {"5xx": 4}
    assert one.flags == ("unanswered",)


def test_app_that_hangs_has_failed_in_time(fleet):
    """All four at once: a hanging app holds the reading up for one time limit, not for four."""
    gate = threading.Event()

    def hang(_path, _headers):
        gate.wait(30)
        return 200, b""

    with served(hang) as address:
        (one,), _ = read(fleet, f"{address}/")
        gate.set()
    assert nonzero(one) == {"5xx": 4}


def test_requests_of_a_bin_are_made_side_by_side(fleet):
    """Each is answered only when all four are there."""
    together = threading.Barrier(4)

    def respond(_path, _headers):
        try:
            together.wait(1.5)
        except threading.BrokenBarrierError:
            return 500, b""
        return 200, b""

    with served(respond) as address:
        (one,), _ = read(fleet, f"{address}/")
    assert nonzero(one) == {"2xx": 4}


def test_bins_without_a_probe_are_not_observed(fleet):
    """After 9 s without a connection, and at a first reading that was late: nobody asked then."""
    with served(App(200).respond) as address:
        first, cursor = read(fleet, address, elapsed=5.0)
        fleet.now += 9
        second, cursor = read(fleet, address, cursor)
        again, _ = read(fleet, address, cursor)
    assert [(one.t, one.observed) for one in first] == [(2.0, False), (4.0, False), (6.0, True)]
    assert [(one.t, one.observed) for one in second] == [
        (t, t == 16.0) for t in (8.0, 10.0, 12.0, 14.0, 16.0)
    ]
    assert [one.t for one in again] == [18.0]  # never the same bin twice


def test_what_is_told_of_a_long_silence_is_bounded(fleet):
    """A day without a connection is not told bin by bin."""
    with served(App(200).respond) as address:
        _, cursor = read(fleet, address)
        fleet.now += 86_400
        found, _ = read(fleet, address, cursor)
    assert len(found) == probe.MOST_UNOBSERVED + 1


def test_reboot_does_not_stop_the_bins(fleet):
    """Uptime begins anew; the bins go on."""
    with served(App(200).respond) as address:
        _, cursor = read(fleet, address)
        fleet.booted = fleet.now
        found, _ = read(fleet, address, cursor)
    assert [one.t for one in found] == [4.0]


def test_host_without_curl_and_wget_is_named(tmp_path):
    """What to install is said, and that is not an app that fails."""
    fleet = LocalFleet(tmp_path, ["/bin/sh"], [shutil.which("awk")], more=NEEDED)
    with pytest.raises(MetricUnavailable, match="web001 has neither curl nor wget"):
        read(fleet, "http://127.0.0.1:9/")


class Torn:
    def read(self, target, program, lines, *, timeout_s):
        return "rollout_probe=1\nup=5\nstatus=200\n"


def test_torn_answer_is_no_data():
    """Half an answer is not an app that fails."""
    with pytest.raises(MetricUnavailable, match="came to no end"):
        read(Torn(), "http://127.0.0.1:9/")


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "3"])
def test_broken_cursor_is_an_error(fleet, text):
    """A new t = 0 would forget what was seen."""
    with served(App(200).respond) as address, pytest.raises(MetricUnavailable, match="cursor"):
        read(fleet, address, text)


@pytest.mark.needs("sshd", "curl")
def test_probe_over_real_ssh(tmp_path):
    """From the host's own shell, through the real fleet, with the real clock."""
    fleet = SshFleet()
    try:
        with running_sshd(tmp_path / "sshd", 1) as sshd, served(App(200, 500).respond) as address:
            app = an_app("/nowhere", canary={"source": "probe", "probe": f"{address}/"})
            (one,), cursor = Probe(fleet).read(sshd.target(), "canary", app, None)
            more, _ = Probe(fleet).read(sshd.target(), "canary", app, cursor)
        assert nonzero(one) == {"2xx": 2, "5xx": 2}
        assert nonzero(more[-1]) == {"2xx": 2, "5xx": 2}
    finally:
        fleet.close()
