"""host.sh: old releases go, the ones that somebody may need stay."""

import os

import pytest

from tests.support.host_sh import DONE, REFUSED, a_release, hosts
from tests.support.processes import until

host = hosts()
RELEASES = {digit: a_release(digit * 40) for digit in "0123456789"}


def prepared(host, digits, *, keep=100):
    """These releases, the last one the newest."""
    for age, digit in enumerate(digits):
        release = RELEASES[digit]
        assert host.prepare(release, op=age + 1, keep=keep).code == DONE
        os.utime(host.fence / "digests" / release.commit, (1_000_000 + age, 1_000_000 + age))


def names(host):
    """What is there, a digit for a release."""
    return "".join(sorted(name[0] if len(name) == 40 else f"<{name}>" for name in host.releases))


def test_the_newest_are_kept(host):
    """By the time they came to the host; their digests go with the others."""
    prepared(host, "94185")
    reply = host.call("clean", {"keep": 2})
    assert (reply.code, reply["removed"]) == (DONE, "3")
    assert names(host) == "58"
    assert sorted(entry.name[0] for entry in (host.fence / "digests").iterdir()) == ["5", "8"]


def test_current_previous_and_spared_ones_stay(host):
    """They count as kept, and stay even when they are more than `keep`."""
    prepared(host, "123456")
    host.activate(RELEASES["2"], op=10)
    host.activate(RELEASES["1"], op=11)
    assert host.call("clean", {"keep": 2, "spare": ["3" * 40, "8" * 40]})["removed"] == "3"
    assert names(host) == "123"


def test_spared_ones_leave_room_for_the_newest(host):
    """`keep` is how many there are in all."""
    prepared(host, "123456")
    host.activate(RELEASES["1"], op=10)
    host.call("clean", {"keep": 3})
    assert names(host) == "156"


def test_prepare_cleans_as_well(host):
    """The release that just came is one of the newest; old ones go at once."""
    prepared(host, "12345")
    host.prepare(RELEASES["6"], op=10, keep=2, spare=["1" * 40])
    assert names(host) == "16"


def test_a_release_that_is_asked_for_again_is_the_newest(host):
    """`send=no` makes it young, so that it is not cleaned away before its activation."""
    prepared(host, "123")
    host.prepare(RELEASES["1"], op=10)
    host.call("clean", {"keep": 1})
    assert names(host) == "1"


def test_what_was_never_finished_goes_first(host):
    """A folder without a digest, leftovers of deletions and of killed prepares are removed; other people's are not."""
    prepared(host, "12")
    (host.root / "releases" / ("9" * 40)).mkdir()
    (host.root / "releases" / ".old-77" / ("8" * 40)).mkdir(parents=True)
    (host.root / "releases" / ".new-77").mkdir()
    (host.root / "releases" / "mine").mkdir()
    host.call("clean", {"keep": 5})
    assert names(host) == "12<mine>"


def test_an_empty_host_is_clean(host):
    """Nothing to remove is no failure."""
    assert host.call("clean", {"keep": 2}).lines == ["removed=0", "end=0"]


@pytest.mark.parametrize("keys", [{}, {"keep": 0}, {"keep": 2, "spare": "mine"}])
def test_cleaning_without_saying_what_stays_is_refused(host, keys):
    """`keep` is needed, and what is spared are commits."""
    prepared(host, "1")
    assert host.call("clean", keys).brief == (REFUSED, "bad input")
    assert names(host) == "1"


def test_cleaning_waits_for_an_operation(host):
    """It takes the lock like everything that changes a host, so nothing goes away under a switch."""
    prepared(host, "123")
    go = host.root / "go"
    restart = f'touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    talk = host.ask("activate", RELEASES["1"], op=10, restart=restart).within()
    until((host.root / "here").exists, what="the restart runs")
    tries = host.root / "tries"
    host.shadow("flock", f'echo x >>"{tries}"; exec "$real" "$@"')
    clean = host.start("clean", {"keep": 1})
    until(tries.exists, what="clean asks for the lock")
    assert names(host) == "123"
    go.touch()
    assert talk.reply().code == DONE
    assert clean.reply()["removed"] == "2"
    assert names(host) == "1"
