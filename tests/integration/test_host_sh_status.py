"""host.sh: reading a host, and sealing it against everything that was sent earlier."""

import pytest

from tests.support.host_sh import DONE, FAILED, REFUSED, A, B, a_release, hosts
from tests.support.processes import until

host = hosts()
OLD, NEW = a_release(A), a_release(B)
KEYS = [
    "clock",
    "boot",
    "current",
    "epoch",
    "running",
    "op",
    "verb",
    "commit",
    "result",
    "asked",
    "sealed",
    "end",
]


@pytest.fixture
def running(host):
    """A host that runs OLD with epoch 5, and has NEW prepared."""
    host.prepare(OLD, op=1)
    host.prepare(NEW, op=2)
    assert host.activate(OLD, op=10, epoch=5).code == DONE
    return host


def test_an_empty_host_says_so(host):
    """Nothing was ever done here."""
    reply = host.status(op_asked=3)
    assert [key for key, _ in reply.pairs] == KEYS
    assert [reply[key] for key in KEYS[2:]] == ["none", "0", "no", "0", "none", "", "none", "none", "no", "0"]


def test_the_last_operation_is_told(running):
    """Epoch, number, verb, commit and result are those of the last operation."""
    reply = running.status()
    assert [reply[key] for key in KEYS[2:9]] == [A, "5", "no", "10", "activate", A, "done"]


def test_the_result_of_an_older_operation_can_be_asked(running):
    """Operations that others followed are found, and numbers that never came are not."""
    running.activate(NEW, op=11, epoch=5, restart=f"test $COMMIT = {A}")
    running.roll_back(OLD, op=12, epoch=6)
    asked = {op: running.status(op_asked=op)["asked"] for op in (9, 10, 11, 12, 13)}
    assert asked == {9: "none", 10: "done", 11: "failed", 12: "done", 13: "none"}


def test_a_plain_status_does_not_wait(running):
    """While an operation holds the lock, status answers at once: running, and what is intended."""
    talk = running.ask("activate", NEW, op=11, epoch=5, restart="touch ../../here; sleep 60").within()
    until((running.root / "here").exists, what="the restart runs")
    reply = running.status(op_asked=11)
    assert [reply[key] for key in KEYS[2:11]] == [
        B,
        "5",
        "yes",
        "11",
        "activate",
        B,
        "intent",
        "intent",
        "no",
    ]
    talk.kill()


def test_reading_does_not_disturb(running):
    """A status during a health wait changes nothing."""
    go = running.root / "go"
    health = f'touch ../../here; test -e "{go}"'
    talk = running.ask("activate", NEW, op=11, epoch=5, health=health).within()
    until((running.root / "here").exists, what="health is waited for")
    assert running.status(op_asked=11)["running"] == "yes"
    go.touch()
    assert talk.reply().code == DONE


def test_a_seal_refuses_what_was_sent_before_it(running):
    """An activation that had greeted before the seal is refused after it, whatever it may say then."""
    zombie = running.ask("activate", NEW, op=11, epoch=5).greeted()
    seal = running.status(epoch=6, op=12, op_asked=11)
    assert (seal["sealed"], seal["asked"], seal["epoch"], seal.code) == ("yes", "none", "6", DONE)
    assert zombie.within().reply().brief == (REFUSED, "epoch")
    assert running.current == f"releases/{A}"
    assert running.activate(NEW, op=13, epoch=6).code == DONE


def test_a_seal_within_one_epoch_goes_by_the_number(running):
    """Of the same epoch, what is not above the seal's number is refused."""
    assert running.status(epoch=5, op=12)["sealed"] == "yes"
    assert running.activate(NEW, op=12, epoch=5).brief == (REFUSED, "op")
    assert running.activate(NEW, op=13, epoch=5).code == DONE


def test_a_seal_can_be_repeated(running):
    """The same seal twice is sealed twice, and writes nothing new."""
    for _ in range(2):
        assert running.status(epoch=6, op=12)["sealed"] == "yes"
    assert [mark.name for mark in (running.fence / "raised").iterdir()] == ["6-12"]


def test_a_seal_of_the_past_is_refused(running):
    """Who seals with a lower epoch than the host has seen is told so, and nothing is sealed."""
    reply = running.status(epoch=4, op=12)
    assert (reply.brief, reply["sealed"], reply["current"]) == ((REFUSED, "epoch"), "no", A)
    assert running.activate(NEW, op=11, epoch=5).code == DONE


def test_a_seal_below_the_last_operation_still_raises_the_epoch(running):
    """A higher epoch counts, whatever its number."""
    assert running.status(epoch=7, op=3)["sealed"] == "yes"
    assert running.activate(NEW, op=11, epoch=6).brief == (REFUSED, "epoch")
    assert running.activate(NEW, op=11, epoch=7).code == DONE


def test_the_marks_of_seals_go_with_the_next_operation(running):
    """What the journal knows need not be remembered twice."""
    running.status(epoch=6, op=12)
    running.status(epoch=7, op=13)
    running.activate(NEW, op=14, epoch=7)
    assert list((running.fence / "raised").iterdir()) == []
    assert running.status()["epoch"] == "7"


def held_at(running, tool, when, *, after=False):
    """An activation of NEW (operation 11, epoch 5) that is held up at a tool, the lock in its hands."""
    waits, goes = running.shadows / "waits", running.shadows / "goes"
    hold = f'touch "{waits}"; while [ ! -e "{goes}" ]; do sleep 0.02; done'
    held = f'"$real" "$@"; {hold}; exit' if after else hold
    running.shadow(tool, f'[ -e "{goes}" ] || case "$*" in {when}) {held} ;; esac\nexec "$real" "$@"')
    talk = running.ask("activate", NEW, op=11, epoch=5, restart="echo restarted").within()
    until(waits.exists, what=f"{tool} was reached")
    return talk, goes


@pytest.mark.parametrize(
    ("tool", "when"), [("sync", "*journal*"), ("ln", "*"), ("mv", "*current*")], ids=["intent", "ln", "mv"]
)
def test_before_the_switch_a_seal_is_not_confirmed(running, tool, when):
    """While an operation may still switch, `sealed=no`; when it goes on it finds the mark and does not."""
    talk, goes = held_at(running, tool, when)
    reply = running.status(epoch=6, op=12, wait=100, op_asked=11)
    assert (reply["sealed"], reply["running"], reply["asked"]) == ("no", "yes", "intent")
    goes.touch()
    held = talk.reply()
    assert (held.brief, held["switched"], held.output) == ((REFUSED, "epoch"), "no", "")
    assert running.current == f"releases/{A}"
    assert running.status(epoch=6, op=12, op_asked=11)["sealed"] == "yes"


def test_a_seal_waits_for_an_operation_that_is_about_to_give_up(running):
    """Within `wait` the operation ends by the mark, and the seal is confirmed."""
    talk, goes = held_at(running, "ln", "*")
    seal = running.start("status", {"epoch": 6, "op": 12, "wait": 20_000, "op_asked": 11})
    until((running.fence / "raised" / "6-12").exists, what="the mark is there")
    goes.touch()
    assert talk.reply().brief == (REFUSED, "epoch")
    reply = seal.reply()
    assert (reply["sealed"], reply["running"], reply["current"]) == ("yes", "no", A)


def test_before_the_intent_a_seal_is_confirmed(running):
    """Who has the lock and no intent yet will look at the marks before it switches."""
    talk, goes = held_at(running, "tail", "*journal*")
    running.unshadow()
    reply = running.status(epoch=6, op=12, wait=50)
    assert (reply["sealed"], reply["running"]) == ("yes", "yes")
    goes.touch()
    assert talk.reply().brief == (REFUSED, "epoch")
    assert running.current == f"releases/{A}"


def test_during_a_restart_a_seal_is_confirmed(running):
    """Behind the switch nothing earlier can switch any more: sealed, and the restart may end."""
    go = running.root / "go"
    restart = f'touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    talk = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    until((running.root / "here").exists, what="the restart runs")
    reply = running.status(epoch=6, op=12, wait=50, op_asked=11)
    assert [reply[key] for key in ("sealed", "running", "current", "asked")] == ["yes", "yes", B, "intent"]
    go.touch()
    assert talk.reply().code == DONE
    after = running.status(op_asked=11)
    assert [after[key] for key in ("running", "current", "asked", "result")] == ["no", B, "done", "done"]


def test_who_asks_for_no_outcome_does_not_wait_for_it(running):
    """A stop wants to know that nothing switches any more, and a restart that was begun may take its minutes."""
    go = running.root / "go"
    restart = f'touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    talk = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    until((running.root / "here").exists, what="the restart runs")
    reply = running.status(epoch=6, op=12, wait=3_600_000)
    assert [reply[key] for key in ("sealed", "running", "current")] == ["yes", "yes", B]
    go.touch()
    assert talk.reply().code == DONE


def test_a_seal_ends_no_health_wait(running):
    """Who reads a host while a good release is coming up does not make it a bad one: it is waited for, and done."""
    health = "touch ../../here; test -e ../../up"
    talk = running.ask("activate", NEW, op=11, epoch=5, health=health, health_timeout=60).within()
    until((running.root / "here").exists, what="health is waited for")
    for number in (12, 13):
        reply = running.status(epoch=number, op=number, op_asked=11, wait=50)
        assert [reply[key] for key in ("sealed", "running", "asked")] == ["yes", "yes", "intent"]
    (running.root / "up").touch()
    assert talk.reply().code == DONE
    after = running.status(epoch=14, op=14, op_asked=11)
    assert [after[key] for key in ("running", "current", "asked")] == ["no", B, "done"]


def test_a_seal_leaves_what_an_order_has_said(running):
    """An order that came during a restart, and a seal after it: the health wait still makes room for the order."""
    go = running.root / "go"
    restart = f'touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    talk = running.ask("activate", NEW, op=11, epoch=5, restart=restart, health="exit 1", health_timeout=60)
    talk.within()
    until((running.root / "here").exists, what="the restart runs")
    assert running.roll_back(OLD, op=12, epoch=6, within=100).brief == (REFUSED, "busy")
    assert running.roll_back(OLD, op=13, epoch=7, within=100).brief == (REFUSED, "busy")
    for number in (14, 15):
        assert running.status(epoch=number, op=number, wait=50)["sealed"] == "yes"
    marks = {file.name for file in (running.fence / "raised").iterdir()}
    assert marks == {"7-0", "15-15"}
    go.touch()
    assert talk.reply().brief == (FAILED, "overtaken")


def test_while_putting_back_a_seal_is_confirmed(running):
    """An operation that puts back has its switch behind it."""
    restart = f"test $COMMIT = {A} || exit 1; touch ../../here; sleep 60"
    talk = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    until((running.root / "here").exists, what="the old release is being restarted")
    reply = running.status(epoch=6, op=12, wait=50)
    assert [reply[key] for key in ("sealed", "running", "current")] == ["yes", "yes", A]
    talk.kill()


def test_a_zombie_in_the_queue_for_the_lock_is_refused(running):
    """Sealed while it waited behind another operation, it is refused when its turn comes."""
    go = running.root / "go"
    restart = f'touch ../../here; while [ ! -e "{go}" ]; do sleep 0.02; done'
    first = running.ask("activate", NEW, op=11, epoch=5, restart=restart).within()
    until((running.root / "here").exists, what="the restart runs")
    zombie = running.ask("activate", OLD, op=12, epoch=5).within().greeted()
    assert running.status(epoch=6, op=13, wait=50)["sealed"] == "yes"
    go.touch()
    assert first.reply().code == DONE  # it has no health check to give up
    assert zombie.reply().brief == (REFUSED, "epoch")
    assert running.current == f"releases/{B}"


def test_half_a_seal_is_bad_input(running):
    """An epoch without a number, or the other way round, is refused."""
    assert running.status(epoch=6).brief == (REFUSED, "bad input")
    assert running.status(op=6).brief == (REFUSED, "bad input")


def test_readings_leave_one_mark(host):
    """However often a host is read and sealed, its marks do not grow, and the newest is the one that stays."""
    for number in range(1, 21):
        assert host.status(epoch=number, op=number)["sealed"] == "yes"
    assert [path.name for path in (host.root / ".rollout" / "raised").iterdir()] == ["20-20"]
