"""host.sh: the switch, and what happens when the new release is not healthy."""

import pytest

from tests.support.host_sh import BROKEN, DONE, FAILED, REFUSED, A, B, C, a_release, hosts
from tests.support.processes import until

host = hosts("dash", "busybox", "bash")
OLD, NEW, NEWEST = a_release(A), a_release(B), a_release(C)
ONLY_OLD_IS_HEALTHY = f'test "$COMMIT" = {A}'


@pytest.fixture
def running(host):
    """A host that runs OLD and has NEW prepared."""
    host.prepare(OLD, op=1)
    assert host.activate(OLD, op=2).code == DONE
    host.prepare(NEW, op=3)
    return host


def test_the_first_activation_switches(host):
    """`current` becomes the release, in the words of docs/host.md."""
    host.prepare(OLD, op=1)
    reply = host.activate(OLD, op=2)
    assert [key for key, _ in reply.pairs] == [
        "clock",
        "boot",
        "current",
        "switched",
        "intent",
        "switched",
        "put_back",
        "current",
        "end",
    ]
    assert (reply["intent"], reply["switched"], reply["put_back"], reply.code) == ("yes", "yes", "no", DONE)
    assert reply.pairs[2] == ("current", "none")
    assert reply["current"] == A
    assert host.current == f"releases/{A}"
    assert host.story() == [(2, "intent"), (2, "done")]
    assert reply.stderr == ""


def test_every_record_carries_its_numbers(running):
    """Intent and outcome say operation, epoch, what, from where to where, when, in which boot, for which host."""
    running.activate(NEW, op=8, epoch=7)
    intent, done = running.records()[-2:]
    for record in (intent, done):
        assert {"op": "8", "epoch": "7", "verb": "activate", "commit": B, "from": A}.items() <= record.items()
        assert record["host"] == "web1.example"
        assert record["clock"].isdigit()
        assert len(record["boot"]) == 36
    assert (intent["what"], done["what"]) == ("intent", "done")


def test_restart_and_health_run_in_the_release(running):
    """Both have RELEASE, COMMIT and HOST, the release as their folder, and nothing on standard input."""
    say = 'echo "$RELEASE $COMMIT $HOST $(pwd -P)"; cat'
    reply = running.activate(NEW, op=4, restart=say, health=say)
    release = f"{running.root}/releases/{B}"
    line = f"{release} {B} web1.example {release}"
    assert reply.output == f"{line}\n{line}"


def test_the_callers_locale_is_given_back_to_commands(running):
    """Our LC_ALL=C is ours: an app that is started by `restart` does not inherit it."""
    assert running.activate(NEW, op=4, restart='echo "locale=${LC_ALL-none}"').output == "locale=none"


def test_a_command_may_have_several_lines(running):
    """A repeated key is a further line of the same command, passed as it is."""
    lines = ["for x in 'a  b' \"$(echo c)\"; do", '  echo "<$x>"', "done", "# $(exit 3)"]
    assert running.activate(NEW, op=4, restart=lines).output == "<a  b>\n<c>"


def test_an_unhealthy_release_is_put_back(running):
    """The old release is back, restarted there, and the operation has failed."""
    reply = running.activate(
        NEW, op=4, restart="echo started $COMMIT", health=ONLY_OLD_IS_HEALTHY, health_timeout=1
    )
    assert reply.brief == (FAILED, "unhealthy")
    assert (reply["switched"], reply["put_back"], reply["current"]) == ("yes", "yes", A)
    assert running.current == f"releases/{A}"
    started = [line for line in reply.output.splitlines() if line.startswith("started")]
    assert started == [f"started {B}", f"started {A}"]
    assert running.story()[-3:] == [(4, "intent"), (4, "back"), (4, "failed")]


def test_an_unhealthy_release_is_put_back_where_the_order_says(running):
    """What runs is what the host should have left: it goes to `back`, and has not run its way there again."""
    running.prepare(NEWEST, op=4)
    assert running.activate(NEW, op=5).code == DONE
    reply = running.activate(
        NEWEST, op=6, restart="echo started $COMMIT", health=ONLY_OLD_IS_HEALTHY, health_timeout=1, back=A
    )
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "yes", A)
    assert f"started {B}" not in reply.output


def test_what_is_not_there_any_more_is_not_put_back(running):
    """`back` names a release that the host has not kept: the unhealthy one stays, and the journal is open."""
    reply = running.activate(NEW, op=4, health=ONLY_OLD_IS_HEALTHY, health_timeout=0, back=C)
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "no", B)
    assert running.roll_back(OLD, op=5).code == DONE


def test_a_restart_that_fails_is_unhealthy(running):
    """An exit status other than zero puts the old release back, and the output says which."""
    reply = running.activate(NEW, op=4, restart=f"{ONLY_OLD_IS_HEALTHY} || {{ echo no; exit 3; }}")
    assert reply.brief == (FAILED, "unhealthy")
    assert reply["put_back"] == "yes"
    assert reply.output == f"no\nrollout: restart in {B} ended with status 3 (limit 30 s)"


def test_health_is_tried_until_it_succeeds(running):
    """A health check that fails at first is tried again within its time."""
    slow = "echo x >>../../tries; test $(wc -l <../../tries) -ge 3"
    assert running.activate(NEW, op=4, health=slow).code == DONE


def test_with_nothing_before_an_unhealthy_release_leaves_nothing(host):
    """The very first release, when unhealthy, is taken out of `current`."""
    host.prepare(NEW, op=1)
    reply = host.activate(NEW, op=2, restart="exit 1")
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "yes", "none")
    assert host.current is None
    assert not (host.root / "current").is_symlink()


def test_what_was_put_back_may_be_unhealthy_too(running):
    """Then it stays, the operation has failed, and a later rollback to it is not skipped."""
    reply = running.activate(NEW, op=4, restart="exit 1")
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "yes", A)
    assert "not known to be healthy" in reply.output
    again = running.roll_back(OLD, op=5, restart="echo again")
    assert (again.code, again["already"], again.output) == (DONE, None, "again")


def test_a_foreign_link_is_remembered_and_put_back(host):
    """Whatever link somebody else made is restored as it was, blanks and all."""
    elsewhere = host.root / "old app"
    elsewhere.mkdir()
    (host.root / "current").symlink_to("old app")
    host.prepare(NEW, op=1)
    reply = host.activate(NEW, op=2, restart=f'echo "$COMMIT in $RELEASE"; test $COMMIT != {B}')
    assert reply.pairs[2] == ("current", "foreign")
    assert (reply.brief, reply["current"]) == ((FAILED, "unhealthy"), "foreign")
    assert host.current == "old app"
    assert f"foreign in {elsewhere}" in reply.output


def test_a_link_to_nowhere_is_foreign(host):
    """A dangling link is none of our releases, and comes back like any other."""
    (host.root / "current").symlink_to("/nowhere/at all")
    assert host.call("hello")["current"] == "foreign"
    host.prepare(NEW, op=1)
    assert host.activate(NEW, op=2, restart="exit 1")["current"] == "foreign"
    assert host.current == "/nowhere/at all"


def test_a_current_that_is_a_folder_is_left_alone(host):
    """A folder called `current` is not ours to replace."""
    (host.root / "current").mkdir()
    host.prepare(NEW, op=1)
    assert host.activate(NEW, op=2).brief == (BROKEN, "current is no link")
    assert (host.root / "current").is_dir()
    assert host.story() == []


def test_releases_may_lie_on_another_disk(host):
    """`releases` may be a link, and the path itself may go through one."""
    (host.root / "disk").mkdir()
    (host.root / "releases").symlink_to(host.root / "disk")
    host.prepare(NEW, op=1)
    assert host.activate(NEW, op=2)["current"] == B
    assert host.call("hello")["current"] == B


@pytest.mark.parametrize("broken", ["folder", "digest"])
def test_what_was_not_prepared_is_refused(running, broken):
    """Without its folder or its remembered digest a release is not switched to."""
    if broken == "folder":
        (running.root / "releases" / B).rename(running.root / "releases" / "moved")
    else:
        (running.fence / "digests" / B).unlink()
    reply = running.activate(NEW, op=4)
    assert reply.brief == (REFUSED, "not prepared")
    assert reply["intent"] is None
    assert running.current == f"releases/{A}"


def test_another_digest_than_prepared_is_refused(running):
    """What was tested is what is activated, or nothing is."""
    other = a_release(B, {"app": "another build"})
    assert running.activate(other, op=4).brief == (REFUSED, "digest")
    assert running.current == f"releases/{A}"
    assert running.story()[-1] == (2, "done")


def test_a_second_attempt_on_the_same_release_restarts_it(running):
    """Attempt 2 has new numbers; that `current` is the release already does not spare it restart and health."""
    running.activate(NEW, op=4)
    reply = running.activate(NEW, op=5, epoch=2, restart="echo restarted")
    assert (reply.code, reply["switched"], reply.output) == (DONE, "yes", "restarted")


def test_a_second_attempt_is_put_back_to_what_was_there_before_the_first(running):
    """After an attempt that was killed behind its switch, an unhealthy second one goes back to the old release."""
    first = running.ask("activate", NEW, op=4, restart="touch ../../here; sleep 60").within()
    until((running.root / "here").exists, what="the restart runs")
    first.kill()
    running.quiet()
    assert running.current == f"releases/{B}"
    reply = running.activate(NEW, op=5, epoch=2, restart=ONLY_OLD_IS_HEALTHY)
    assert (reply["put_back"], reply["current"]) == ("yes", A)


def test_a_release_that_ran_well_is_not_put_back_to_its_own_past(running):
    """Activating what runs well already, and failing, leaves it where it was: there was nothing else."""
    running.activate(NEW, op=4)
    reply = running.activate(NEW, op=5, restart="exit 1")
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "no", B)
