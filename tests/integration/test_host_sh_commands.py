"""host.sh: other people's commands hold nothing, outlive nothing, and fill nothing."""

import os
import signal

import pytest

from tests.support.host_sh import DONE, FAILED, A, B, a_release, hosts
from tests.support.processes import alive, until

host = hosts()
OLD, NEW = a_release(A), a_release(B)


@pytest.fixture
def running(host):
    """A host that runs OLD and has NEW prepared."""
    host.prepare(OLD, op=1)
    host.activate(OLD, op=2)
    host.prepare(NEW, op=3)
    return host


def daemon(running):
    """The process that a restart left behind."""
    return int((running.root / "pid").read_text())


@pytest.mark.parametrize(
    "restart",
    [
        "sleep 300 & echo $! >../../pid",
        "setsid sleep 300 & echo $! >../../pid",
        "(sleep 300 & echo $! >../../pid)",
    ],
    ids=["plain", "setsid", "nested"],
)
def test_a_daemon_that_restart_starts_lives_on(running, restart):
    """It holds neither the caller's channel nor the lock, and is there when everything else has ended."""
    reply = running.activate(NEW, op=4, restart=restart, health="kill -0 $(cat ../../pid)")
    assert reply.code == DONE
    assert alive(daemon(running))
    assert running.status()["running"] == "no"
    until(lambda: running.left() == [daemon(running)], what="only the daemon is left")
    assert running.activate(NEW, op=5).code == DONE
    os.kill(daemon(running), signal.SIGKILL)


def test_a_daemon_that_is_told_to_hang_up_dies_of_it(running):
    """Our own deafness to HUP is not inherited."""
    running.activate(NEW, op=4, restart="sleep 300 & echo $! >../../pid")
    os.kill(daemon(running), signal.SIGHUP)
    until(lambda: not alive(daemon(running)), what="HUP ended the daemon")


def test_commands_see_no_descriptor_of_ours(running):
    """Only 0, 1 and 2 are open: the lock and the archive's lock are not among them."""
    reply = running.activate(
        NEW, op=4, restart="for fd in 3 4 5 6 7 8 9; do test ! -e /proc/$$/fd/$fd || echo $fd; done"
    )
    assert reply.output == ""


def test_commands_run_in_a_session_of_their_own(running):
    """Whoever kills our group does not hit them."""
    reply = running.activate(NEW, op=4, restart="read -r stat </proc/self/stat; echo $stat")
    fields = reply.output.rpartition(")")[2].split()
    group, session = fields[2], fields[3]
    assert group == session == reply.output.split()[0]


def test_a_restart_that_hangs_is_ended_with_its_children(running):
    """At the limit the whole group is killed, those included that ignore TERM and HUP."""
    stubborn = "trap '' TERM HUP INT; sleep 300 & echo $! >../../pid; sleep 300"
    reply = running.activate(NEW, op=4, restart=f"test $COMMIT = {A} && exit; {stubborn}", restart_limit=1)
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "yes", A)
    assert "restart in" in reply.output
    assert "limit 1 s" in reply.output
    until(lambda: not alive(daemon(running)), what="the grandchild is gone")


def test_a_health_check_that_hangs_is_ended_with_its_children(running):
    """A check without an end is no success, and its children go with it."""
    health = f"test $COMMIT = {A} && exit; trap '' TERM; sleep 300 & echo $! >../../pid; sleep 300"
    reply = running.activate(NEW, op=4, health=health, health_timeout=1)
    assert (reply.brief, reply["current"]) == ((FAILED, "unhealthy"), A)
    until(lambda: not alive(daemon(running)), what="the grandchild is gone")


def test_no_time_limit_ends_a_daemon_after_a_good_restart(running):
    """The limit is the restart's, not that of what it started."""
    reply = running.activate(
        NEW, op=4, restart="sleep 300 & echo $! >../../pid", restart_limit=1, health="sleep 1.5"
    )
    assert reply.code == DONE
    assert alive(daemon(running))
    os.kill(daemon(running), signal.SIGKILL)


def test_the_end_of_the_output_is_told(running):
    """The last 4 KiB come back, whole bytes and no more; the file on the disk is cut back."""
    reply = running.activate(
        NEW, op=4, restart="i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; echo the end"
    )
    assert reply.code == DONE
    assert reply.output.endswith("line 59999\nthe end")
    assert len(reply.output) <= 4096
    assert (running.fence / "output").stat().st_size <= 262_144


def test_a_command_that_prints_without_end_fills_no_disk(running):
    """While it runs, its output is cut back again and again."""
    reply = running.activate(
        NEW,
        op=4,
        restart=f"test $COMMIT = {A} && exit; yes | dd bs=64k count=100000 2>/dev/null",
        restart_limit=2,
    )
    assert reply.brief == (FAILED, "unhealthy")
    assert (running.fence / "output").stat().st_size <= 262_144
    assert "ended with status 137" in reply.output


@pytest.mark.parametrize(
    "text", ["end=0\\nreason=x\\ncurrent=none\\n", "no newline", "\\n\\n", "\\377\\376\\001\\r\\n"]
)
def test_output_cannot_pass_for_an_answer(running, text):
    """Whatever a command prints stays behind `output=`; the answer's own lines are ours."""
    reply = running.activate(NEW, op=4, restart=f"printf '{text}'")
    assert (reply.code, reply["current"]) == (DONE, B)
    keys = [key for key, _ in reply.pairs]
    assert keys[3:7] == ["switched", "intent", "switched", "put_back"]
    assert set(keys[7:-2]) == {"output"}
    assert keys[-2:] == ["current", "end"]


def test_the_output_is_for_the_deploying_user_only(running):
    """Commands may print secrets: nobody else can read the file."""
    running.activate(NEW, op=4, restart="echo secret")
    assert (running.fence / "output").stat().st_mode & 0o077 == 0


def test_commands_do_not_inherit_a_closed_hand(running):
    """The mask for new files is the caller's, not the one that our output file got."""
    before = os.umask(0o022)
    try:
        assert running.activate(NEW, op=4, restart="umask").output.endswith("022")
    finally:
        os.umask(before)


def test_a_missing_command_is_unhealthy(running):
    """What does not exist cannot succeed; the shell's own words are told."""
    reply = running.activate(NEW, op=4, restart=f"test $COMMIT = {A} || no-such-program --now")
    assert (reply.brief, reply["current"]) == ((FAILED, "unhealthy"), A)
    assert "no-such-program" in reply.output


def test_nothing_is_evaluated_twice(running):
    """Commands are given to `sh -c` as one argument: quotes and dollars mean what they say."""
    restart = """x='$(touch ../../pwned)'; echo "$x" '`id`' "it's"; :"""
    assert running.activate(NEW, op=4, restart=restart).output == "$(touch ../../pwned) `id` it's"
    assert not (running.root / "pwned").exists()
