"""host.sh: what comes late, twice, out of order or without a permission does nothing."""

import random
import threading

import pytest

from tests.support.host_sh import DONE, FAILED, REFUSED, ROOMY_MS, A, B, C, a_release, hosts
from tests.support.processes import until

host = hosts()
OLD, NEW = a_release(A), a_release(B)


@pytest.fixture
def running(host):
    """A host that runs OLD with epoch 5, and has NEW prepared."""
    host.prepare(OLD, op=1)
    host.prepare(NEW, op=2)
    assert host.activate(OLD, op=10, epoch=5).code == DONE
    return host


def wait_until_clock(host, milliseconds):
    """Wait until the host's clock shows that much."""
    until(lambda: int(host.call("hello")["clock"] or 0) >= milliseconds, what=f"clock {milliseconds}")


@pytest.mark.parametrize("verb", ["activate", "rollback"])
def test_a_permission_that_comes_late_is_refused(running, verb):
    """The host counts from its own greeting: an answer after that time leaves no trace."""
    talk = running.ask(verb, NEW, op=11, epoch=5)
    greeted = int(talk.hear("clock"))
    wait_until_clock(running, greeted + 60)
    reply = talk.within(50).reply()
    assert reply.brief == (REFUSED, "late")
    assert running.current == f"releases/{A}"
    assert running.story()[-1] == (10, "done")


def test_no_time_at_all_is_late(running):
    """`within=0` is a way to say no."""
    assert running.activate(NEW, op=11, epoch=5, within=0).brief == (REFUSED, "late")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "cut off"),
        ("within=60000", "cut off"),
        ("within=\n", "bad input"),
        ("within=-1\n", "bad input"),
        ("within=1e9\n", "bad input"),
        ("within=$(id)\n", "bad input"),
        ("no\n", "bad input"),
        ("\n", "cut off"),
    ],
)
def test_anything_but_a_permission_is_refused(running, answer, reason):
    """A lost caller, half a line and nonsense are all a no."""
    talk = running.ask("activate", NEW, op=11, epoch=5).greeted()
    talk.send(answer)
    talk.hang_up()
    assert talk.reply().brief == (REFUSED, reason)
    assert running.current == f"releases/{A}"


def test_a_caller_that_says_nothing_leaves_no_process(running):
    """A greeting that is never answered ends by its own limit."""
    program = running.program
    program.write_text(program.read_text().replace("greeting_limit=60000", "greeting_limit=300"))
    talk = running.ask("activate", NEW, op=11, epoch=5).greeted()
    assert talk.process.wait(30) != 0
    assert talk.reply().code is None
    running.quiet()
    assert running.story()[-1] == (10, "done")


def delayed(running, tool, when, *, after=False):
    """An activation that is held up at `tool` until its time has passed, and then goes on."""
    waits, goes = running.shadows / "waits", running.shadows / "goes"
    hold = f'touch "{waits}"; while [ ! -e "{goes}" ]; do sleep 0.02; done'
    held = f'"$real" "$@"; {hold}; exit' if after else hold
    running.shadow(tool, f'[ -e "{goes}" ] || case "$*" in {when}) {held} ;; esac\nexec "$real" "$@"')
    talk = running.ask("activate", NEW, op=11, epoch=5, restart="echo restarted")
    greeted = int(talk.hear("clock"))
    talk.within(1500)
    until(waits.exists, what=f"{tool} was reached")
    wait_until_clock(running, greeted + 1500)
    goes.touch()
    return talk.reply()


@pytest.mark.parametrize(
    ("tool", "when", "after"),
    [
        ("sync", "*journal*", False),
        ("ln", "*", False),
        ("mv", "*current*", False),
        ("mv", "*current*", True),
    ],
    ids=["between intent and switch", "at the switch", "at the rename", "behind the rename"],
)
def test_a_host_that_was_held_up_does_not_stay_switched(running, tool, when, after):
    """Held up after the intent, before or in the switch: `current` is as it was, nothing is restarted."""
    reply = delayed(running, tool, when, after=after)
    assert reply.brief == (REFUSED, "late")
    assert (reply["intent"], reply["switched"], reply["current"], reply.output) == ("yes", "no", A, "")
    assert running.current == f"releases/{A}"
    assert running.story()[-2:] == [(11, "intent"), (11, "void")]
    assert running.status(op_asked=11)["asked"] == "none"


@pytest.mark.parametrize("verb", ["activate", "rollback"])
def test_a_lower_epoch_is_refused(running, verb):
    """Whoever lost the row to somebody with a higher epoch is refused."""
    assert running.ask(verb, NEW, op=11, epoch=4).within().reply().brief == (REFUSED, "epoch")
    assert running.current == f"releases/{A}"


@pytest.mark.parametrize("verb", ["activate", "rollback"])
def test_an_operation_that_is_not_newer_is_refused(running, verb):
    """A number between two that were there already comes too late."""
    assert running.ask(verb, NEW, op=9, epoch=6).within().reply().brief == (REFUSED, "op")
    assert running.current == f"releases/{A}"


def test_a_doubled_operation_is_done_once(running):
    """The second delivery gets the recorded outcome and runs nothing."""
    count = "echo x >>../../count"
    first = running.activate(NEW, op=11, epoch=5, restart=count)
    second = running.activate(NEW, op=11, epoch=5, restart=count)
    assert (first.code, second.code, second["switched"], second["current"]) == (DONE, DONE, "yes", B)
    assert (running.root / "count").read_text() == "x\n"
    assert running.story().count((11, "intent")) == 1


def test_a_doubled_operation_that_failed_has_failed(running):
    """The recorded outcome is told with its reason, also after newer operations, whatever their epoch."""
    running.activate(NEW, op=11, epoch=5, restart=f"test $COMMIT = {A}")
    running.activate(NEW, op=12, epoch=9)
    again = running.activate(NEW, op=11, epoch=5)
    assert (again.brief, again["put_back"], again["intent"]) == ((FAILED, "unhealthy"), "yes", "yes")
    assert running.current == f"releases/{B}"


def test_a_double_that_arrives_meanwhile_waits_for_the_outcome(running):
    """Two deliveries at the same time: one acts, both tell the same."""
    go = running.root / "go"
    restart = f'echo x >>../../count; while [ ! -e "{go}" ]; do sleep 0.02; done'
    first = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    until((running.root / "count").exists, what="the restart runs")
    second = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    second.greeted()
    go.touch()
    assert [talk.reply().code for talk in (first, second)] == [DONE, DONE]
    assert (running.root / "count").read_text() == "x\n"


def test_whoever_waits_longer_than_allowed_is_busy(running):
    """A switch does not outlive its permission in the queue for the lock."""
    first = running.ask("activate", NEW, op=11, epoch=5, restart="touch ../../here; sleep 60").within()
    until((running.root / "here").exists, what="the restart runs")
    assert running.activate(OLD, op=12, epoch=5, within=200).brief == (REFUSED, "busy")
    first.kill()


def test_a_rollback_does_not_wait_for_a_health_check(running):
    """A higher epoch ends a running health wait; the rollback then finds the host as the activation left it."""
    health = "touch ../../checking; sleep 60"
    activation = running.ask("activate", NEW, op=11, epoch=5, health=health, health_timeout=60).within()
    until((running.root / "checking").exists, what="health is being waited for")
    rollback = running.roll_back(OLD, op=12, epoch=6)
    assert (rollback.code, rollback["already"], rollback["current"]) == (DONE, None, A)
    left = activation.reply()
    assert (left.brief, left["switched"], left["put_back"]) == ((FAILED, "overtaken"), "yes", "no")
    assert running.story()[-4:] == [(11, "intent"), (11, "left"), (12, "intent"), (12, "done")]


def test_an_equal_epoch_waits_for_a_health_check(running):
    """Who has no higher epoch does not end anybody's health wait."""
    go = running.root / "go"
    health = f'touch ../../checking; test -e "{go}"'
    activation = running.ask("activate", NEW, op=11, epoch=5, health=health, health_timeout=60).within()
    until((running.root / "checking").exists, what="health is being waited for")
    tries = running.root / "tries"
    running.shadow("flock", f'echo x >>"{tries}"; exec "$real" "$@"')
    rollback = running.ask("rollback", OLD, op=12, epoch=5).within()
    until(
        lambda: tries.exists() and tries.stat().st_size > 30, what="the rollback has asked for the lock often"
    )
    go.touch()
    assert activation.reply().code == DONE
    assert rollback.reply().code == DONE
    assert running.current == f"releases/{A}"


def test_a_rollback_that_was_overtaken_leaves_it_open(running):
    """A rollback's own health wait gives way to a higher epoch too."""
    running.activate(NEW, op=11, epoch=5)
    health = "touch ../../checking; sleep 60"
    rollback = running.ask("rollback", OLD, op=12, epoch=6, health=health, health_timeout=60).within()
    until((running.root / "checking").exists, what="health is being waited for")
    assert running.roll_back(OLD, op=13, epoch=7, restart="echo again").output == "again"
    assert rollback.reply().brief == (FAILED, "overtaken")


def test_a_storm_of_doubled_and_reordered_operations_is_taken_in_order(host):
    """From 24 threads, each operation twice and shuffled: each at most once, in order, intents paired."""
    releases = [a_release(commit) for commit in (A, B, C)]
    for op, release in enumerate(releases, 1):
        host.prepare(release, op=op)
    chance = random.Random(7)
    orders = sorted([*range(10, 46)] * 2, key=lambda op: op + chance.uniform(-4, 4), reverse=True)
    lock, codes = threading.Lock(), []

    def work():
        while True:
            with lock:
                if not orders:
                    return
                op = orders.pop()
            restart = f"echo {op} >>../../ran"
            reply = host.activate(releases[op % 3], op=op, epoch=op // 4, within=ROOMY_MS, restart=restart)
            with lock:
                codes.append(reply.brief)

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ran = [int(line) for line in (host.root / "ran").read_text().split()]
    assert ran == sorted(set(ran))
    assert 45 in ran
    story = host.story()
    assert [entry for entry in story if entry[1] == "done"] == [(op, "done") for op in ran]
    assert [what for _, what in story[::2]] == ["intent"] * (len(story) // 2)
    assert [op for op, _ in story[::2]] == [op for op, _ in story[1::2]] == sorted({op for op, _ in story})
    assert len(codes) == 72
    assert set(codes) <= {(DONE, None), (REFUSED, "op"), (REFUSED, "epoch"), (FAILED, "overtaken")}
    assert host.current == f"releases/{releases[ran[-1] % 3].commit}"
