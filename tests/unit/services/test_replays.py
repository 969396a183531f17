"""Past canaries judged once more, and what their word rests on."""

from dataclasses import replace

import pytest

from rollout.domain.judge import judge
from rollout.domain.verdict import Interval, Policy, Status
from rollout.errors import ConfigError
from rollout.services import canaries, evidence, halts
from rollout.services.replays import Then, replay, under_way
from tests.support.fakes import a_deps, a_rollout
from tests.support.judged import CANARY, OTHERS, a_judged_rollout, a_watched_rollout
from tests.support.traces import on_canary, story

OWN = Policy(bake_s=10.0)  # of the fakes' configuration


@pytest.fixture
def deps(tmp_path):
    """One app, shop, with four hosts, and a baseline of three."""
    made = a_deps(tmp_path)
    yield made
    made.store.close()


def trace(rate=0.01, until=100, **given):
    rate = on_canary(rate, canaries=(CANARY,)) if isinstance(rate, float) else rate
    return story(canaries=(CANARY,), baseline=OTHERS, rate=rate, until=until, **given)


def replayed(deps, rollout, **changes):
    with deps.store.reading() as tx:
        return replay(tx, tx.rollouts.get(rollout.id), changes)


def shown(deps, rollout, *most):
    with deps.store.reading() as tx:
        return evidence.canary(tx, tx.rollouts.get(rollout.id), *most)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ({"rps": 300}, Then.PASS),
        ({"rate": 0.05}, Then.FAIL),
        ({"rps": 0, "until": 700}, Then.INCONCLUSIVE),
        ({"until": 20}, Then.UNDECIDED),
    ],
)
def test_the_replay_by_its_own_policy_gives_the_word_that_fell(deps, given, then):
    """Pass, fail, doubt, and none."""
    samples = trace(**given)
    rollout = a_judged_rollout(deps, samples)
    found = replayed(deps, rollout)
    assert found.then is then
    assert found.decided is (then is not Then.UNDECIDED)
    if found.decided:
        assert found.verdict == judge(samples, OWN)
    assert found.stopped is (then in {Then.FAIL, Then.INCONCLUSIVE})


def test_another_policy_gives_another_word(deps):
    """2 % bad answers on every host pass at 95 %; at 99 % they would not have passed then, and blame nobody."""
    rollout = a_judged_rollout(deps, trace(rate=lambda *_: 0.02, rps=500))
    assert replayed(deps, rollout).verdict.status is Status.PASS
    found = replayed(deps, rollout, minimum_good=0.99)
    assert (found.then, found.decided, found.stopped) == (Then.PASS, False, False)
    assert found.policy == replace(OWN, minimum_good=0.99)


def test_what_was_read_after_the_word_is_of_the_fan_out(deps):
    """By another policy too, only what was read until the word fell is judged: later the baseline's hosts are switched."""
    samples = trace(until=300, rps=300, rate=on_canary(1.0, since=100, canaries=(CANARY,)))
    rollout = a_judged_rollout(deps, samples)
    assert replayed(deps, rollout).verdict.t == 10.0
    later = replayed(deps, rollout, bake_s=200.0)
    assert (later.verdict.t, later.decided) == (10.0, False)


def test_what_only_some_hosts_have_told_of_is_not_judged(deps):
    """The same horizon as the watch has: the canary's newest bins wait for the baseline's."""
    samples = [one for one in trace(rate=0.05) if one.role == "canary" or one.t <= 4]
    rollout = a_watched_rollout(deps, [one for one in samples if one.t <= 8])
    assert replayed(deps, rollout).verdict.t == 4.0


def test_a_canary_that_was_measured_anew_is_judged_by_its_second_measuring(deps):
    """A resume forgets the first one's samples, so the replay tells of the second."""
    first = a_watched_rollout(deps, trace(rate=0.05))
    with deps.store.transaction() as tx:
        halted = tx.rollouts.change(
            first, "halt", who="test", halted_stage=first.state, canary_status="inconclusive"
        )
    halts.resume(halted.id, deps, who="test")
    with deps.store.transaction() as tx:
        assert tx.samples.of(first.id) == []
        tx.samples.add(first.id, trace(rps=300))
    assert replayed(deps, first).verdict.status is Status.PASS


def test_the_watch_and_the_replay_say_the_same(deps, monkeypatch):
    """What `evaluate` acted on is what the replay says of the stored samples, to the letter."""
    rollout = a_watched_rollout(deps, trace(rate=0.05))
    monkeypatch.setattr(canaries, "_read", lambda host, **_: canaries.Reading(host, [], None))
    with deps.store.transaction() as tx:
        tx.rollouts.update(tx.rollouts.get(rollout.id), ready_at=tx.now(), due_at=0.0)
    canaries.evaluate(rollout.id, deps)
    with deps.store.reading() as tx:
        told = tx.rollouts.get(rollout.id)
    assert told.canary_status == "fail"
    assert replayed(deps, rollout).verdict.explanation == told.canary_reason
    assert shown(deps, rollout)["explanation"] == told.canary_reason


@pytest.mark.parametrize(
    ("given", "then", "missing"),
    [
        ({"samples": []}, Then.UNDECIDED, "nothing was measured"),
        ({"samples": [], "accepted": True}, Then.ACCEPTED, "accepted, nothing was measured"),
        ({"samples": trace(rate=0.05), "ended_days_ago": 31}, Then.FAIL, "no samples after 30 days"),
    ],
)
def test_without_samples_nothing_is_guessed(deps, given, then, missing):
    """It is said why there is nothing to judge; samples that may be gone in part count as gone."""
    found = replayed(deps, a_judged_rollout(deps, **given))
    assert (found.then, found.verdict, found.stopped) == (then, None, False)
    assert missing in found.missing


def test_a_canary_that_never_was_watched_is_told_apart(deps):
    """One that failed at its start, one that was stopped before, and one that has not begun."""
    stopped = a_rollout(deps, state="error")
    assert replayed(deps, stopped).missing == "never judged"
    failed = a_rollout(deps, state="rolled_back")
    with deps.store.transaction() as tx:
        tx.rollouts.update(
            tx.rollouts.get(failed.id), canary_status="fail", canary_reason="canary web1 failed"
        )
    assert replayed(deps, failed).missing == "failed before it was watched"
    assert replayed(deps, a_rollout(deps, state="pending")).missing == "not judged yet"


def test_a_person_who_accepted_is_told_apart_from_a_pass(deps):
    """Then accepted, now what the judge says of it."""
    found = replayed(deps, a_judged_rollout(deps, trace(rps=0, until=700), accepted=True))
    assert (found.then, found.verdict.status, found.stopped) == (Then.ACCEPTED, Status.INCONCLUSIVE, True)


def test_a_policy_that_is_none_is_refused(deps):
    """A bake that is longer than the rollout's own deadline wants a deadline too."""
    rollout = a_judged_rollout(deps, trace())
    with pytest.raises(ConfigError, match="a deadline of 10m is shorter than a bake of 20m"):
        replayed(deps, rollout, bake_s=1200.0)


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ("pending", None, True),
        ("evaluating_canary", "running", True),
        ("fanning_out", "pass", False),
        ("done", "pass", False),
        ("error", None, False),
    ],
)
def test_what_is_not_judged_yet(deps, state, status, expected):
    """Until a word has fallen, or none can any more."""
    assert under_way(replace(a_rollout(deps, state=state), canary_status=status)) is expected


def test_the_document_explains_the_word_that_was_told(deps):
    """Status, one of the eight words, when it fell, the numbers, the policy, and bins of both sides."""
    found = shown(deps, a_judged_rollout(deps, trace(rate=0.05)))
    assert (found["status"], found["reason"], found["t"]) == ("fail", "error rate", 8.0)
    assert found["explanation"].startswith("shop01 answered 5xx to")
    assert found["evidence"]["bad"] > 10
    assert found["policy"]["minimum_good"] == 0.95
    assert len(found["bins"]) <= evidence.MOST_BINS
    assert {"requests", "bad", "observed", "host_s"} == set(found["bins"][0]["canary"])
    assert sum(one["canary"]["requests"] for one in found["bins"] if one["t"] <= 0) > 50_000


@pytest.mark.parametrize(
    "given", [{"samples": [], "accepted": True}, {"samples": trace(rps=0, until=700), "accepted": True}]
)
def test_a_word_that_the_samples_do_not_give_is_not_explained_by_them(deps, given):
    """A person's word has no reason of the judge's, no time and no numbers."""
    found = shown(deps, a_judged_rollout(deps, **given))
    assert (found["status"], found["reason"], found["t"], found["evidence"]) == ("pass", None, None, {})
    assert found["explanation"] == "accepted by cli:ann: known"


def test_a_watch_under_way_has_its_numbers(deps):
    """Running, with the doubt that holds, and what was seen by now."""
    found = shown(deps, a_watched_rollout(deps, trace(until=20)), 30)
    assert (found["status"], found["reason"], found["t"]) == ("running", "not enough evidence", 20.0)
    assert 0 < len(found["bins"]) <= 30


def test_doubt_that_fails_by_policy_is_explained(deps):
    """`on_inconclusive = "fail"` makes a fail of doubt: the doubt is its reason."""
    rollout = a_judged_rollout(deps, trace(rps=0, until=700))
    strict = {**rollout.policy, "canary": {**rollout.policy["canary"], "on_inconclusive": "fail"}}
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.update(rollout, policy=strict, canary_status="fail")
    assert shown(deps, rollout)["reason"] == "no traffic"


def test_an_unread_canary_is_not_a_quiet_one(deps):
    """Observed false is not zero requests."""
    unread = [
        Interval(2.0 * step, 2.0, CANARY, "canary", observed=step != 2, counts={"2xx": 0})
        for step in (1, 2, 3)
    ]
    found = shown(deps, a_watched_rollout(deps, unread))
    assert [one["canary"]["observed"] for one in found["bins"]] == [True, False, True]
