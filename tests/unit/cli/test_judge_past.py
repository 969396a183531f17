"""`rollout judge --rollout` and `--last`: past rollouts, by their own policy or another."""

import pytest

from tests.support.fakes import a_rollout
from tests.support.judged import CANARY, OTHERS, a_judged_rollout, a_watched_rollout
from tests.support.traces import on_canary, story


def trace(rate=0.01, until=60, history=100, **given):
    rate = on_canary(rate, canaries=(CANARY,)) if isinstance(rate, float) else rate
    return story(canaries=(CANARY,), baseline=OTHERS, rate=rate, until=until, history=history, **given)


BAD = trace(rate=0.5)
GOOD = trace(rate=lambda *_: 0.001, rps=500)
SHARED = trace(rate=lambda *_: 0.02, rps=500)


def test_one_rollout_is_the_document_of_a_file_and_whose_it_is(cli, deps):
    """Status, reason, explanation, t and evidence; its number, what was told then, and whether the word fell."""
    rollout = a_judged_rollout(deps, BAD)
    told = cli("judge", "--rollout", rollout.id, "--json")
    assert told.code == 0
    keys = {"status", "reason", "explanation", "t", "evidence", "rollout", "recorded", "decided"}
    assert set(told.json) == keys
    assert (told.json["rollout"], told.json["status"], told.json["decided"]) == (rollout.id, "fail", True)
    assert told.json["recorded"] == {
        "status": "fail",
        "reason": told.json["explanation"],
        "accepted": False,
    }


def test_one_rollout_for_people(cli, deps):
    """What was said then and what is said now, each with its sentence; and by which policy."""
    rollout = a_judged_rollout(deps, BAD)
    lines = cli("judge", "--rollout", rollout.id, "--minimum-good", "40%").out.splitlines()
    assert lines[0] == f"rollout {rollout.id} of shop, commit {rollout.commit[:12]}"
    assert lines[1].startswith("then fail: shop01 answered 5xx to")
    assert lines[2] == "now, with minimum_good 40%, fail: outage, after 6 s"
    assert lines[3].startswith("shop01 answered 5xx to")


def test_several_are_a_list_newest_first(cli, deps):
    """Whichever way they are named: repeated, with commas, as a range; each once."""
    first, second, third = (a_judged_rollout(deps, one) for one in (BAD, GOOD, BAD))
    for words in (
        ("--rollout", "1", "--rollout", "3", "--rollout", "2"),
        ("--rollout", "1,2-3,3"),
        ("--rollout", "1-99"),
        ("--last", "5"),
    ):
        told = cli("judge", *words, "--json").json
        assert [one["rollout"] for one in told] == [third.id, second.id, first.id], words
    assert [one["rollout"] for one in cli("judge", "--last", "1", "--json").json] == [third.id]


def test_which_of_the_last_would_have_been_stopped(cli, deps):
    """One command, one table within 80 columns, and a sentence that counts them: also those of which nobody can tell."""
    a_judged_rollout(deps, trace(rps=0, until=700), accepted=True)
    for one in (BAD, GOOD, SHARED):
        a_judged_rollout(deps, one)
    a_judged_rollout(deps, GOOD, ended_days_ago=40)
    a_watched_rollout(deps, GOOD)  # not past
    lines = cli("judge", "--last", "50", "--minimum-good", "99%").out.splitlines()
    assert lines[0].split() == ["id", "commit", "then", "now", "after", "why"]
    found = {line.split()[0]: " ".join(line.split()[2:]) for line in lines[1:6]}
    assert found == {
        "5": "pass - - no samples after 30 days",
        "4": "pass undecided 16 s shared incident",
        "3": "pass pass 20 s no harm found",
        "2": "fail fail 6 s outage",
        "1": "accepted inconclusive 600 s no traffic",
    }
    assert max(map(len, lines[:6])) <= 80
    assert lines[7] == (
        "2 of 5 rollouts would have been stopped with minimum_good 99% (1 of them had gone on)."
        " 1 would have been watched for longer than it was. 1 cannot be judged again."
    )


def test_without_options_each_is_judged_by_the_policy_it_had(cli, deps):
    """And all that is past and nothing else is told."""
    a_judged_rollout(deps, GOOD)
    told = cli("judge", "--last", "50").out
    assert "0 of 1 rollout would have been stopped by the policy of then." in told
    assert "pass  pass" in told


def test_other_thresholds_are_words_of_the_policy(cli, deps):
    """As rollout.toml has them."""
    a_judged_rollout(deps, GOOD)
    words = (
        "--bake",
        "5s",
        "--deadline",
        "2m",
        "--margin",
        "0.5%",
        "--good",
        "2xx,3xx",
        "--minimum-good",
        "0.9",
    )
    told = cli("judge", "--last", "3", *words).out
    assert "with good 2xx+3xx, minimum_good 90%, bake 5s, deadline 2m, margin 0.5%." in told


def test_without_samples_it_is_said_and_not_guessed(cli, deps):
    """As document, status is null; for people there is the reason."""
    rollout = a_judged_rollout(deps, [], accepted=True)
    told = cli("judge", "--rollout", rollout.id, "--json").json
    assert (told["status"], told["t"], told["evidence"], told["decided"]) == (None, None, {}, False)
    assert told["explanation"] == "accepted, nothing was measured"
    assert told["recorded"] == {"status": "pass", "reason": "accepted by cli:ann: known", "accepted": True}
    shown = cli("judge", "--rollout", rollout.id).out
    assert "then accepted: accepted by cli:ann: known\nnow nothing: accepted, nothing was measured" in shown


def test_what_is_undecided_where_the_samples_end_is_inconclusive(cli, deps):
    """As of a file; and it is said that no word fell."""
    rollout = a_judged_rollout(deps, GOOD)
    told = cli("judge", "--rollout", rollout.id, "--bake", "2m", "--json").json
    assert (told["status"], told["decided"]) == ("inconclusive", False)
    shown = cli("judge", "--rollout", rollout.id, "--bake", "2m").out
    assert shown.endswith("No word fell as long as it was watched.\n")


def test_a_range_is_of_the_app_that_is_meant(build, plain):
    """--app narrows ranges and --last; the table has the app when there are several."""
    deps = build(apps=("shop", "blog"), hosts=4)
    a_judged_rollout(deps, GOOD, app="shop")
    a_judged_rollout(deps, GOOD, app="blog")
    assert plain("judge", "--rollout", "1-9").out.splitlines()[0].split()[1] == "app"
    for words in (("--rollout", "1-9"), ("--last", "9")):
        assert [one["rollout"] for one in plain("judge", *words, "--app", "blog", "--json").json] == [2]


def test_no_past_rollouts(cli, deps):
    """An empty list, and a sentence."""
    assert cli("judge", "--last", "3", "--json").json == []
    assert cli("judge", "--last", "3").out == "there are no past rollouts\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "there is nothing to judge"),
        (("file", "--rollout", "1"), 2, "FILE and --rollout do not go together"),
        (("file", "--last", "1"), 2, "FILE and --last do not go together"),
        (("--rollout", "1", "--last", "1"), 2, "--rollout and --last do not go together"),
        (("--last", "0"), 2, "--last"),
        (("--rollout", "seven"), 2, "--rollout: found 'seven', expected a number such as 7"),
        (("--rollout", "0"), 2, "--rollout: found '0'"),
        (("--rollout", "9-3"), 2, "--rollout: found '9-3'"),
        (("--rollout", "1", "--canary", "web1"), 2, "--canary goes with FILE"),
        (("--rollout", "1", "--bake", "11m"), 2, "a deadline of 10m is shorter than a bake of 11m"),
        (("--rollout", "1", "--bake", "soon"), 2, "--bake: found 'soon'"),
        (("--rollout", "7"), 3, "there is no rollout 7"),
        (("--rollout", "1-2,7"), 3, "there is no rollout 7"),
        (("--rollout", "7-9"), 3, "there is no rollout with such a number"),
        (("--rollout", "2"), 4, "rollout 2 is evaluating_canary: its canary is not judged yet"),
    ],
)
def test_what_makes_no_sense_is_named(cli, deps, words, code, told):
    """With the contract's exit codes, and nothing on standard output."""
    a_judged_rollout(deps, BAD)
    a_watched_rollout(deps, GOOD)
    result = cli("judge", *words)
    assert (result.code, result.out) == (code, "")
    assert told in result.err


def test_among_several_one_that_is_not_judged_yet_is_a_row(cli, deps):
    """It keeps nobody from seeing the others."""
    a_judged_rollout(deps, BAD)
    a_rollout(deps, state="pending")
    told = cli("judge", "--rollout", "1-2", "--json").json
    assert [(one["rollout"], one["status"]) for one in told] == [(2, None), (1, "fail")]
    assert told[0]["explanation"] == "not judged yet"
