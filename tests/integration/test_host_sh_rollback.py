"""host.sh: the way back."""

import pytest

from tests.support.host_sh import DONE, FAILED, REFUSED, A, B, a_release, hosts
from tests.support.processes import until

host = hosts()
OLD, NEW = a_release(A), a_release(B)


@pytest.fixture
def running(host):
    """A host that runs NEW and had OLD before."""
    for op, release in enumerate((OLD, NEW), 1):
        host.prepare(release, op=op * 2 - 1)
        assert host.activate(release, op=op * 2).code == DONE
    return host


def test_rollback_switches_restarts_and_checks(running):
    """The old release is current again, restarted in its folder and healthy."""
    reply = running.roll_back(OLD, op=5, restart='echo "restart $COMMIT"', health='echo "health $COMMIT"')
    assert (reply.code, reply["already"], reply["switched"], reply["current"]) == (DONE, None, "yes", A)
    assert reply.output == f"restart {A}\nhealth {A}"
    assert running.current == f"releases/{A}"
    assert running.story()[-2:] == [(5, "intent"), (5, "done")]


def test_a_host_that_is_back_already_is_left_alone(running):
    """The second rollback says `already`, runs nothing, and its numbers count all the same."""
    running.roll_back(OLD, op=5)
    reply = running.roll_back(OLD, op=6, epoch=4, restart="exit 1")
    assert (reply.code, reply["already"], reply["switched"], reply.output) == (DONE, "yes", "no", "")
    assert running.status()["epoch"] == "4"
    assert running.roll_back(NEW, op=6, epoch=4)["already"] == "yes"  # the recorded answer of operation 6


def test_a_release_that_was_put_back_in_good_health_is_already_there(running):
    """After an unhealthy activation that was put back, a rollback has nothing to do."""
    running.roll_back(OLD, op=5)
    failed = running.activate(NEW, op=6, health=f"test $COMMIT = {A}", health_timeout=1)
    assert failed["put_back"] == "yes"
    assert running.roll_back(OLD, op=7)["already"] == "yes"


def test_an_open_intent_is_not_skipped(running):
    """When an activation was killed while it put back, `current` says old but nobody knows what runs: do it."""
    running.roll_back(OLD, op=5)
    waits = running.shadows / "put-back-waits"
    health = f'test $COMMIT = {B} && exit 1; echo $$ >"{waits}"; sleep 60'
    talk = running.ask("activate", NEW, op=6, health=health, health_timeout=1).within()
    until(waits.exists, what="the old release is being checked")
    talk.kill()
    running.quiet()
    assert running.current == f"releases/{A}"
    status = running.status(op_asked=6)
    assert (status["asked"], status["running"], status["current"]) == ("back", "no", A)
    reply = running.roll_back(OLD, op=7, restart="echo yes")
    assert (reply["already"], reply.output, reply.code) == (None, "yes", DONE)


def test_a_rollback_to_nothing_removes_the_link(running):
    """With no release before ours `current` goes, and nothing is run."""
    reply = running.roll_back("none", op=5, restart="echo never", health="exit 1")
    assert (reply.code, reply["current"], reply.output) == (DONE, "none", "")
    assert not (running.root / "current").is_symlink()
    assert running.roll_back("none", op=6)["already"] == "yes"


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("is_link", [True, False], ids=["link", "folder"])
def test_a_rollback_to_nothing_leaves_what_was_put_there_by_hand(running, is_link, interrupted):
    """It takes our release away, and that is not in use any more: whatever runs by now starts from the same place again."""
    if interrupted:
        running.activate(OLD, op=5, health="exit 1", restart="exit 1", health_timeout=1)
    elsewhere, current = running.root.parent / "else where", running.root / "current"
    elsewhere.mkdir()
    current.unlink()
    if is_link:
        current.symlink_to(elsewhere)
    else:
        current.mkdir()
    reply = running.roll_back("none", op=6, restart="echo never")
    assert (reply.code, reply["already"], reply["current"], reply.output) == (DONE, "yes", "foreign", "")
    assert current.resolve() == (elsewhere if is_link else current)
    assert running.roll_back("none", op=7)["already"] == "yes"


def test_a_rollback_to_a_foreign_link_restores_it(host):
    """The link that was there before us is there again, and restart runs where it leads."""
    elsewhere = host.root.parent / "else where"
    elsewhere.mkdir()
    (host.root / "current").symlink_to(elsewhere)
    for op, release in enumerate((OLD, NEW), 1):
        host.prepare(release, op=op * 2 - 1)
        host.activate(release, op=op * 2)
    reply = host.roll_back("foreign", op=5, restart="pwd -P")
    assert (reply.code, reply["current"], reply.output) == (DONE, "foreign", str(elsewhere))
    assert host.current == str(elsewhere)


def test_a_foreign_link_that_nobody_remembers_is_refused(running):
    """Without a remembered link there is nothing to restore."""
    assert running.roll_back("foreign", op=5).brief == (REFUSED, "not prepared")
    assert running.current == f"releases/{B}"


def test_a_target_that_is_gone_is_refused(running):
    """A rollback never guesses another release."""
    (running.root / "releases" / A).rename(running.root / "releases" / "moved")
    assert running.roll_back(OLD, op=5).brief == (REFUSED, "not prepared")


def test_a_refused_way_back_may_come_again_with_its_number(running):
    """A refusal is in no journal: when the target has been brought, in the name of the same order, that order is carried out."""
    (running.root / "releases" / A).rename(running.root.parent / "moved")
    assert running.roll_back(OLD, op=5).brief == (REFUSED, "not prepared")
    assert running.prepare(OLD, op=5).code == DONE
    assert (running.roll_back(OLD, op=5)["current"], running.current) == (A, f"releases/{A}")


def test_a_target_that_was_changed_on_the_disk_is_refused(running):
    """The digest of the target is computed again before the switch."""
    (running.root / "releases" / A / "app").write_text("tampered")
    assert running.roll_back(OLD, op=5).brief == (REFUSED, "digest")
    assert running.current == f"releases/{B}"


def test_who_does_not_know_what_was_there_goes_by_what_the_host_knows(running):
    """Without a digest the target is what the host prepared it as, or is refused: a machine may come with another store's release."""
    target = running.root / "releases" / A / "app"
    was = target.read_text()
    target.write_text("tampered")
    assert running.roll_back(OLD, op=5, digest="").brief == (REFUSED, "digest")
    target.write_text(was)
    assert running.roll_back(OLD, op=6, digest="").code == DONE
    assert running.current == f"releases/{A}"


def test_an_unhealthy_target_stays(running):
    """A rollback never switches forward again; it has failed, and trying again runs it again."""
    reply = running.roll_back(OLD, op=5, health="exit 1", health_timeout=1)
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "no", A)
    again = running.roll_back(OLD, op=6, health="echo better")
    assert (again.code, again["already"], again.output) == (DONE, None, "better")


def test_rollback_needs_no_prepare_of_its_own(running):
    """It works in both directions, over and over."""
    for op, release in enumerate((OLD, NEW, OLD, NEW, OLD), 5):
        assert running.roll_back(release, op=op).code == DONE
        assert running.current == f"releases/{release.commit}"
