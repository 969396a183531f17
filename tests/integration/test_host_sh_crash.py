"""host.sh: killed, cut off, without room or rebooted, it leaves a state that `status` reads truthfully."""

import contextlib
import os
import signal
import subprocess

import pytest

from tests.support.host_sh import BROKEN, DONE, FAILED, A, B, Host, a_release, hosts, shell
from tests.support.processes import until

host = hosts()
OLD, NEW = a_release(A), a_release(B)


@pytest.fixture
def running(host):
    """A host that runs OLD and has NEW prepared."""
    host.prepare(OLD, op=1)
    host.activate(OLD, op=2)
    host.prepare(NEW, op=3)
    return host


def kill_at(running, tool, when, *, after=False, **keys):
    """Kill -9 of a whole activation (operation 4) before or after a tool has done its work."""
    waits = running.stop_at(tool, when=when, after=after)
    talk = running.ask("activate", NEW, op=4, **keys).within()
    until(waits.exists, what=f"{tool} was reached")
    os.killpg(talk.process.pid, signal.SIGKILL)
    talk.kill()
    running.unshadow()
    running.end_all()
    running.quiet()


def facts(running):
    """What a status says of operation 4."""
    reply = running.status(op_asked=4)
    return reply["asked"], reply["running"], reply["current"]


MOMENTS = [
    pytest.param("sync", "*journal*", False, ("intent", "no", A), id="before the intent is synced"),
    pytest.param("sync", "*journal*", True, ("intent", "no", A), id="after the intent"),
    pytest.param("ln", "*", True, ("intent", "no", A), id="after ln"),
    pytest.param("mv", "*current*", False, ("intent", "no", A), id="before mv"),
    pytest.param("mv", "*current*", True, ("intent", "no", B), id="after mv"),
    pytest.param("sync", ".", True, ("intent", "no", B), id="after the switch is synced, before the outcome"),
    pytest.param("sync", ".rollout/journal", False, ("done", "no", B), id="before the outcome is synced"),
]


@pytest.mark.parametrize(("tool", "when", "after", "truth"), MOMENTS)
def test_a_kill_at_any_moment_is_read_truthfully(running, tool, when, after, truth):
    """Intent without outcome and the lock free: `current` tells whether it was switched. Never `done`."""
    kill_at(running, tool, when, after=after)
    assert facts(running) == truth
    assert running.current == f"releases/{truth[2]}"


@pytest.mark.parametrize(("tool", "when", "after", "truth"), MOMENTS)
def test_a_kill_at_any_moment_can_be_healed(running, tool, when, after, truth):
    """The next attempt works, and so does the way back, whatever was left half done."""
    kill_at(running, tool, when, after=after)
    assert running.activate(NEW, op=5, epoch=2, restart="echo up").output == "up"
    assert running.roll_back(OLD, op=6, epoch=3, restart="echo down").output == "down"


def test_a_kill_before_the_intent_leaves_nothing(running):
    """Nothing was written: the operation never was."""
    kill_at(running, "tail", "*journal*")
    assert facts(running) == ("none", "no", A)


def test_a_switch_whose_tool_is_killed_behind_it_is_not_taken_for_none(running):
    """`mv` dies when it has renamed (out of memory): switched and not restarted, so the way back restarts what ran."""
    running.shadow("mv", '"$real" "$@"; case "$*" in *current*) exit 137 ;; esac')
    reply = running.activate(NEW, op=4, restart="echo never")
    running.unshadow()
    assert (reply.code, reply["switched"], reply["current"]) == (BROKEN, "yes", B)
    assert facts(running) == ("intent", "no", B)
    assert running.roll_back(OLD, op=5, restart="echo back").output == "back"


def test_a_killed_way_back_is_gone_again(running):
    """A rollback whose `mv` is killed behind the rename is not done: the next one restarts what it goes back to."""
    running.activate(NEW, op=4)
    running.shadow("mv", '"$real" "$@"; case "$*" in *current*) exit 137 ;; esac')
    running.roll_back(OLD, op=5)
    running.unshadow()
    assert running.roll_back(OLD, op=6, restart="echo back").output == "back"


def test_a_killed_operation_that_is_delivered_again_is_unknown(running):
    """Its recorded outcome is that there is none: nobody may take it for done, and it is not done again."""
    kill_at(running, "mv", "*current*", after=True)
    reply = running.activate(NEW, op=4, restart="echo never")
    assert (reply.brief, reply["intent"], reply.output) == ((BROKEN, "unknown"), "yes", "")


@pytest.mark.parametrize("kind", ["restart", "health"])
def test_a_command_does_not_outlive_a_killed_host_sh(running, kind):
    """When host.sh alone is killed, the command it waited for is ended: nothing overlaps with the rollback."""
    talk = running.ask(
        "activate", NEW, op=4, **{kind: "echo $$ >../../here; sleep 300"}, health_timeout=300
    ).within()
    until((running.root / "here").exists, what=f"{kind} runs")
    talk.kill()
    running.quiet()
    assert facts(running) == ("intent", "no", B)


def test_another_boot_changes_nothing_of_what_is_read(running):
    """After a reboot the journal reads the same, and a rollback of a half-done switch runs everything."""
    kill_at(running, "mv", "*current*", after=True)
    journal = running.fence / "journal"
    here = running.status()["boot"]
    journal.write_text(journal.read_text().replace(here, "00000000-0000-0000-0000-000000000000"))
    assert facts(running) == ("intent", "no", B)
    assert running.roll_back(OLD, op=5, restart="echo back").output == "back"


@pytest.mark.parametrize("cut", [2, 9, 40, 150])
def test_a_torn_last_record_is_ignored(running, cut):
    """A record that was cut anywhere never was; the next ones are written and read well."""
    journal = running.fence / "journal"
    running.activate(NEW, op=4)
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert facts(running) == ("intent", "no", B)
    assert running.activate(NEW, op=5).code == DONE
    assert running.status(op_asked=5)["asked"] == "done"
    assert facts(running) == ("intent", "no", B)


def test_a_record_that_lost_only_its_newline_is_whole(running):
    """Cut behind its last letter it is still read, and does not swallow the next one."""
    journal = running.fence / "journal"
    running.activate(NEW, op=4)
    journal.write_bytes(journal.read_bytes()[:-1])
    assert facts(running) == ("done", "no", B)
    running.roll_back(OLD, op=5)
    assert running.story()[-4:] == [(4, "intent"), (4, "done"), (5, "intent"), (5, "done")]


def test_a_torn_first_record_is_an_empty_journal(host):
    """The very first intent, cut, has done nothing."""
    host.prepare(OLD, op=1)
    (host.fence / "journal").write_text("op=2 epoch=1 verb=acti")
    assert host.status(op_asked=2)["asked"] == "none"
    assert host.activate(OLD, op=2).code == DONE


def test_a_journal_that_cannot_be_read_stops_everything(running):
    """Without its memory the fence opens for nobody."""
    for text in ("\0\0\0\0\nwhat is this\n", "\n" * 100, "\0\0\0"):
        (running.fence / "journal").write_text(text)
        assert running.status().brief == (BROKEN, "journal")
    assert running.activate(NEW, op=4).brief == (BROKEN, "journal")
    assert running.roll_back(OLD, op=4).brief == (BROKEN, "journal")
    assert running.current == f"releases/{A}"


def test_the_journal_stays_small(running):
    """Past 800 records it is cut back to its newest half, and goes on counting."""
    journal = running.fence / "journal"
    last = running.records()[-1]
    line = journal.read_text().splitlines()[-1]
    journal.write_text(
        "".join(line.replace(f"line={last['line']} ", f"line={n} ") + "\n" for n in range(1, 801))
    )
    assert running.activate(NEW, op=4).code == DONE
    assert len(running.records()) == 602  # 600 lines, which have an empty one per operation in a real life
    assert running.records()[-1]["line"] == "402"
    assert running.activate(NEW, op=5).code == DONE


def test_a_lost_caller_changes_nothing_after_the_intent(running):
    """Hung up on during the restart, it goes on to the end and writes its outcome."""
    go = running.root / "go"
    restart = f'echo out; touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    talk = running.ask("activate", NEW, op=4, restart=restart, health="test -e ../../go").within()
    until((running.root / "here").exists, what="the restart runs")
    assert talk.process.stdout
    talk.hang_up()
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGHUP):
        talk.signal(number)
    assert facts(running) == ("intent", "yes", B)
    go.touch()
    assert talk.reply().code == DONE
    assert facts(running) == ("done", "no", B)


def test_a_caller_whose_ear_is_gone_changes_nothing(running):
    """When nobody reads the answer any more (PIPE), an unhealthy release is put back all the same."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*running.shell.command, str(running.program), "activate"],
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=subprocess.DEVNULL,
        env={"PATH": running.shell.path, "TEST_MARK": running.mark},
    )
    os.close(writing)
    assert process.stdin
    restart = (
        f"test $COMMIT = {A} && exit; touch ../../here; while [ ! -e ../../go ]; do sleep 0.02; done; exit 1"
    )
    keys = f"epoch=1\nop=4\nhost=w\ncommit={B}\ndigest={NEW.digest}\nrestart={restart}\n"
    process.stdin.write(f"{keys}restart_limit=60\nhealth_timeout=1\n\n".encode())
    process.stdin.write(b"within=60000\n")
    process.stdin.close()
    until((running.root / "here").exists, what="the restart runs")
    os.close(reading)
    (running.root / "go").touch()
    process.wait(30)
    assert facts(running) == ("failed", "no", A)


def test_a_hang_up_before_the_permission_ends_it(running):
    """Until the intent nothing was promised: HUP just ends it."""
    talk = running.ask("activate", NEW, op=4).greeted()
    talk.signal(signal.SIGHUP)
    assert talk.reply().code is None
    assert facts(running) == ("none", "no", A)


@pytest.fixture(params=["dash", pytest.param("busybox", marks=pytest.mark.needs("busybox"))])
def small(request, tmp_path):
    """A host on a disk of 1 MiB, which runs OLD and has NEW prepared."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        made = Host(disk / "srv", shell(request.param, tmp_path / "applets"))
        made.prepare(OLD, op=1)
        made.activate(OLD, op=2)
        made.prepare(NEW, op=3)
        yield made
        made.quiet()
        made.end_all()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(host):
    """Leave no byte of room."""
    with (host.root.parent / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 512):
            pass
    # The journal's last block may have room for a record; take it, as a long life would.
    with (host.fence / "journal").open("ab", buffering=0) as journal, contextlib.suppress(OSError):
        while journal.write(b"x"):
            pass


@pytest.mark.needs("root", "mount")
def test_a_full_disk_switches_nothing(small):
    """Without room for the intent: `no room`, `current` untouched; with room again it works."""
    fill(small)
    reply = small.activate(NEW, op=4)
    assert (reply.brief, reply["intent"]) == ((BROKEN, "no room"), None)
    assert small.current == f"releases/{A}"
    assert facts(small) == ("none", "no", A)
    (small.root.parent / "ballast").unlink()
    assert small.activate(NEW, op=5).code == DONE


@pytest.mark.needs("root", "mount")
def test_a_full_disk_takes_no_release(small):
    """An archive that does not fit leaves nothing behind, and says why."""
    reply = small.prepare(a_release("c" * 40, fill=2_000_000), op=4)
    assert reply.brief == (BROKEN, "no room")
    assert small.releases == {A, B}
    assert small.activate(NEW, op=5).code == DONE


@pytest.mark.needs("root", "mount")
def test_a_disk_that_fills_up_during_the_restart_is_told(small):
    """Switched, and no room for the outcome: it says `no room` and never done; status reads an open intent."""
    ballast = small.root.parent / "ballast"
    restart = f"cat /dev/zero >{ballast}; while printf x >>../../.rollout/journal; do :; done; exit 0"
    reply = small.activate(NEW, op=4, restart=restart)
    assert (reply.brief, reply["intent"], reply["current"]) == ((BROKEN, "no room"), "yes", B)
    assert facts(small) == ("intent", "no", B)
    ballast.unlink()
    assert small.roll_back(OLD, op=5, restart="echo back").output == "back"


@pytest.mark.needs("root", "mount")
def test_a_host_without_room_can_still_be_sealed(small):
    """A seal is the name of an empty file; sealed or not, it says so truthfully."""
    fill(small)
    reply = small.status(epoch=6, op=12)
    (small.root.parent / "ballast").unlink()
    assert reply["sealed"] == "yes" or reply.brief == (BROKEN, "no room")
    refused = small.activate(NEW, op=4, epoch=5).code != DONE
    assert refused == (reply["sealed"] == "yes")


@pytest.mark.needs("root", "mount")
def test_a_disk_that_came_back_read_only_is_read(small):
    """Status and hello answer; whoever wants to change something is told that it cannot be written."""
    subprocess.run(["mount", "-o", "remount,ro", small.root.parent], check=True)
    assert facts(small) == ("none", "no", A)
    assert small.call("hello", {"deep": 1})["writable"] == "no"
    assert small.activate(NEW, op=4).brief == (BROKEN, "not writable")
    assert small.prepare(a_release("c" * 40), op=4).brief == (BROKEN, "not writable")
    assert small.status(epoch=6, op=12)["sealed"] == "no"
    subprocess.run(["mount", "-o", "remount,rw", small.root.parent], check=True)


def test_a_failure_to_put_back_is_told(running):
    """When the way back cannot be taken, `current` is the new one and nobody is told otherwise."""
    running.shadow("ln", f'case "$*" in *{A}*) exit 1 ;; esac; exec "$real" "$@"')
    reply = running.activate(NEW, op=4, restart="exit 1")
    assert (reply.brief, reply["put_back"], reply["current"]) == ((FAILED, "unhealthy"), "no", B)
    assert "could not switch back" in reply.output
