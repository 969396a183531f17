"""A freeze binds automation, and nobody who repairs something."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.domain.model import RolloutId
from rollout.domain.states import FINISHED, CommitState, RolloutState
from rollout.errors import ConfigError, Conflict, ServiceUnavailable
from rollout.services import bars, freezes, halts, hosts, intake, planning, reconcile, stopping, views
from rollout.services.intake import Wish
from rollout.store.store import Transaction
from tests.support.branch import read, why
from tests.support.released import released
from tests.support.world import World

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)  # a Saturday


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three hosts with a first release, at noon of a Saturday."""
    world = World(tmp_path, monkeypatch, hosts=3)
    world.today = NOW
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: world.today))
    world.push()
    world.settle()
    return world


def frozen(world, until=None):
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=until)


def app(world):
    return world.config.app(None)


def waits_for(world):
    with world.store.reading() as tx:
        return planning.waits_for(app(world), tx)


def test_automation_starts_nothing_until_the_freeze_is_over(world):
    """A commit is tested, waits, and goes out by itself when the time has come."""
    first = world.newest().commit
    frozen(world, until=NOW + timedelta(hours=2))
    held = world.push()
    world.run(seconds=120)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", held).state is CommitState.PASSED
    assert set(world.runs().values()) == {first}
    assert waits_for(world) == "frozen until Sat 2026-11-28 14:00 UTC by ann: the sale"
    world.today = NOW + timedelta(hours=2)
    world.run(seconds=120)
    assert set(world.runs().values()) == {held}


def test_without_an_end_it_lasts_until_somebody_ends_it(world):
    """`unfreeze` is what ends it; of what is not frozen it is a conflict."""
    with pytest.raises(Conflict, match="not frozen by anybody"):
        freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    frozen(world)
    held = world.push()
    world.today += timedelta(days=400)
    world.run(seconds=60)
    assert held not in world.runs().values()
    freezes.unfreeze(app(world), world.deps, who="bob", why="sold out")
    world.run(seconds=120)
    assert set(world.runs().values()) == {held}
    with world.store.reading() as tx:
        told = [(event.what, event.who) for event in tx.events.of_subject("shop", "automation")]
    assert told == [("freeze", "ann"), ("unfreeze", "bob")]


@pytest.mark.parametrize("until", [None, NOW + timedelta(hours=8)])
def test_a_freeze_ends_no_longer_one(world, until):
    """Who freezes for lunch does not let automation go on in the middle of somebody's audit: it is refused, and says whose it is."""
    freezes.freeze(app(world), world.deps, who="ann", why="the audit", until=until)
    with pytest.raises(Conflict, match=r"by ann: the audit.*stays as it is") as refused:
        freezes.freeze(app(world), world.deps, who="bob", why="lunch", until=NOW + timedelta(hours=1))
    assert "unfreeze" in refused.value.remedy
    world.today += timedelta(hours=2)
    assert "by ann: the audit" in waits_for(world)


def test_a_freeze_prolongs_a_shorter_one_and_says_so(world):
    """The later end holds; whose freeze it was stands in the answer and in the audit. What is over is no freeze."""
    frozen(world, until=NOW + timedelta(hours=1))
    its, before = freezes.freeze(app(world), world.deps, who="bob", why="the audit", until=None)
    assert (its.until, before) == (None, "frozen until Sat 2026-11-28 13:00 UTC by ann: the sale")
    with world.store.reading() as tx:
        assert before in tx.events.of_subject("shop", "automation")[-1].why
    freezes.unfreeze(app(world), world.deps, who="ann", why="over")
    frozen(world, until=NOW + timedelta(hours=1))
    world.today += timedelta(hours=1)
    until = NOW + timedelta(hours=2)
    assert freezes.freeze(app(world), world.deps, who="bob", why="-", until=until)[1] is None


def test_a_hotfix_goes_out_and_says_that_it_is_one(world):
    """`deploy --now` with a reason is the way past a freeze, and stands in the audit as that."""
    frozen(world)
    fix = world.push()
    intake.enqueue(app(world), fix, world.deps, who="ann", now=Wish("mends the till", "ann"))
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {fix}
    with world.store.reading() as tx:
        plan = next(one for one in tx.events.of_rollout(world.newest().id) if one.what == "plan")
        (shown,) = views.rollouts(tx, [world.newest()])
        (before,) = views.rollouts(tx, [tx.rollouts.get(RolloutId(1))])
    assert plan.why == "hotfix, although frozen by ann: the sale; ann: mends the till"
    assert shown["hotfix"] == "although frozen by ann: the sale; ann: mends the till"
    assert before["hotfix"] is None


def asked(tmp_path, monkeypatch, stage):
    """A fleet where this stage waits for a yes, a first release, and what waits now, in a freeze."""
    world = World(tmp_path, monkeypatch, hosts=3, fan_out=f'confirm = ["{stage}"]')
    world.push()
    assert world.settle().state is RolloutState.HALTED
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    waits = world.push()
    assert world.settle().state is RolloutState.HALTED
    frozen(world)
    return world, waits


def shown(world, number):
    with world.store.reading() as tx:
        return views.rollouts(tx, [tx.rollouts.get(number)])[0]


def test_what_waits_for_its_yes_before_its_canary_is_set_aside_in_a_freeze(tmp_path, monkeypatch):
    """It touched nothing, as what is only planned: the yes is refused and names the freeze, who was asked is told, and is asked again afterwards."""
    world, waits = asked(tmp_path, monkeypatch, "canary")
    number, before = world.newest().id, world.runs()
    assert "frozen by ann: the sale" in why(world, waits).because
    with pytest.raises(Conflict, match="frozen by ann: the sale") as refused:
        halts.resume(number, world.deps, who="bob", why="looks good")
    assert f"rollout deploy {waits[:12]} --now --reason" in str(refused.value)
    world.run(seconds=20)
    assert (world.newest().id, world.newest().state) == (number, RolloutState.ERROR)
    assert any("needs no yes any more" in title for title, _ in world.notifier.sent)
    assert why(world, waits).because == "tested, frozen by ann: the sale"
    assert world.runs() == before
    freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    world.run(until=lambda: world.newest().reason == "waits for your yes before canary")
    assert world.newest().id > number
    halts.resume(world.newest().id, world.deps, who="bob")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {waits}


@pytest.mark.parametrize("same", [True, False])
def test_what_waits_for_its_yes_is_not_in_the_way_of_a_hotfix_in_a_freeze(tmp_path, monkeypatch, same):
    """`deploy --now` of that very commit, or of a newer one, at once: nothing is stopped for it, and nothing barred."""
    world, waits = asked(tmp_path, monkeypatch, "canary")
    aside, fix = world.newest().id, waits if same else world.workshop.push()
    intake.enqueue(app(world), fix, world.deps, who="bob", now=Wish("mends the till", "bob"))
    world.run(until=lambda: world.newest().id > aside and world.newest().state is RolloutState.HALTED)
    halts.resume(world.newest().id, world.deps, who="bob")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {fix}
    with world.store.reading() as tx:
        assert not tx.commits.get("shop", waits).is_barred
    assert shown(world, world.newest().id)["hotfix"].endswith("bob: mends the till")


def test_a_yes_before_the_fan_out_wants_a_reason_in_a_freeze(tmp_path, monkeypatch):
    """`why` and the refusal say that it is frozen; with a reason it goes out, shown and audited as a hotfix is."""
    world, waits = asked(tmp_path, monkeypatch, "fan_out")
    number, before = world.newest().id, world.runs()
    world.run(seconds=20)
    assert why(world, waits).because.endswith(
        f"a person decides: rollout show {number}; frozen by ann: the sale"
    )
    with pytest.raises(Conflict, match="shop is frozen by ann: the sale") as refused:
        halts.resume(number, world.deps, who="bob")
    assert f"rollout resume {number} --reason" in refused.value.remedy
    assert (world.runs(), shown(world, number)["hotfix"]) == (before, None)
    later = world.push()
    world.run(seconds=20)
    with pytest.raises(Conflict) as refused:
        intake.enqueue(app(world), later, world.deps, who="bob", now=Wish("mends the till", "bob"))
    assert f"rollout resume {number} --reason" in refused.value.remedy
    halts.resume(number, world.deps, who="bob", why="mends the till")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {waits}
    assert shown(world, number)["hotfix"] == "although frozen by ann: the sale; bob: mends the till"


@pytest.mark.parametrize("order", [halts.resume, halts.retry])
def test_what_halted_half_way_is_led_on_in_a_freeze_and_says_so(world, order):
    """A person decides over hosts that are half switched, reason or not; `why` says that it is frozen, and then what was gone past."""
    half = world.workshop.push()
    last = world.fleet.hosts["web03"]
    last.unhealthy.add(half)
    read(world)
    assert world.settle().state is RolloutState.HALTED
    frozen(world)
    assert why(world, half).because.endswith("; frozen by ann: the sale")
    last.unhealthy.clear()
    if order is halts.resume:
        order(world.newest().id, world.deps, who="bob", why="it is back", accept_failed=True)
    else:
        order(world.newest().id, world.deps, who="bob")
    said = "bob: it is back" if order is halts.resume else "bob had it go on"
    assert shown(world, world.newest().id)["hotfix"] == f"although frozen by ann: the sale; {said}"
    assert world.settle().state is RolloutState.DONE


def test_stops_rollbacks_and_ways_back_are_never_frozen(world):
    """What is under way goes on and can be stopped; what is out can be taken back; hosts that could not go back still do."""
    first = world.newest().commit
    world.push()
    world.settle()
    frozen(world)
    host = next(iter(world.fleet.hosts.values()))
    host.unreachable = True
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.run(seconds=120)
    assert world.newest().state is RolloutState.ROLLED_BACK
    host.unreachable = False
    world.run(seconds=600, until=lambda: set(world.runs().values()) == {first})
    assert set(world.runs().values()) == {first}


def test_what_was_planned_at_that_moment_does_not_begin(world):
    """A pending rollout of automation's is given up before it touches a host, and planned anew afterwards."""
    sha = world.push()
    world.run(until=lambda: world.newest().state is RolloutState.PENDING)
    frozen(world)
    world.run(seconds=60)
    assert world.newest().state is RolloutState.ERROR
    assert "planned anew" in world.newest().reason
    assert sha not in world.runs().values()
    freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    world.run(seconds=120)
    assert set(world.runs().values()) == {sha}


def test_a_rollout_that_has_begun_goes_on(world):
    """Half a fleet on each release is no state to be frozen in."""
    sha = world.push()
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    frozen(world)
    world.run(seconds=120)
    assert set(world.runs().values()) == {sha}


def in_a_window(world, monkeypatch):
    queue = app(world).queue.model_copy(
        update={"freeze": ("Fri 16:00 - Mon 08:00",), "time_zone": "Europe/Berlin"}
    )
    monkeypatch.setitem(app(world).__dict__, "queue", queue)


def test_a_window_of_the_configuration_binds_as_a_person_does(world, monkeypatch):
    """In the window nothing starts, and after it the reconciler does it by itself."""
    in_a_window(world, monkeypatch)
    held = world.push()
    world.run(seconds=60)
    assert held not in world.runs().values()
    assert waits_for(world) == "frozen until Mon 2026-11-30 08:00 CET, by a window of rollout.toml"
    world.today = datetime(2026, 11, 30, 7, 0, tzinfo=UTC)
    reconcile.sweep(world.deps)
    world.run(seconds=120)
    assert set(world.runs().values()) == {held}


def test_unfreeze_in_a_window_says_that_the_window_still_binds(world, monkeypatch):
    """What a person froze is over, what the configuration freezes is not, and nothing starts."""
    in_a_window(world, monkeypatch)
    frozen(world)
    held = world.push()
    ends = freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    assert ends == datetime(2026, 11, 30, 7, 0, tzinfo=UTC)
    world.run(seconds=60)
    assert held not in world.runs().values()
    with pytest.raises(Conflict, match=r"not frozen by anybody; it is frozen until Mon 2026-11-30 08:00 CET"):
        freezes.unfreeze(app(world), world.deps, who="ann", why="-")


def test_what_is_over_needs_no_unfreeze(world):
    """A freeze that has ended by itself is nobody's any more."""
    frozen(world, until=NOW + timedelta(hours=2))
    world.today += timedelta(hours=2)
    with pytest.raises(Conflict, match="not frozen by anybody"):
        freezes.unfreeze(app(world), world.deps, who="ann", why="-")


def test_a_stop_is_never_frozen(world):
    """Neither the order nor the way back asks: the touched hosts run what they ran before."""
    first = world.newest().commit
    world.push()
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    frozen(world)
    stopping.stop(world.newest().id, world.deps, who="ann", why="slow")
    world.run(seconds=120)
    assert world.newest().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {first}


def test_without_a_list_of_time_zones_utc_is_there(world, monkeypatch):
    """A minimal machine has none: the default configuration has to plan all the same."""
    monkeypatch.setattr("rollout.config.app.ZoneInfo", lambda name: pytest.fail(f"looked for {name}"))
    sha = world.push()
    world.run(seconds=120)
    assert set(world.runs().values()) == {sha}


def test_an_end_that_is_over_is_refused(world):
    """It would be a freeze that nobody gets."""
    with pytest.raises(Conflict, match="is over"):
        frozen(world, until=NOW - timedelta(minutes=1))


@pytest.mark.parametrize("window", ["Fri 16:00 - Mon 08:00", "Sat 13:00 - Mon 08:00"])
def test_a_freeze_that_ends_in_a_window_is_told_with_the_end_of_that(world, window):
    """Whoever reads until when it lasts does not wait for the end of a lunch on a Saturday; one that ends outside says its own end only."""
    queue = app(world).queue.model_copy(update={"freeze": (window,)})
    windowed = app(world).model_copy(update={"queue": queue})
    frozen(world, until=NOW + timedelta(hours=1, minutes=10))
    with world.store.reading() as tx:
        told = freezes.frozen(tx, windowed)
        own = freezes.frozen(tx, app(world))
    assert own == "frozen until Sat 2026-11-28 13:10 UTC by ann: the sale"
    assert told == f"{own}, and then until Mon 2026-11-30 08:00 UTC by a window of rollout.toml"


def test_when_a_freeze_is_over_counts_the_windows_that_go_on_with_it(world):
    """Until the last of both has ended; of an open end, and without a freeze, nobody can say."""
    queue = app(world).queue.model_copy(update={"freeze": ("Sat 13:00 - Mon 08:00",)})
    windowed = app(world).model_copy(update={"queue": queue})

    def over_at():
        with world.store.reading() as tx:
            return freezes.over_at(tx, windowed)

    assert over_at() is None
    frozen(world)
    assert over_at() is None
    freezes.unfreeze(app(world), world.deps, who="ann", why="it has an end")
    frozen(world, until=NOW + timedelta(minutes=30))
    assert over_at() == NOW + timedelta(minutes=30)
    frozen(world, until=NOW + timedelta(hours=2))
    assert over_at() == datetime(2026, 11, 30, 8, 0, tzinfo=UTC)


def test_a_wish_is_granted_when_its_commit_goes_along_with_a_later_one(world):
    """`deploy --now` of a commit that failed, and went out inside of another one, is no word for it after the rollback: the freeze binds it."""
    wanted = world.workshop.push(fails=True)
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("the hotfix", "ann"))
    world.run(seconds=30)
    mended = world.push()
    world.run(until=lambda: world.newest().commit == mended and world.newest().state is RolloutState.DONE)
    assert wanted in world.newest().commits
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="it is bad")
    world.settle()
    frozen(world)
    bars.unbar("shop", wanted, world.deps, who="ben", why="it was another one")
    world.workshop.failing.clear()
    intake.enqueue(app(world), wanted, world.deps, who="ben")
    world.run(seconds=120)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", wanted).state is CommitState.PASSED
    assert world.newest().commit == mended


def test_a_wish_for_what_runs_leaves_nothing_to_wish_for(world):
    """A script says it twice; when what came after that is forced off the branch, a person decides, and nothing goes back by itself."""
    first = world.workshop.commits[-1].sha
    intake.enqueue(app(world), first, world.deps, who="ann", now=Wish("to be sure", "ann"))
    assert wishes(world) == []
    lost = world.push()
    world.settle()
    world.workshop.commits[-1] = replace(world.workshop.commits[-1], sha="f" * 40)
    read(world)
    world.run(seconds=200)
    assert set(world.runs().values()) == {lost}
    assert planning.GONE in waits_for(world)


def test_a_wish_of_a_commit_that_is_forced_off_the_branch_is_withdrawn(world):
    """When it is back on the branch weeks later, it does not go out past the freeze of then by the old word; people were told."""
    first = world.newest().commit
    frozen(world)
    wanted = world.workshop.push()
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("the hotfix", "ann"))
    assert wishes(world) == [wanted]
    last = world.workshop.commits.pop()
    read(world)
    world.run(seconds=5)
    assert wishes(world) == []
    (told,) = (text for title, text in world.notifier.sent if "withdrawn" in title)
    assert told == (
        "ann said: the hotfix; a force-push has taken it off the branch.\nNext: if it is to go out all the same, push it again,"
        f" then rollout deploy {wanted[:12]} --now --reason …"
    )
    world.workshop.commits.append(last)
    read(world)
    world.run(seconds=200)
    assert set(world.runs().values()) == {first}


def test_a_wish_is_granted_when_its_commit_goes_out_below_another_one(world):
    """What runs was forced off the branch, so only what people want goes out: of two that they want the newer one brings both."""
    world.push()
    world.settle()
    world.workshop.commits[-1] = replace(world.workshop.commits[-1], sha="f" * 40)
    frozen(world)
    wanted = ["f" * 40, world.workshop.push()]
    for sha in wanted:
        intake.enqueue(app(world), sha, world.deps, who="ann", now=Wish("the hotfix", "ann"))
    assert sorted(wishes(world)) == sorted(wanted)
    world.run(seconds=200)
    assert set(world.runs().values()) == {wanted[-1]}
    assert wishes(world) == []


def wishes(world):
    with world.store.reading() as tx:
        return [one.sha for one in tx.commits.wanted_now("shop")]


def test_a_wish_ends_when_its_tests_fail(world):
    """Who has them run again later has not said that it may go past the freeze of then."""
    runs = world.newest().commit
    wanted = world.workshop.push("the hotfix", fails=True)
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    world.run(seconds=120)
    told = [text for title, text in world.notifier.sent if "withdrawn" in title]
    assert (wishes(world), len(told)) == ([], 1)
    assert told[0].startswith("ann said: we need it; its tests failed: ")
    frozen(world)
    world.workshop.failing.discard(wanted)
    intake.enqueue(app(world), wanted, world.deps, who="eve")
    world.run(seconds=200)
    assert set(world.runs().values()) == {runs}
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    world.run(seconds=200)
    assert set(world.runs().values()) == {wanted}


@pytest.mark.parametrize("again", [False, True])
def test_a_bar_withdraws_no_wish_that_takes_the_revert_along_too(again, world):
    """What is barred goes out with its revert, which lies below the hotfix: nobody has to say it again; unless that is taken back in its turn."""
    frozen(world)
    below = world.push()
    fix = world.push(f"Revert it\n\nThis reverts commit {below}.")
    if again:
        world.push(f"Revert the revert\n\nThis reverts commit {fix}.")
    world.run(seconds=120)
    wanted = world.workshop.push("the hotfix")
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    bars.bar("shop", below, world.deps, who="ben", why="it loses carts")
    world.run(seconds=120)
    assert (set(world.runs().values()) == {wanted}) is not again
    assert bool(withdrawn(world)) is again


@pytest.mark.parametrize("fix", [False, True])
def test_of_two_peoples_words_on_a_commit_the_later_one_counts(fix, world):
    """A bar said while a `deploy --now` that takes the commit along is in test withdraws that, and tells; a fix of it still goes out."""
    frozen(world)
    below = world.push()
    world.run(seconds=120)
    message = f"the hotfix\n\nThis reverts commit {below}." if fix else "the hotfix"
    wanted = world.workshop.push(message)
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    bars.bar("shop", below, world.deps, who="ben", why="it loses carts")
    world.run(seconds=120)
    assert set(world.runs().values()) == ({wanted} if fix else {world.workshop.commits[0].sha})
    told = [title for title, _ in world.notifier.sent if "withdrawn" in title]
    assert told == ([] if fix else [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"])
    with world.store.reading() as tx:
        events = [event.what for event in tx.events.of_subject("shop", f"commit {wanted}")]
    assert ("deploy --now withdrawn" in events) is not fix


@pytest.mark.parametrize("way", ["stop", "rollback", "to"])
def test_what_a_person_stops_or_rolls_back_no_wish_of_before_takes_along(way, world):
    """Like a bar, `stop` and `rollback` withdraw a `deploy --now` of before that has the bad commit in it, and tell."""
    first = world.newest().commit
    below, wanted = wished_before(world)
    end = RolloutState.FANNING_OUT if way == "stop" else RolloutState.DONE
    world.run(until=lambda: world.newest().commit == below and world.newest().state is end)
    if way == "stop":
        stopping.stop(world.newest().id, world.deps, who="ben", why="it loses carts")
    else:
        to = first if way == "to" else None
        stopping.roll_back_done(app(world), world.deps, to=to, who="ben", why="it loses carts")
    passes(world, wanted)
    assert set(world.runs().values()) == {first}
    told = [title for title, _ in world.notifier.sent if "withdrawn" in title]
    assert told == [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"]


def test_a_rollback_withdraws_no_wish_for_what_mends_it(world):
    """Its revert, wanted by `deploy --now` before the rollback was said, goes out after it."""
    below = world.push()
    world.settle()
    wanted = world.workshop.push(f"the hotfix\n\nThis reverts commit {below}.")
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    stopping.roll_back_done(app(world), world.deps, to=None, who="ben", why="it loses carts")
    world.run(seconds=120)
    assert set(world.runs().values()) == {wanted}


def withdrawn(world):
    world.run(seconds=5)
    return [title for title, _ in world.notifier.sent if "withdrawn" in title]


def test_what_a_canary_bars_later_no_wish_of_before_takes_along(world):
    """Who wanted it out had not seen that: it is withdrawn, which is told, and when it is said again it goes past the bar."""
    first = world.newest().commit
    below, wanted = wished_before(world)
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    frozen(world)
    world.metrics.share = 0.0
    world.run(until=lambda: world.newest().commit == below and world.newest().state in FINISHED)
    world.metrics.share = 1.0
    passes(world, wanted)
    assert set(world.runs().values()) == {first}
    assert withdrawn(world) == [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"]
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("all the same", "ann"))
    world.run(seconds=240)
    assert set(world.runs().values()) == {wanted}


@pytest.mark.parametrize("fix", [None, "itself", "below it"])
def test_what_automation_takes_back_no_wish_of_before_brings_again(fix, tmp_path, monkeypatch):
    """Said while a rollout fanned out well that then fails and is rolled back by itself: only what mends it goes out past the freeze."""
    monkeypatch.setattr(hosts, "IN_A_ROW", 1)
    fan_out = 'mode = "strict"\nmax_failed = 0\non_halt = "roll-back"'
    world = released(tmp_path, monkeypatch, hosts=6, fan_out=fan_out)
    first = world.newest().commit
    below = world.push()
    world.fleet.hosts["web05"].unhealthy.add(below)
    world.run(until=lambda: world.newest().state is RolloutState.FANNING_OUT)
    revert = f"Revert it\n\nThis reverts commit {below}."
    if fix == "below it":
        world.push(revert)
    wanted = world.push(revert if fix == "itself" else "the hotfix")
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    assert world.newest().state is RolloutState.FANNING_OUT
    frozen(world)
    world.run(seconds=240)
    assert set(world.runs().values()) == {wanted if fix else first}
    assert withdrawn(world) == ([] if fix else [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"])


def wished_before(world):
    """A commit, and one above it that somebody wants out, and whose tests do not pass yet."""
    below = world.push()
    wanted = world.workshop.push("the hotfix", fails=True)
    run_tests = world.workshop.run_tests

    def tested(name, config, sha, **more):
        if sha in world.workshop.failing:
            raise ServiceUnavailable("there is no room for them yet")
        return run_tests(name, config, sha, **more)

    world.workshop.run_tests = tested
    intake.enqueue(app(world), wanted, world.deps, who="ann", now=Wish("we need it", "ann"))
    return below, wanted


def passes(world, sha):
    world.workshop.failing.clear()
    intake.enqueue(app(world), sha, world.deps, who="ann")
    world.run(seconds=240)


def test_nobody_says_yes_past_a_freeze_that_cannot_be_read(tmp_path, monkeypatch):
    """Its app's table is wrong: whether it is frozen is not known, and a freeze was gone past without a reason or a record."""
    world = World(tmp_path, monkeypatch, hosts=3, fan_out='confirm = ["fan_out"]')
    world.push()
    world.run(until=lambda: world.newest() is not None and world.newest().state == "halted", seconds=3000)
    frozen(world)
    world.config.left_out["shop"] = "1 to mend"
    with pytest.raises(ConfigError, match="1 to mend"):
        halts.resume(RolloutId(1), world.deps, who="bob")
    with pytest.raises((ConfigError, Conflict)):
        halts.retry(RolloutId(1), world.deps, who="bob")
    assert world.newest().state == "halted"
