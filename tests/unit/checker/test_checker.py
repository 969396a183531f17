"""The checker itself: a clean history has no violations, and for every invariant a bad one is caught."""

from datetime import timedelta

import pytest

from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.checker.history import Deed, Disk, Measured
from tests.support.checker.story import BEGIN, Story
from tests.support.world import World

A, B = "a" * 40, "b" * 40


def found(story):
    return {violation.invariant for violation in check(story.history())}


def clean():
    """One commit out, a second one stopped in its fan-out and back."""
    story = Story()
    story.commit(A)
    story.commit(B)
    story.to_done(A)
    second = story.to_fan_out(B)
    story.switch(second, "web2")
    story.claim(second, "web3")
    story.act(second, "web3", what="failed")
    story.report(second, "web3", "fail")
    story.to_stopped(second)
    story.go_back(second, "web1", A)
    story.go_back(second, "web2", A)
    story.go_back(second, "web3", A)
    story.rollout(second, "rolled back", due_at=None)
    return story


def test_a_clean_history_has_no_violations():
    """What went as it must, stop and rollback included, is not accused."""
    assert check(clean().history()) == []


def test_a_rollout_may_be_planned_behind_one_that_fans_out():
    """It follows what that one brings, begins when that is done, and is prepared before; nobody is accused."""
    story = clean()
    story.commit("c")
    story.commit("d")
    number = story.to_fan_out("c")
    story.tables["rollouts"][-1]["previous"] = A
    following = story.plan("d")
    story.tables["rollouts"][-1]["previous"] = "c"
    for name in story.names[1:]:
        story.switch(number, name)
    story.rollout(number, "finish", due_at=None)
    story.rollout(following, "start")
    story.options["at_rest"] = False
    assert found(story) == set()


def test_a_host_named_unconfirmed_may_switch_late():
    """I2's exception: what the acknowledgement named is not held against it."""
    story = clean()
    story.tables["rollouts"][1]["unconfirmed"] = ["web4"]
    story.numbers += 1
    story.record("web4", "activate", "intent", B)
    assert "I2" not in found(story)


def test_a_commit_that_goes_out_again_after_its_stop_is_no_late_switch():
    """A later rollout of the stopped commit has the right that the stopped one lost."""
    story = clean()
    story.to_done(B)
    assert found(story) == set()


def test_a_host_that_nobody_could_read_is_recorded_as_unknown():
    """One that acted, and then refused our key, may be recorded as unknown, and not as what it ran before."""
    story = clean()
    story.commit("c")
    number = story.to_fan_out("c")
    story.claim(number, "web2")
    story.act(number, "web2")
    story.host(number, "web2", "lose", "fail", token=False, lease_until=None)
    assert "I5" in found(story)
    next(row for row in story.tables["fleet_hosts"] if row["name"] == "web2")["release"] = "unknown"
    assert "I5" not in found(story)


def test_a_host_in_the_canarys_place_needs_no_pass():
    """A canary host that cannot be prepared is replaced, and its heir may be replaced in turn: both were canaries."""
    story = clean()
    story.commit("c")
    number = story.plan("c")
    story.rollout(number, "start")
    for lost, heir in (("web1", "web2"), ("web2", "web3")):
        story.claim(number, lost)
        story.host(number, lost, "fail", token=False, lease_until=None)
        story.row(number, lost)["role"], story.row(number, heir)["role"] = "other", "canary"
        remark = {"what": "takes the canary's place", "before": None, "after": None}
        story.tables["events"].append(
            story.tables["events"][-1]
            | remark
            | {"id": len(story.tables["events"]) + 1, "subject": f"host {heir}"}
        )
    story.switch(number, "web3")
    assert "I11" not in found(story)


def test_a_replaced_canary_host_widens_the_window_when_it_is_done():
    """`ramp` allows one more at risk for each host beyond the canary that is done, the replaced one included."""
    story = Story(mode="ramp", max_failed=0)
    story.commit(A)
    number = story.to_fan_out(A)
    story.row(number, "web1")["role"], story.row(number, "web2")["role"] = "other", "canary"
    for name in ("web3", "web4"):
        story.claim(number, name)
    story.options["at_rest"] = False
    assert found(story) == set()


def test_a_delivery_whose_rollout_has_not_begun_needs_no_end():
    """What is planned ahead may be planned anew."""
    story = clean()
    story.commit("c")
    story.plan("c")
    story.tables["deliveries"].append(
        {"id": 1, "app": "shop", "head": "c", "outcome": "accepted", "settled_at": None}
    )
    assert "I4" not in found(story)


# -- one bad history for each --------------------------------------------------------------------------------------------


def two_active(story):
    story.plan(A)
    story.rollout(3, "start")
    story.plan(B)
    story.rollout(4, "start")


def late_switch(story):
    story.numbers += 1
    story.record("web4", "activate", "intent", B)


def claimed_after_the_stop(story):
    story.claim(2, "web4")


def told_too_early(story):
    story.options["deeds"] = [Deed(BEGIN, "stop", {"rollout": 2}, {"acknowledged": True})]


def too_many_failed(story):
    story.commit("c")
    number = story.to_fan_out("c")
    for name in ("web2", "web3", "web4"):
        story.claim(number, name)
        story.act(number, name, what="failed")
        story.report(number, name, "fail")


def too_many_unknown(story):
    story.commit("c")
    number = story.to_fan_out("c")
    for name in ("web2", "web3", "web4"):
        story.claim(number, name)
        story.host(number, name, "lose")


def too_many_at_once(story):
    story.commit("c")
    number = story.to_fan_out("c")
    story.tables["rollouts"][number - 1]["concurrency"] = 1
    story.claim(number, "web2")
    story.claim(number, "web3")


def too_many_at_risk(story):
    story.commit("c")
    number = story.to_fan_out("c")
    for name in ("web2", "web3", "web4"):
        story.claim(number, name)


def not_recorded(story):
    story.options["deeds"] = [Deed(BEGIN, "webhook", {}, {"status": 202, "delivery": 9})]


def one_record_for_two(story):
    story.tables["deliveries"].append(
        {"id": 1, "app": "shop", "head": A, "outcome": "duplicate", "settled_at": BEGIN}
    )
    story.options["deeds"] = [Deed(BEGIN, "webhook", {}, {"status": 202, "delivery": 1})] * 2


def commit_forgotten(story):
    story.tables["deliveries"].append(
        {"id": 1, "app": "shop", "head": "d" * 40, "outcome": "accepted", "settled_at": None}
    )


def no_end_though_it_shipped(story):
    story.tables["deliveries"].append(
        {"id": 1, "app": "shop", "head": A, "outcome": "accepted", "settled_at": None}
    )


def started_by_another(story):
    story.tables["deliveries"].append(
        {"id": 1, "app": "shop", "head": A, "outcome": "started", "settled_at": BEGIN, "ref": "rollout 2"}
    )


def other_release_on_disk(story):
    story.current["web2"] = B


def done_without_a_journal(story):
    story.commit("c")
    story.to_fan_out("c")
    story.claim(3, "web2")
    story.report(3, "web2")


def failed_for_a_host_that_never_said_so(story):
    story.tables["rollouts"][1]["canary_reason"] = "canary web1 failed: web1: was interrupted"


def left_half_way(story):
    story.commit("c")
    number = story.to_fan_out("c")
    story.claim(number, "web2")
    story.record("web2", "activate", "intent", "c", came_from=A)
    story.current["web2"] = "c"
    story.report(number, "web2", "fail")


def said_to_be_gone(story):
    story.commit("c")
    number = story.to_fan_out("c")
    story.claim(number, "web2")
    story.act(number, "web2", what="left")
    story.report(number, "web2", "fail")
    story.row(number, "web2")["error"] = "web2: its journal is gone; it runs c"


def given_up_while_busy(story):
    story.commit("c")
    number = story.to_done("c")
    story.host(number, "web1", "roll back", "rollback failed")
    story.tables["events"][-1]["why"] = "web1: its fence refused: busy"


def owed_and_not_tried_again(story):
    story.commit("c")
    number = story.to_done("c")
    story.host(number, "web1", "roll back", "rollback failed")
    next(row for row in story.tables["fleet_hosts"] if row["name"] == "web1")["owes"] = True


def switched_twice(story):
    story.commit("c")
    story.to_fan_out("c")
    story.claim(3, "web2")
    story.act(3, "web2")
    story.numbers += 1
    story.act(3, "web2")


def no_edge(story):
    story.tables["events"][-1]["after"] = "done"
    story.tables["rollouts"][1]["state"] = "done"


def event_lost(story):
    del story.tables["events"][10]


def event_of_what_was_undone(story):
    story.tables["events"].append(story.tables["events"][-1] | {"id": 10_000})


def state_without_event(story):
    story.tables["commits"][0]["state"] = "barred"


def left_behind(story):
    story.plan(A)


def never_due(story):
    story.plan(A)
    story.rollout(3, "start", due_at=None)
    story.options["at_rest"] = False


def lease_forgotten(story):
    story.commit("c")
    story.to_fan_out("c")
    story.claim(3, "web2")
    story.row(3, "web2")["lease_until"] = None


def untested(story):
    story.commit("c", "test", "fail")
    story.to_fan_out("c")


def barred(story):
    story.commit("c", "test", "pass", "bar")
    story.to_fan_out("c")


def other_digest(story):
    story.tables["releases"][1]["digest"] = "e" * 64


def other_bytes(story):
    story.options["disks"] = {"web1": Disk(story.journals["web1"], A, digest="e" * 64)}


def unknown_commit(story):
    story.numbers += 1
    story.record("web4", "activate", "intent", "f" * 40)


def back_to_what_it_never_had(story):
    story.numbers += 1
    story.record("web4", "rollback", "intent", "f" * 40)


def before_the_canary(story):
    story.commit("c")
    story.plan("c")
    story.rollout(3, "start")
    story.claim(3, "web2")


def journalled_before_the_pass(story):
    at = story.tables["events"][-1]["at"]
    story.commit("c")
    story.to_fan_out("c")
    story.claim(3, "web2")
    began = next(
        event["at"] for event in story.tables["events"] if event["what"] == "start" and event["at"] > at
    )
    story.record("web2", "activate", "intent", "c", at=began + timedelta(microseconds=1))


def pass_without_data(story):
    story.tables["samples"][0]["counts"] = {"2xx": 0}


def backwards(story):
    story.commit("c")
    story.to_done("c")
    story.to_done(A)


def secret_told(story):
    story.options["secrets"] = ["hunter2"]
    story.options["texts"] = {"worker.log": "the password is hunter2"}


def secret_in_an_event(story):
    story.options["secrets"] = ["hunter2"]
    story.tables["events"][3]["why"] = "token hunter2 was refused"


def too_much_memory(story):
    story.options["measured"] = [Measured("I14", "worker's memory in MB", 900, 500)]


def broker_did_more(story):
    story.options["measured"] = [Measured("I15", "rows changed by forged messages", 1, 0)]


def counted_twice(story):
    story.tables["rollouts"][0]["done"] = 5


def epoch_fell(story):
    story.record("web4", "rollback", "intent", A, operation=99, epoch=1)


def operation_fell(story):
    story.record("web4", "rollback", "intent", A, operation=1, epoch=99)


def operation_twice(story):
    first = story.journals["web4"][0]
    story.journals["web4"] += [first]


def two_outcomes(story):
    story.journals["web4"].append(story.journals["web4"][-1])


def outcome_without_intent(story):
    story.record("web4", "activate", "done", A, operation=99, epoch=99)


def back_to_what_was_stopped(story):
    story.record("web1", "rollback", "intent", B, operation=99, epoch=99)


def put_back_to_what_was_stopped(story):
    story.record("web1", "activate", "intent", A, operation=99, epoch=99)
    story.record("web1", "activate", "back", A, operation=99, epoch=99, came_from=B)


def done_with_another_release(story):
    story.record("web4", "rollback", "intent", None, operation=99, epoch=99)
    story.current["web4"] = None
    story.recorded("web4")


def prepared_unread(story):
    number = story.to_fan_out(B)
    story.claim(number, "web2")
    story.host(number, "web2", "lose", lease_until=None)
    story.host(number, "web2", "found untouched", token=False)
    disks = {name: Disk(records, story.current[name], seals=True) for name, records in story.journals.items()}
    story.options = {"disks": disks, "at_rest": False}


def accepted_before_it_was_switched_anew(story):
    number = story.to_fan_out(B)
    story.claim(number, "web2")
    story.host(number, "web2", "fail", token=False, lease_until=None, accepted=True)


def planned_from_what_does_not_run(story):
    story.plan(B)
    story.tables["rollouts"][-1]["previous"] = B


def failed_before_it_began(story):
    number = story.plan(B)
    story.row(number, "web2")["state"] = "preparing"
    story.host(number, "web2", "fail")


def begun_from_what_does_not_run(story):
    second = story.to_fan_out("c")
    third = story.plan("d")
    story.tables["rollouts"][-1]["previous"] = "c"
    story.to_stopped(second)
    story.rollout(third, "start")


BAD = [
    ("I3", failed_before_it_began),
    ("I12", begun_from_what_does_not_run),
    ("I2", back_to_what_was_stopped),
    ("I2", put_back_to_what_was_stopped),
    ("I3", accepted_before_it_was_switched_anew),
    ("I5", done_with_another_release),
    ("I5", prepared_unread),
    ("I12", planned_from_what_does_not_run),
    ("I1", two_active),
    ("I2", late_switch),
    ("I2", claimed_after_the_stop),
    ("I2", told_too_early),
    ("I2", given_up_while_busy),
    ("I2", owed_and_not_tried_again),
    ("I3", too_many_failed),
    ("I3", too_many_unknown),
    ("I3", too_many_at_risk),
    ("I3", too_many_at_once),
    ("I4", not_recorded),
    ("I4", one_record_for_two),
    ("I4", commit_forgotten),
    ("I4", no_end_though_it_shipped),
    ("I4", started_by_another),
    ("I5", other_release_on_disk),
    ("I5", done_without_a_journal),
    ("I5", failed_for_a_host_that_never_said_so),
    ("I5", left_half_way),
    ("I5", said_to_be_gone),
    ("I6", switched_twice),
    ("I7", no_edge),
    ("I7", event_lost),
    ("I7", event_of_what_was_undone),
    ("I7", state_without_event),
    ("I8", left_behind),
    ("I8", never_due),
    ("I8", lease_forgotten),
    ("I9", untested),
    ("I9", barred),
    ("I9", other_digest),
    ("I9", other_bytes),
    ("I9", unknown_commit),
    ("I10", back_to_what_it_never_had),
    ("I11", before_the_canary),
    ("I11", journalled_before_the_pass),
    ("I11", pass_without_data),
    ("I12", backwards),
    ("I13", secret_told),
    ("I13", secret_in_an_event),
    ("I14", too_much_memory),
    ("I15", broker_did_more),
    ("counters", counted_twice),
    ("fence", epoch_fell),
    ("fence", operation_fell),
    ("fence", operation_twice),
    ("fence", two_outcomes),
    ("fence", outcome_without_intent),
]


@pytest.mark.parametrize(("invariant", "spoil"), BAD, ids=[spoil.__name__ for _, spoil in BAD])
def test_a_bad_history_is_caught(invariant, spoil):
    """Each breach, made by hand in an otherwise clean history, is reported under its invariant."""
    story = clean()
    spoil(story)
    assert invariant in found(story)


# -- reading -------------------------------------------------------------------------------------------------------------

LINE = (
    "op={op} epoch=7 verb=activate what={what} commit={commit} from=none open=yes clock=1500 boot=b host=web1 line=1{more}"
    " whole=1\n"
)


def test_a_journal_is_read_as_host_sh_writes_it():
    """Whole lines become records with their time; torn and empty ones are skipped, and `none` is nothing."""
    whole = LINE.format(op=3, what="intent", commit=A, more="")
    torn = LINE.format(op=4, what="intent", commit=B, more="")[:60]
    ended = LINE.format(op=3, what="done", commit="none", more=" code=0 already=yes")
    intent, done = read.journal(f"{whole}{torn}\n\n{ended}", BEGIN)
    assert (intent.operation, intent.epoch, intent.what, intent.commit) == (3, 7, "intent", A)
    assert intent.at == BEGIN + timedelta(seconds=1.5)
    assert (intent.came_from, intent.touches, intent.already) == (None, True, False)
    assert (done.commit, done.touches, done.already) == (None, True, True)


def test_the_disk_of_a_host_is_read_as_it_lies_there(tmp_path):
    """`current` is the commit that it leads to, `foreign` when that is none of ours, None when nothing is there."""
    assert read.disk(tmp_path) == Disk([], None)
    release = tmp_path / "releases" / A
    release.mkdir(parents=True)
    (tmp_path / "current").symlink_to(f"releases/{A}")
    (tmp_path / ".rollout").mkdir()
    (tmp_path / ".rollout" / "journal").write_text(LINE.format(op=3, what="intent", commit=A, more=""))
    disk = read.disk(tmp_path)
    assert (disk.current, len(disk.records), disk.whole) == (A, 1, True)
    first = disk.digest
    (release / "app").write_text("new")
    assert read.disk(tmp_path).digest != first
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("/nowhere")
    assert read.disk(tmp_path).current == "foreign"


def test_the_store_is_read_the_same_from_either_database(tmp_path, monkeypatch, database):
    """A rollout of the real services, on SQLite and on PostgreSQL, is a clean history; another app's rows are left out."""
    world = World(tmp_path, monkeypatch, hosts=3, url=database)
    world.push()
    world.settle()
    history = read.world(world, at_rest=True)
    assert check(history) == []
    assert [event["after"] for event in history.events if event["subject"] == "rollout 1"] == [
        "pending",
        "deploying_canary",
        "evaluating_canary",
        "fanning_out",
        "done",
    ]
    assert read.store(database, "shop")["rollouts"] == list(history.rollouts.values())
    assert read.store(database, "other")["rollouts"] == []
    world.store.close()
