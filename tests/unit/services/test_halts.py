"""Past the budget: halt, and what a person can say then."""

from dataclasses import replace

import pytest

from rollout.domain.model import FOREIGN
from rollout.domain.states import CommitState, HostEvent, HostState, RolloutState
from rollout.errors import ConfigError, Conflict, NotFound
from rollout.services import bars, halts, intake, reconcile, stopping
from rollout.store import clock
from tests.support.across import another_app_switches, out_of_the_inventory, recorded, row_of
from tests.support.branch import read, why
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=20, fan_out='max_failed = 1\nmode = "strict"')


def break_on(world, sha, *names):
    for name in names:
        world.fleet.hosts[name].unhealthy.add(sha)


def halted(world, *names):
    """A second release that is unhealthy on these hosts, and has halted for it."""
    good = world.push()
    assert world.settle().state is RolloutState.DONE
    bad = world.push()
    break_on(world, bad, *(names or ("web02", "web03", "web04", "web05")))
    assert world.settle().state is RolloutState.HALTED
    return good, bad


def failed_names(world):
    return [host.name for host in world.rollout_hosts() if host.state is HostState.FAILED]


def test_it_halts_past_the_budget_and_starts_nothing_more(world):
    """Strict mode ends with exactly K+1 failed hosts; the unhealthy ones are back on what they ran."""
    good, bad = halted(world)
    assert len(failed_names(world)) == 2
    world.run(seconds=120)
    assert world.newest().state is RolloutState.HALTED
    assert len(failed_names(world)) == 2
    assert all(world.runs()[name] == good for name in failed_names(world))
    assert sum(bad in host.activations for host in world.fleet.hosts.values()) == 3  # the canary and the two


def test_a_halt_tells_people_the_next_command(world):
    """The notice of a halt names the rollout and what can be typed."""
    halted(world)
    reconcile.tell(world.deps)
    title, body = world.notifier.sent[-1]
    assert "halted" in title
    assert f"rollout show {world.newest().id}" in body


def test_resume_is_refused_while_too_many_have_failed(world):
    """Resuming names the failed hosts and the ways out."""
    halted(world)
    with pytest.raises(Conflict, match="web02, web03") as caught:
        halts.resume(world.newest().id, world.deps, who="me")
    assert "retry" in caught.value.remedy


def test_accepted_failures_leave_the_count_and_it_goes_on(world):
    """With a reason, a person's word lets it go on; the accepted hosts stay failed."""
    halted(world, "web02", "web03")
    with pytest.raises(Conflict, match="reason"):
        halts.resume(world.newest().id, world.deps, who="me", accept_failed=True)
    halts.resume(world.newest().id, world.deps, who="me", why="known broken disks", accept_failed=True)
    assert world.settle().state is RolloutState.DONE
    assert failed_names(world) == ["web02", "web03"]


def test_retry_tries_the_failed_ones_again(world):
    """Once the hosts are mended, retry finishes the rollout with a second attempt on them."""
    _, bad = halted(world, "web02", "web03")
    for host in world.fleet.hosts.values():
        host.unhealthy.clear()
    halts.retry(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {bad}
    assert {host.attempt for host in world.rollout_hosts() if host.name in {"web02", "web03"}} == {2}


def test_the_budget_continues_after_a_retry(world):
    """Hosts that fail again halt it again, with no more hurt than before."""
    halted(world)
    halts.retry(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.HALTED
    assert len(failed_names(world)) == 2


def test_excluded_hosts_leave_the_count(world):
    """A failed host that is excluded no longer counts, and later rollouts leave it alone."""
    halted(world, "web02", "web03")
    assert halts.exclude("shop", ["web02"], world.deps, who="me", why="bad memory") == []
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    world.push()
    assert world.settle().total == 19
    halts.include("shop", ["web02"], world.deps, who="me")
    world.push()
    assert world.settle().total == 20


def test_excluding_an_unknown_host_is_not_found(world):
    """A name that no host has is an error that says so."""
    first_release(world)
    with pytest.raises(NotFound, match="web99"):
        halts.exclude("shop", ["web99"], world.deps, who="me", why="?")


def test_a_known_host_is_excluded_whatever_its_inventory_says(world, monkeypatch):
    """What the store knows is enough, so a program that fails keeps no host in; one that nobody has seen is asked for."""
    halted(world, "web02", "web03")

    def fails(_app):
        raise ConfigError("the inventory ended with status 3")

    monkeypatch.setattr(world.fleet, "members", fails)
    assert halts.exclude("shop", ["web02"], world.deps, who="me", why="bad memory") == []
    halts.resume(world.newest().id, world.deps, who="me")
    assert failed_names(world) == ["web03"]
    with pytest.raises(ConfigError, match="status 3"):
        halts.exclude("shop", ["web02", "web99"], world.deps, who="me", why="?")


def test_stop_brings_every_touched_host_back_and_bars_the_commit(world):
    """Stopping a halted rollout ends with every host on what it ran before."""
    good, bad = halted(world)
    stopping.stop(world.newest().id, world.deps, who="me", why="no good")
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {good}
    with world.store.reading() as tx:
        assert tx.commits.get("shop", bad).state is CommitState.BARRED
    world.run(seconds=60)
    assert world.newest().commit == bad  # nothing ships the same again


def test_stop_with_keep_leaves_the_hosts_as_they_are(world):
    """With --keep the rollout is stopped and no host goes back."""
    _, bad = halted(world)
    before = world.runs()
    stopping.stop(world.newest().id, world.deps, who="me", why="look at it", keep=True)
    assert world.settle().state is RolloutState.STOPPED
    assert world.runs() == before
    assert bad in before.values()


def test_stopping_twice_changes_nothing(world):
    """A second stop is answered like the first."""
    halted(world)
    number = world.newest().id
    stopping.stop(number, world.deps, who="me", why="no good")
    stopping.stop(number, world.deps, who="you", why="really")
    world.settle()
    stopping.stop(number, world.deps, who="you", why="really")
    assert world.newest().reason.startswith("no good")


def test_on_halt_roll_back_needs_nobody(tmp_path, monkeypatch):
    """With on_halt = "roll-back" a halt ends in a rollback by itself."""
    world = World(tmp_path, monkeypatch, hosts=10, fan_out='max_failed = 0\non_halt = "roll-back"')
    good = world.push()
    world.settle()
    bad = world.push()
    break_on(world, bad, "web04")
    world.run(until=lambda: world.newest().commit == bad and world.newest().state is RolloutState.ROLLED_BACK)
    assert world.newest().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {good}


def test_stages_named_in_confirm_wait_for_a_yes(tmp_path, monkeypatch):
    """Each named stage halts before it begins, touches nothing until then, and goes on with `resume`."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out='confirm = ["canary", "fan_out"]')
    sha = world.push()
    first = world.settle()
    assert (first.state, first.halted_stage) == (RolloutState.HALTED, RolloutState.DEPLOYING_CANARY)
    assert "waits for your yes" in first.reason
    assert set(world.runs().values()) == {None}
    halts.resume(first.id, world.deps, who="me")
    second = world.settle()
    assert (second.state, second.halted_stage) == (RolloutState.HALTED, RolloutState.FANNING_OUT)
    assert list(world.runs().values()).count(sha) == 1
    halts.resume(first.id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE


def test_an_inconclusive_canary_halts_and_a_person_may_accept_it(tmp_path, monkeypatch):
    """No traffic never passes; a person's reason does, and is kept."""
    world = World(tmp_path, monkeypatch, hosts=5, canary='deadline = "20s"')
    world.metrics.rate = 0
    sha = world.push()
    doubted = world.settle()
    assert (doubted.state, doubted.canary_status) == (RolloutState.HALTED, "inconclusive")
    halts.resume(doubted.id, world.deps, who="me", why="no traffic at night", accept_canary=True)
    assert world.settle().state is RolloutState.DONE
    assert "no traffic at night" in world.newest().canary_reason
    assert set(world.runs().values()) == {sha}


def test_resuming_an_inconclusive_canary_measures_again(tmp_path, monkeypatch):
    """After `resume` the old samples count for nothing."""
    world = World(tmp_path, monkeypatch, hosts=5, canary='deadline = "20s"')
    world.metrics.rate = 0
    world.push()
    number = world.settle().id
    world.metrics.rate = 100
    halts.resume(number, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE


def test_inconclusive_fails_where_the_policy_says_so(tmp_path, monkeypatch):
    """With on_inconclusive = "fail" the canary goes back."""
    world = World(tmp_path, monkeypatch, hosts=5, canary='deadline = "20s"\non_inconclusive = "fail"')
    world.metrics.rate = 0
    world.push()
    assert world.settle().state is RolloutState.ROLLED_BACK


def test_a_done_rollout_goes_back_to_what_each_host_ran(world):
    """`rollback` brings every host to its own previous release."""
    first = first_release(world)
    second = world.push()
    world.settle()
    assert set(world.runs().values()) == {second}
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="slow")
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {first}


def test_a_rollback_to_a_named_commit_bars_all_after_it(world):
    """`rollback --to` takes the whole fleet there; what came after cannot ship again."""
    shas = []
    for _ in range(3):
        shas.append(world.push())
        world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=shas[0][:40], who="me", why="slow")
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {shas[0]}
    with world.store.reading() as tx:
        assert [str(tx.commits.get("shop", sha).state) for sha in shas] == ["passed", "barred", "barred"]


def test_the_first_release_rolled_back_leaves_hosts_without_one(world):
    """No previous release: `current` is removed, and the rollout says so."""
    first_release(world)
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="no")
    ended = world.settle()
    assert set(world.runs().values()) == {None}
    assert ended.reason.startswith("no; without a release, as there was none in /srv/shop before: web01, ")
    assert "brought to" not in ended.reason  # there is nothing that the fleet runs


def test_the_first_release_rolled_back_leaves_what_was_put_in_its_place_by_hand(world):
    """Our release is not in use there any more: the host is back, the link stays, and that is what is recorded of it (I5)."""
    first_release(world)
    world.fleet.hosts["web07"].use(FOREIGN)
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="no")
    ended = world.settle()
    assert world.runs() == dict.fromkeys(world.runs()) | {"web07": FOREIGN}
    row, its = row_of(world, ended.id, "web07"), recorded(world, "web07")
    assert (row.state, row.release, its.release, its.owes) == (HostState.ROLLED_BACK, FOREIGN, FOREIGN, False)
    assert "; with what somebody has put there by hand: web07" in ended.reason


def test_a_host_that_cannot_be_rolled_back_is_named_and_tried_again(world):
    """The rollout ends with its name; when it comes back it is rolled back all the same."""
    good, _ = halted(world)
    lame = failed_names(world)[0]
    canary = world.fleet.hosts["web01"]
    canary.unreachable = True
    stopping.stop(world.newest().id, world.deps, who="me", why="no good")
    ended = world.settle()
    assert ended.state is RolloutState.ROLLED_BACK
    assert "not back with the others: web01" in ended.reason
    assert f"`rollout show {ended.id}` says who is not" in ended.reason  # true also when it is, in the end
    canary.unreachable = False
    world.run(seconds=120, until=lambda: canary.current == good)
    assert canary.current == good
    assert world.runs()[lame] == good


def test_a_rollback_to_a_barred_commit_is_refused(world):
    """A rollback goes back: never to what was barred, nor to what is newer than what runs."""
    shas = []
    for _ in range(3):
        shas.append(world.push())
        world.settle()
    app = world.config.app(None)
    stopping.roll_back_done(app, world.deps, to=shas[0], who="me", why="slow")
    world.settle()
    before = world.runs()
    with pytest.raises(Conflict, match="barred"):
        stopping.roll_back_done(app, world.deps, to=shas[2], who="me", why="again")
    world.run(seconds=30)
    assert world.runs() == before


def test_a_rollback_to_a_named_commit_names_the_hosts_that_it_leaves_alone(world):
    """A host that was excluded meanwhile stays on what it ran, and the rollout's end says so."""
    first_release(world)
    halts.exclude("shop", ["web07"], world.deps, who="me", why="broken disk")
    second = world.push()
    world.settle()
    world.push()
    world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=second, who="me", why="slow")
    assert "not gone back with the others, since it never reached them: web07" in world.settle().reason


def test_after_a_rollback_to_a_commit_the_next_rollback_starts_from_there(world):
    """`rollback` goes back from what the fleet runs, not from a release that it has left already."""
    shas = []
    for _ in range(4):
        shas.append(world.push())
        world.settle()
    app = world.config.app(None)
    stopping.roll_back_done(app, world.deps, to=shas[1], who="me", why="slow")
    assert world.settle().state is RolloutState.ROLLED_BACK
    second = stopping.roll_back_done(app, world.deps, to=None, who="me", why="still slow")
    assert second.commit == shas[1]
    world.run(seconds=60)
    assert set(world.runs().values()) == {shas[0]}


def lasted(world):
    """How long the app's newest rollout took."""
    with world.store.reading() as tx:
        return tx.rollouts.durations("shop")[0]


@pytest.mark.parametrize("boot", [False, True])
def test_a_night_at_a_halt_is_not_how_long_a_rollout_takes(world, monkeypatch, boot):
    """Durations leave halts out, each of several, and also when the machine was started again meanwhile."""
    halted(world, "web02", "web03")
    number = world.newest().id
    for _ in range(2):
        world.seconds += 1200.0  # as good as a night, which takes long to be judged
        if boot:
            monkeypatch.setattr(clock, "boot_of", lambda _connection, now=world.seconds: f"boot at {now}")
            world.seconds = 3.0
            world.store.prepare()
        halts.retry(number, world.deps, who="me")
        assert age_s(world) < 600.0
        assert world.settle().state is RolloutState.HALTED
    for name in ("web02", "web03"):
        world.fleet.hosts[name].unhealthy.clear()
    halts.retry(number, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert 10.0 < lasted(world) < 600.0


def age_s(world):
    with world.store.reading() as tx:
        return tx.rollouts.age_s(world.newest())


def asks_first(tmp_path, monkeypatch, stage="canary"):
    """A fleet where this stage waits for a yes; its first release is out, and the next one waits."""
    world = World(tmp_path, monkeypatch, hosts=3, fan_out=f'mode = "strict"\nconfirm = ["{stage}"]')
    world.push()
    assert world.settle().state is RolloutState.HALTED
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    waits = world.push()
    assert world.settle().reason == f"waits for your yes before {stage.replace('_', '-')}"
    return world, waits


def test_what_is_reverted_before_its_yes_waits_for_another_yes_together_with_its_revert(
    tmp_path, monkeypatch
):
    """The rollout is set aside untouched, who was asked is told, and what he is asked now is for both."""
    world, reverted = asks_first(tmp_path, monkeypatch)
    before, asked = world.runs(), world.newest()
    fix = world.push(f"Revert it\n\nThis reverts commit {reverted}.")
    with pytest.raises(Conflict, match=f"ships only together with {fix[:12]}"):
        halts.resume(asked.id, world.deps, who="me")
    assert f"ships only together with {fix[:12]}" in why(world, reverted).because
    world.run(seconds=20)
    with world.store.reading() as tx:
        aside = tx.rollouts.get(asked.id)
    assert (aside.state, world.runs()) == (RolloutState.ERROR, before)
    assert (world.newest().commits, world.newest().state) == ((reverted, fix), RolloutState.HALTED)
    reconcile.tell(world.deps)
    assert any(f"rollout {asked.id} needs no yes any more" in title for title, _ in world.notifier.sent)
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {fix}


def test_a_revert_of_something_else_leaves_what_waits_for_its_yes(tmp_path, monkeypatch):
    """Only what the yes would ship counts."""
    world, waits = asks_first(tmp_path, monkeypatch)
    world.push(f"Revert it\n\nThis reverts commit {world.newest().previous}.")
    world.run(seconds=20)
    assert (world.newest().commits, world.newest().state) == ((waits,), RolloutState.HALTED)


def test_what_is_reverted_before_its_fan_out_gets_no_yes_and_goes_out_with_its_revert(tmp_path, monkeypatch):
    """Who was asked is told, once; the yes is refused and names what leads on, which takes the canary back and brings both."""
    world, reverted = asks_first(tmp_path, monkeypatch, "fan_out")
    asked, before = world.newest(), world.runs()
    assert reverted in before.values()
    fix = world.push(f"Revert it\n\nThis reverts commit {reverted}.")
    words = f"ships only together with {fix[:12]}, which undoes it"
    assert words in why(world, reverted).because
    for order in (halts.resume, halts.retry):
        with pytest.raises(Conflict):
            order(asked.id, world.deps, who="me")
    with pytest.raises(Conflict, match=words) as refused:
        halts.resume(asked.id, world.deps, who="me", why="looks good")
    assert f"rollout stop {asked.id} takes it back" in refused.value.remedy
    world.run(seconds=60)
    assert words in world.newest().reason
    told = [body for title, body in world.notifier.sent if f"{asked.id} is not to get your yes" in title]
    assert [f"rollout stop {asked.id}" in body for body in told] == [True]
    assert world.runs() == before
    stopping.stop(asked.id, world.deps, who="me", why="reverted")
    world.run(until=lambda: world.newest().id > asked.id and world.newest().state is RolloutState.HALTED)
    assert (world.newest().commits, world.newest().reason) == (
        (reverted, fix),
        "waits for your yes before fan-out",
    )
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {fix}


def forced_off(world):
    """What waits is not on the branch any more, which has another commit in its place."""
    instead = replace(world.workshop.commits.pop(), sha="e" * 40)
    world.workshop.commits.append(instead)
    read(world)
    return instead.sha


@pytest.mark.parametrize("stage", ["canary", "fan_out"])
def test_what_is_forced_off_the_branch_gets_no_yes(tmp_path, monkeypatch, stage):
    """That would ship it to all hosts, and then nobody knows what replaces it: it is refused by its reason until another one asks."""
    world, gone = asks_first(tmp_path, monkeypatch, stage)
    asked = world.newest()
    instead = forced_off(world)
    words = f"commit {gone[:12]} is no longer on the branch"
    assert words in why(world, gone).because
    with pytest.raises(Conflict, match=words) as refused:
        halts.resume(asked.id, world.deps, who="me")
    if stage == "fan_out":
        assert f"rollout stop {asked.id} takes it back" in refused.value.remedy
        world.run(seconds=60)
        assert words in world.newest().reason
        stopping.stop(asked.id, world.deps, who="me", why="forced off")
    world.run(until=lambda: world.newest().id > asked.id and world.newest().state is RolloutState.HALTED)
    title = (
        f"{asked.id} is not to get your yes" if stage == "fan_out" else f"{asked.id} needs no yes any more"
    )
    assert [words in body for its, body in world.notifier.sent if title in its] == [True]
    assert world.newest().commits == (instead,)
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {instead}


@pytest.mark.parametrize("stage", ["canary", "fan_out"])
def test_what_is_barred_gets_no_yes(tmp_path, monkeypatch, stage):
    """The yes is for what automation would ship: before its canary it is set aside, before its fan-out the yes is refused until the bar is taken back."""
    world, bad = asks_first(tmp_path, monkeypatch, stage)
    asked, before = world.newest(), world.runs()
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    words = f"commit {bad[:12]}, which it would bring, is barred since it was planned"
    assert why(world, bad).because.count("is barred") == 1
    with pytest.raises(Conflict, match=words):
        halts.resume(asked.id, world.deps, who="me")
    world.run(seconds=60)
    title = (
        f"{asked.id} is not to get your yes" if stage == "fan_out" else f"{asked.id} needs no yes any more"
    )
    assert [words in body for its, body in world.notifier.sent if title in its] == [True]
    assert (world.newest().id, world.runs()) == (asked.id, before)
    bars.unbar("shop", bad, world.deps, who="ann", why="it is not")
    world.run(until=lambda: world.newest().reason == f"waits for your yes before {stage.replace('_', '-')}")
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {bad}


def test_a_revert_that_is_forced_off_the_branch_gives_the_yes_back(tmp_path, monkeypatch):
    """What is said of it is true at every moment."""
    world, waits = asks_first(tmp_path, monkeypatch, "fan_out")
    world.push(f"Revert it\n\nThis reverts commit {waits}.")
    world.run(seconds=20)
    assert "which undoes it" in world.newest().reason
    world.workshop.commits.pop()
    read(world)
    world.run(seconds=20)
    assert world.newest().reason == "waits for your yes before fan-out"
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {waits}


@pytest.mark.parametrize("forced", [False, True])
def test_what_a_person_wanted_out_gets_its_yes_whatever_is_reverted(tmp_path, monkeypatch, forced):
    """He said so of this very commit; nor does a force-push take that from him."""
    world = World(tmp_path, monkeypatch, hosts=3, fan_out='confirm = ["fan_out"]')
    wanted = world.push()
    its = intake.Wish("urgent", "ann")
    intake.enqueue(world.config.app(None), wanted, world.deps, who="ann", now=its)
    assert world.settle().state is RolloutState.HALTED
    assert world.newest().requested_by == "ann"
    if forced:
        forced_off(world)
    else:
        world.push(f"Revert it\n\nThis reverts commit {wanted}.")
    world.run(seconds=20)
    halts.resume(world.newest().id, world.deps, who="me")
    world.run(until=lambda: set(world.runs().values()) == {wanted}, seconds=60)
    assert set(world.runs().values()) == {wanted}


def taken_over(world, monkeypatch, *names):
    """These machines are another app's, which ships to them, in the same folder; nobody has read the inventory since."""
    out_of_the_inventory(world, monkeypatch, *names)
    world.seconds += 1.0
    with world.store.transaction() as tx:
        for number, name in enumerate(names):
            another_app_switches(tx, name, app=f"site{number}")
    for name in names:
        world.fleet.hosts[name].use("b" * 40)


@pytest.mark.parametrize("how", ["resume", "retry"])
def test_who_is_another_apps_by_now_is_not_switched_by_what_goes_on(world, monkeypatch, how):
    """A failed one and one whose turn had not come went to another app while it was halted: they are left out, and the log says why."""
    _, bad = halted(world)
    number, failed = world.newest().id, failed_names(world)
    waits = next(host.name for host in world.rollout_hosts() if host.state is HostState.PREPARED)
    moved = {failed[0], waits}
    taken_over(world, monkeypatch, *moved)
    for host in world.fleet.hosts.values():
        host.unhealthy.clear()
    if how == "retry":
        halts.retry(number, world.deps, who="ann")
    else:
        halts.resume(number, world.deps, who="ann", why="known", accept_failed=True)
    assert world.settle().state is RolloutState.DONE
    assert {world.runs()[name] for name in moved} == {"b" * 40}
    assert {row_of(world, number, name).state for name in moved} == {HostState.EXCLUDED}
    others = {name for name in world.runs() if name not in {*moved, failed[1]}}
    assert {world.runs()[name] for name in others} == {bad}
    with world.store.reading() as tx:
        said = [event.why for event in tx.events.of_rollout(number) if event.what == HostEvent.EXCLUDE]
    assert said == ["another app has switched it since"] * 2


def test_who_is_another_apps_by_now_is_left_as_it_is_by_a_stop(world, monkeypatch):
    """Nobody has read the inventory while it was halted, and the host serves another app: it is named, and not switched."""
    good, _ = halted(world)
    number = world.newest().id
    done = next(host.name for host in world.rollout_hosts() if host.state is HostState.DONE)
    taken_over(world, monkeypatch, done)
    stopping.stop(number, world.deps, who="ann", why="bad")
    stopped = world.settle()
    assert stopped.state is RolloutState.ROLLED_BACK
    assert f"left as they are, since they have left the fleet: {done}" in stopped.reason
    assert world.runs()[done] == "b" * 40
    assert {release for name, release in world.runs().items() if name != done} == {good}


@pytest.mark.parametrize("told", [True, False])
def test_whom_another_app_has_only_tried_goes_back_with_its_stop(world, monkeypatch, told):
    """Its canary there failed, and it was given back what was found on it, which is what is stopped here; whether or not the inventory has it."""
    good, bad = halted(world)
    number = world.newest().id
    done = next(host.name for host in world.rollout_hosts() if host.state is HostState.DONE)
    world.seconds += 1.0
    with world.store.transaction() as tx:
        another_app_switches(tx, done, state="rolled_back", release=bad)
    if not told:
        out_of_the_inventory(world, monkeypatch, done)
    stopping.stop(number, world.deps, who="ann", why="bad")
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {good}


def test_a_fan_out_that_begins_leaves_out_who_is_another_apps_by_now(world, monkeypatch):
    """A canary may bake for hours, and hosts go to another app meanwhile."""
    world.push()
    world.settle()
    bad = world.push()
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    number = world.newest().id
    taken_over(world, monkeypatch, "web07")
    assert world.settle().state is RolloutState.DONE
    assert (row_of(world, number, "web07").state, world.runs()["web07"]) == (HostState.EXCLUDED, "b" * 40)
    assert {release for name, release in world.runs().items() if name != "web07"} == {bad}
