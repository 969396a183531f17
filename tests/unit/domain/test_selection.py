"""Which commit goes out next."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain import selection
from rollout.domain.selection import (
    Candidate,
    choose,
    culprits,
    duration_s,
    fixes,
    is_fix_of,
    last_suspect,
    need,
    suspects,
)
from rollout.domain.states import CommitState
from tests.support.walks import WALK

GOAL_S = 1800.0
LETTERS = {
    "p": CommitState.PASSED,
    "f": CommitState.FAILED,
    "b": CommitState.BARRED,
    "t": CommitState.TESTING,
    "r": CommitState.RECEIVED,
}


def sha(position: int) -> str:
    """The hash of the commit at this position of a test's queue."""
    return f"{position:012x}{'0' * 28}"


def candidate(state="p", *, position=1, minutes=0.0, suspect=False, reverts=(), built=False):
    """A commit of a queue; `reverts` are positions. `built`: if it passed, its archive is built again."""
    return Candidate(
        sha=sha(position),
        state=LETTERS[state.lower()],
        silent_from_s=0.0 if state.isupper() else inf,
        age_s=minutes * 60,
        suspect=suspect,
        reverts=frozenset(sha(reverted) for reverted in reverts),
        built=built and state == "p",
    )


def a_queue(letters, *, minutes=(), suspects=(), reverts=None):
    """One commit a letter: p passed, f failed, b barred, t testing, r received; a capital one is silent. `reverts`: position → positions."""
    reverts = reverts or {}
    ages = [*minutes, *([0.0] * (len(letters) - len(minutes)))]
    return [
        candidate(
            letter,
            position=position,
            minutes=ages[position - 1],
            suspect=position in suspects,
            reverts=reverts.get(position, ()),
        )
        for position, letter in enumerate(letters, start=1)
    ]


@pytest.mark.parametrize(
    ("minutes", "position"),
    [
        ([0], 1),
        ([0] * 5, 2),
        ([0] * 12, 3),
        ([25, 25, 25], 3),
        ([28, 0, 0], 1),
        ([40], 1),
    ],
)
def test_the_worked_examples(minutes, position):
    """The examples of the design, with rollouts of ten minutes."""
    queue = a_queue("p" * len(minutes), minutes=minutes)
    assert choose(queue, []).position == position
    assert choose(queue, [600.0] * 7).position == position


@pytest.mark.parametrize(
    ("letters", "position"),
    [
        ("p", 1),
        ("fp", 2),
        ("ffp", 3),
        ("pfff", 1),
        ("pffffffffffp", 1),
        ("ppppf", 2),
        ("pfppp", 3),
        ("pfffp", 1),
        ("ppttt", 2),
        ("ptttt", 1),
    ],
)
def test_the_smallest_passing_position_from_need_on_else_the_largest_below(letters, position):
    """A failed commit is never the shipped one, but may lie below it; untested ones above do not matter."""
    assert choose(a_queue(letters), []).position == position


def test_short_rollouts_need_no_batches():
    """With rollouts of a minute, five waiting commits go out one by one."""
    assert choose(a_queue("ppppp"), [60.0] * 5).position == 1


def test_long_rollouts_make_batches():
    """With rollouts of a quarter of an hour, two fit into the goal, so five commits go out three at once."""
    assert choose(a_queue("ppppp"), [900.0] * 5).position == 3


def test_the_cap_is_the_callers():
    """Never more than the cap, whatever waits."""
    assert choose(a_queue("p" * 30), [], cap=5).position == 5
    assert choose(a_queue("p" * 30), [], cap=1).position == 1


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], 600.0),
        ([60.0] * 4, 600.0),
        ([60.0] * 5, 60.0),
        ([60.0] * 9 + [5000.0], 60.0),
        ([60.0] * 8 + [5000.0, 5000.0], 5000.0),
        ([5.0, 1.0, 4.0, 2.0, 3.0], 5.0),
        ([0.0] * 5, 1.0),
    ],
)
def test_the_duration_is_what_nine_of_ten_need(durations, expected):
    """Ten minutes until five rollouts are measured; then the 90th percentile; never zero."""
    assert duration_s(durations) == expected


@pytest.mark.parametrize(
    ("letters", "name"), [("t", 1), ("r", 1), ("ft", 2), ("tp", 1), ("fftp", 3), ("rrr", 1)]
)
def test_selection_waits_for_young_tests(letters, name):
    """While a commit at or below what would ship is untested and young, nothing ships, and the reason names it."""
    choice = choose(a_queue(letters), [])
    assert choice.position is None
    assert "waits for the tests of" in choice.reason
    assert sha(name)[:12] in choice.reason


def test_old_untested_commits_do_not_hold_up_later_ones():
    """A test that takes longer than the goal is overtaken by the next commit that passed."""
    assert choose(a_queue("tp", minutes=[30, 0]), []).position == 2
    assert choose(a_queue("tp", minutes=[29, 0]), []).position is None


def test_an_old_untested_commit_alone_is_still_waited_for():
    """With nothing else to ship, the answer is the same however old it is."""
    assert "waits for the tests of" in choose(a_queue("t", minutes=[90]), []).reason


@pytest.mark.parametrize(("built", "suspects"), [(1, ()), (3, ()), (1, (1, 2)), (1, (2, 3)), (2, (2, 3))])
def test_what_is_built_again_is_waited_for_whatever_its_age(built, suspects):
    """It passed: nothing goes out past it, neither a smaller batch nor another suspect, and the reason names it."""
    queue = a_queue("ppp", minutes=[60, 60, 60], suspects=suspects)
    queue[built - 1] = replace(queue[built - 1], built=True)
    position, reason = (choice := choose(queue, [])).position, choice.reason
    if built == 2:  # the oldest one goes out before the suspects
        assert position == 1
    else:
        assert (position, reason) == (
            None,
            f"waits for the archive of {sha(built)[:12]}, which is built again",
        )


def test_an_empty_queue_has_nothing_new():
    """No commit, no choice."""
    choice = choose([], [])
    assert choice.position is None
    assert "nothing new" in choice.reason


@pytest.mark.parametrize("letters", ["fff", "fffp", "fffpppp", "ffffp", "fffb"])
def test_three_reds_in_a_row_stop_automation(letters):
    """Nothing beyond three failed commits ships by itself; the reason says what a person can do."""
    choice = choose(a_queue(letters), [])
    assert choice.position is None
    assert "3 commits in a row failed" in choice.reason
    assert "--now --reason" in choice.reason


def test_three_reds_stop_automation_under_any_cap():
    """A wider cap does not step over reds, nor do passed commits before them let it."""
    assert choose(a_queue("pfffp" + "p" * 20), [], cap=5).position == 1
    assert choose(a_queue("ffpfffp" + "p" * 20), [], cap=7).position == 3
    assert "in a row failed" in choose(a_queue("fffp"), [], cap=9).reason


def test_the_way_past_reds_names_what_is_barred_among_them():
    """Who did as he was told shipped it with them."""
    queue = a_queue("fffp")
    queue[1] = replace(queue[1], barred=True)
    reason = choose(queue, []).reason
    assert reason.startswith(
        "3 commits in a row failed their tests, the first one 000000000001: automation has stopped"
    )
    assert "besides, 000000000002 is barred, and so is all that comes after it" in reason
    assert "until a person says `rollout unbar 000000000002`; after that step over them" in reason


def test_the_way_past_reds_goes_to_what_mends_the_barred_one_among_them():
    """Not to what lies before that."""
    queue = a_queue("fffpp", reverts={5: [1]})
    queue[0] = replace(queue[0], barred=True)
    reason = choose(queue, []).reason
    assert "besides" not in reason
    assert reason.endswith("then step over them with `rollout deploy 000000000005 --now --reason …`")


@pytest.mark.parametrize(
    ("letters", "position"),
    [("FFp", 3), ("FFFp", None), ("RRp", 3), ("ffFfp", None), ("FfFp", None), ("Rp", 2), ("pFFFp", 1)],
)
def test_who_has_no_verdict_is_neither_red_nor_waited_for(letters, position):
    """A run that was cancelled, or never reported, is taken along by what passed; it is no red of three in a row."""
    choice = choose(a_queue(letters), [])
    assert choice.position == position
    assert "in a row" not in choice.reason


def test_a_wider_cap_takes_three_without_a_verdict_along():
    """They do not end what automation looks at."""
    assert choose(a_queue("FFFp"), [], cap=4).position == 4


def test_a_silent_commit_does_not_save_three_reds():
    """Beside it they stop automation as ever."""
    assert "3 commits in a row failed" in choose(a_queue("fffF"), []).reason


def test_what_to_do_about_a_silent_commit_is_said():
    """Alone it is named; where it fills the cap, running it again is one of the two ways on."""
    assert choose(a_queue("R"), []).reason.startswith(f"nobody says whether {sha(1)[:12]} is good")
    reason = choose(a_queue("FFRp"), []).reason
    assert (
        f"at most 3 at once: have the checks of {sha(3)[:12]} run again (`rollout why {sha(3)[:12]}`"
        in reason
    )
    assert f"or a person may: `rollout deploy {sha(4)[:12]} --now --reason …`" in reason


@pytest.mark.parametrize(("letters", "named"), [("RRRRRp", 3), ("RfRRp", 3), ("RffRp", 1), ("pRRRRp", None)])
def test_the_run_that_brings_most_along_is_asked_for(letters, named):
    """Of several that were cancelled the newest within the cap: run again, it takes the ones before it along, and leaves a way on."""
    choice = choose(a_queue(letters), [])
    if named is None:
        assert choice.position == 1
        return
    assert f"have the checks of {sha(named)[:12]} run again" in choice.reason
    queue = a_queue(letters)
    queue[named - 1] = replace(queue[named - 1], state=CommitState.PASSED, silent_from_s=inf)
    assert choose(queue, []).position == named


def test_a_run_that_helps_nobody_is_not_asked_for():
    """Beyond the cap, or held by a bar, a commit would not ship with its checks run again: a person's word is the only way."""
    assert "run again" not in choose(a_queue("ffbRp", reverts={5: [3]}), []).reason
    assert "run again" not in choose(a_queue("bRffp", reverts={5: [1]}), []).reason


def test_fewer_reds_wait_for_a_commit_that_passes():
    """Two failed commits stop nothing; the reason names the first red one."""
    choice = choose(a_queue("ff"), [])
    assert choice.position is None
    assert choice.reason == f"{sha(1)[:12]} failed its tests, and no commit after it has passed"


@pytest.mark.parametrize("letters", ["b", "bp", "bpp", "btp", "fbp"])
def test_a_barred_commit_blocks_all_after_it(letters):
    """Without a fix nothing ships from a barred commit on, not even tests are waited for; the reason says how."""
    choice = choose(a_queue(letters), [])
    assert choice.position is None
    bad = sha(letters.index("b") + 1)[:12]
    assert f"rollout unbar {bad}" in choice.reason
    assert f"This reverts commit {bad}" in choice.reason


@pytest.mark.parametrize("state", "fFtrp")
@pytest.mark.parametrize(("reverts", "position"), [({}, None), ({3: {1}}, 3)])
def test_a_bar_holds_whatever_the_tests_of_the_commit_say(state, reverts, position):
    """Red, without a verdict, untested for longer than the goal: no later commit takes it along but with its fix."""
    first, *rest = a_queue(f"{state}pp", minutes=[60], reverts=reverts)
    choice = choose([replace(first, barred=True), *rest], [])
    assert choice.position == position
    assert position or choice.reason.startswith(f"{sha(1)[:12]} is barred, and so is all that comes after it")


def test_what_lies_before_a_barred_commit_ships():
    """Innocent commits before the culprit go out."""
    assert choose(a_queue("pbp"), []).position == 1
    assert choose(a_queue("ppbpppppp"), []).position == 2


@pytest.mark.parametrize(
    ("letters", "reverts", "position"),
    [
        ("bp", {2: [1]}, 2),
        ("bpp", {3: [1]}, 3),
        ("bpp", {2: [1]}, 2),
        ("bfp", {2: [1]}, 3),
        ("pbp", {3: [2]}, 1),
        ("bbp", {3: [1, 2]}, 3),
        ("bbp", {3: [1]}, None),
        ("bbp", {3: [2]}, None),
        ("bpp", {2: [1], 3: [1]}, 2),
    ],
)
def test_a_fix_lets_its_descendants_ship(letters, reverts, position):
    """From the first commit that undoes the barred one on, shipping goes on, with both in one release."""
    assert choose(a_queue(letters, reverts=reverts), []).position == position


def test_a_fix_that_is_being_tested_is_waited_for():
    """A barred commit's young, untested fix is named as what selection waits for."""
    assert choose(a_queue("bt", reverts={2: [1]}), []).reason == f"waits for the tests of {sha(2)[:12]}"


def test_a_change_and_its_revert_ship_together():
    """Nobody barred the change, but people took it back: nothing between it and its revert ships alone."""
    assert choose(a_queue("ppp", reverts={3: [1]}), []).position == 3
    assert choose(a_queue("pp", reverts={2: [1]}), []).position == 2
    assert choose(a_queue("ppp", reverts={3: [2]}), []).position == 1


def test_a_revert_that_failed_its_tests_keeps_the_change_in():
    """A change whose revert has not passed ships not at all, and the reason names both."""
    choice = choose(a_queue("pf", reverts={2: [1]}), [])
    assert choice.position is None
    assert (
        choice.reason
        == f"{sha(1)[:12]} ships only together with {sha(2)[:12]}, which undoes it and failed its tests, and no commit after"
        " it has passed"
    )


@pytest.mark.parametrize(
    ("letters", "reverts", "reason"),
    [
        ("pfff", {4: [1]}, f"{sha(4)[:12]}, which undoes it and failed its tests, and no commit after it"),
        ("pffr", {4: [1]}, f"{sha(4)[:12]}, which undoes it and has not passed yet"),
        ("pffR", {4: [1]}, f"{sha(4)[:12]}, which undoes it, and nobody says whether that is good"),
        ("ppfpr", {4: [1], 5: [2]}, f"{sha(2)[:12]} ships only together with {sha(5)[:12]}"),
        ("ppfpb", {4: [1], 5: [2]}, f"{sha(5)[:12]} is barred"),
        ("pffffp", {6: [1]}, "3 commits in a row failed"),
        ("Rfffp", {}, "3 commits in a row failed"),
        ("bfpfp", {3: [1], 5: [3]}, f"{sha(1)[:12]}, which {sha(5)[:12]} brings again, is barred"),
    ],
)
def test_what_is_in_the_way_of_a_fix_is_told(letters, reverts, reason):
    """The true one: that it has not passed, what it is held by itself though it has, or the reds before it."""
    choice = choose([replace(one, undoes=one.reverts) for one in a_queue(letters, reverts=reverts)], [])
    assert choice.position is None
    assert reason in choice.reason


def test_a_revert_of_something_long_shipped_is_a_commit_like_any_other():
    """A revert whose change is not in the queue blocks nothing."""
    assert choose([candidate("p", reverts=[99])], []).position == 1


def test_a_fix_beyond_the_cap_needs_a_person():
    """What could ship only with more commits than the cap is named, with the command that ships it."""
    choice = choose(a_queue("bppp", reverts={4: [1]}), [])
    assert choice.position is None
    assert f"rollout deploy {sha(4)[:12]} --now" in choice.reason
    assert "at most 3" in choice.reason


@pytest.mark.parametrize(
    ("letters", "marked", "position"),
    [
        ("ppp", {1, 2, 3}, 1),
        ("pppppppppppp", {1, 2, 3}, 1),
        ("pppppppppppp", {2}, 1),
        ("fppppppppppp", {2, 3}, 2),
        ("fpppppppppppp", {1}, 2),
        ("bpppppppppppp", {1}, None),
        ("bppppp", {2}, None),
    ],
)
def test_suspects_go_out_one_by_one(letters, marked, position):
    """While a suspect is next, be it red, only the first position that may ship does, whatever waits."""
    assert choose(a_queue(letters, suspects=marked), []).position == position


def test_a_suspects_reason_says_so():
    """People read why a batch became single commits."""
    assert "which one of a batch was bad" in choose(a_queue("ppp", suspects={1, 2, 3}), []).reason


def test_the_reason_of_a_choice_names_what_ships():
    """One sentence: the commit, and how many go with it."""
    assert (
        choose(a_queue("p"), []).reason
        == f"{sha(1)[:12]} is the oldest commit that waits, and goes out by itself"
    )
    assert (
        choose(a_queue("p" * 5), []).reason
        == f"{sha(2)[:12]} goes out with the 1 commit before it, of 5 that wait"
    )
    assert "the 2 commits before it" in choose(a_queue("p" * 12), []).reason


A, B = "a" * 40, "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("Add a shop", set()),
        (f'Revert "x"\n\nThis reverts commit {A}.', {A}),
        (f'Revert "x"\n\nThis reverts commit {A}, reversing\nchanges made to {B}.', {A}),
        ("This reverts commit aaaaaaa (x, 2026-11-01).", {"aaaaaaa"}),
        (f"this reverts commit {A.upper()}", {A}),
        (f"Mend\n\nRollout-Fixes: {A}", {A}),
        (f"Mend\n\nrollout-fixes: {A}\nRollout-Fixes:{B}", {A, B}),
        (f"Mend\n\nRollout-Fixes: {A}, {B[:9]}", {A, B[:9]}),
        (f"Mend\r\n\r\nRollout-Fixes: {A}\r\n", {A}),
        (f"Twice\n\nThis reverts commit {A}.\nThis reverts commit {B}.", {A, B}),
        (f"This reverts commit {A}0", set()),
        ("This reverts commit aaaaaa", set()),
        (f"See Rollout-Fixes: {A}", set()),
        (f"Mend\n\nRollout-Fixes:\n{A}", set()),
        ("Mend\n\nRollout-Fixes: issue-1234567", set()),
        (f"{A}", set()),
        (f"revert {A}\n\nrevert Sell tea", {A}),
        (f"Revert {A.upper()} (#13)", {A}),
        ("revert aaaaaaa", set()),
        (f"revert {A} in part", set()),
        (f"Mend\n\nas revert {A} did", set()),
    ],
)
def test_what_a_message_undoes_or_mends(message, named):
    """Git's own sentence, the subject that Gitea's button writes, and our trailer, 7 to 40 hex digits, in lower case; nothing else."""
    assert fixes(message) == named


@pytest.mark.parametrize(
    ("message", "undone"),
    [
        ("Revert it\n\nThis reverts merge request !47", {"!47"}),
        ("Revert it\n\nthis reverts merge request acme/tea-shop!47.", {"acme/tea-shop!47"}),
        ("* Revert it\n\n    Reverts acme/tea.shop#12\n", {"#12"}),
        ('Revert "Sell tea (pull request #59)"\n\nThis reverts pull request #59.\n\n> It is bitter', {"#59"}),
        ('Revert "It"\n\nThis reverts pull request #60.\n\n> This reverts pull request #59.', {"#60"}),
        ("Revert it\n\nThis reverts merge request 47", set()),
        ("It reverts acme/shop#12", set()),
        ("Reverts acme/shop#12 in part", set()),
        (f"revert {A}\n\nrevert Revert it\n\nThis reverts merge request !47", set()),
    ],
)
def test_which_requests_a_message_undoes(message, undone):
    """As the buttons of GitLab, GitHub and Bitbucket say it, in a message of their own; what they quote another one said."""
    assert selection.requests_undone(message) == undone


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("Merge\n\nSell tea\n\nSee merge request acme/shop!47", {"!47", "acme/shop!47"}),
        (
            "Squash\n\nSee merge request acme/shop!46\n\nSee merge request acme/shop!47",
            {"!47", "acme/shop!47"},
        ),
        ("Merge pull request #12 from acme/tea\n\nSell tea (#7)", {"#12"}),
        ('Revert "Sell tea (#12)" (#13)\n\nReverts acme/shop#12', {"#13"}),
        ('Revert "Sell tea (#12)"', set()),
        ("Merged in side (pull request #59)\n\nSell tea (#7)", {"#59"}),
        ("Sell tea (pull request #59)", {"#59"}),
        ("Merge pull request #59 in ACME/shop from side to main", {"#59"}),
        ('Revert "Sell tea (pull request #59)"\n\nThis reverts pull request #59.', set()),
        ("Sell tea, see #12", set()),
    ],
)
def test_which_request_a_commit_was(message, names):
    """As GitLab, GitHub and Bitbucket write it when they merge; what is listed or quoted is another one."""
    assert selection.requests(message) == names


@pytest.mark.parametrize(
    "message",
    [
        f"This Reverts commit {A}",
        f"REVERT {A}",
        f"rollout-fixes: {A}",
        "This reverts merge request !47",
        "Reverts acme/shop#12",
        "This reverts pull request #12.",
        "Revert it\r\n\r\nReverts acme/shop#12\r\n\r\nIt is bitter",  # as a browser sends a description
    ],
)
def test_the_store_finds_whatever_undoes_or_mends_by_a_word(message):
    """One of these is in each such message."""
    assert fixes(selection.with_hashes(message, {"!47": A, "#12": A})) == {A}
    assert any(word in message.lower() for word in selection.UNDOING)


@pytest.mark.parametrize(
    "quoted",
    [
        f'Revert "Sell tea"\n\nThis reverts commit {B}.',
        f"Mend tea\n\nRollout-Fixes: {B}",
        f"Sell tea\n\n(cherry picked from commit {B})",
        f"revert {B}\n\nrevert Sell tea",
        f"Work (#12)\n\n* Undo\n\nThis reverts commit {B}.\n\n* More\n\nRollout-Fixes: {B}",
    ],
)
def test_what_the_button_of_gitea_quotes_was_said_by_another_commit(quoted):
    """The subject `revert <sha>` says what is undone; the old message below it undoes and mends nothing any more."""
    assert fixes(f"revert {A}\n\nrevert {quoted}") == {A}


C = "c" * 40


def squashed(*messages, git=False):
    """The message of one commit made of several, oldest first, as git servers list them; `git`: as `git merge --squash` does."""
    if not git:
        return "feature (#12)\n\n" + "\n\n".join(f"* {text}" for text in messages)
    listed = [
        f"commit {number}{'d' * 39}\nAuthor: Ann\n\n    " + text.replace("\n", "\n    ")
        for number, text in enumerate(messages)
    ]
    return "Squashed commit of the following:\n\n" + "\n\n".join(listed[::-1])


REVERT = f'Revert "Sell tea"\n\nThis reverts commit {A}.'


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (squashed(REVERT), {A}),
        (squashed(REVERT, f'Reapply "Sell tea"\n\nThis reverts commit {B}.'), {B}),
        (squashed(REVERT, f'Revert "Revert "Sell tea""\n\nThis reverts commit {B}.'), {B}),
        (squashed(REVERT, f'Revert "Revert "Sell tea" (#7)" (#8)\n\nThis reverts commit {B}.'), {B}),
        (squashed(f'Reapply "Sell tea"\n\nThis reverts commit {B}.', REVERT), {B}),  # whatever the order
        (squashed(REVERT, f'Revert "Sell coffee"\n\nThis reverts commit {B}.'), {A, B}),
        (squashed(REVERT, f"Sell it again\n\nThis reverts commit 0{'d' * 39}.", git=True), {f"0{'d' * 39}"}),
        (squashed(REVERT, f"Undo\n\nThis reverts commit {B}.", git=True), {A, B}),
        (
            squashed(
                REVERT,
                f'Reapply "Sell tea"\n\nThis reverts commit {B}.',
                f'Revert "Reapply "Sell tea""\n\nThis reverts commit {C}.',
            ),
            {A, C},
        ),
        (
            squashed(REVERT, f'Reapply "Sell tea"\n\nThis reverts commit {B}.') + f"\n\nRollout-Fixes: {A}",
            {A, B},
        ),
        (squashed(f"revert {B}\n\nrevert {REVERT}", f"Mend\n\nThis reverts commit {C}."), {B, C}),
        (squashed(REVERT, f"revert 0{'d' * 39}\n\nrevert {REVERT}", git=True), {f"0{'d' * 39}"}),
    ],
)
def test_what_a_squashed_message_undoes_and_brings_again_is_not_undone(message, named):
    """It lists its commits one by one: an undoing that another one of them undoes is none, a third one makes it one again."""
    assert fixes(message) == named


def test_two_that_undo_each_other_are_an_answer_too():
    """Nobody can make that with git, but anybody can write it: reading it comes to an end."""
    one, other = "1" * 40, "2" * 40
    message = (
        f"commit {one}\n    This reverts commit {other}.\ncommit {other}\n    This reverts commit {one}."
    )
    assert fixes(message) <= {one, other}


def test_a_fix_may_name_a_commit_by_its_first_digits():
    """Hashes match by prefix."""
    mend = Candidate(B, CommitState.PASSED, 0.0, suspect=False, reverts=frozenset({"aaaaaaa"}))
    assert is_fix_of(mend, A)
    assert not is_fix_of(mend, "b" * 40)
    assert not is_fix_of(candidate(), A)


@pytest.mark.parametrize(
    ("letters", "reverts", "positions"),
    [
        ("p", {}, [1]),
        ("ppp", {}, [1, 2, 3]),
        ("pfp", {}, [1, 3]),
        ("fp", {}, [2]),
        ("tp", {}, [2]),
        ("bp", {2: [1]}, [2]),
        ("ppp", {3: [1]}, [3]),
        ("ppp", {3: [2]}, [1, 3]),
        ("bp", {}, [2]),
        ("pfffp", {}, [1, 5]),
    ],
)
def test_suspects_are_those_that_could_have_shipped_alone(letters, reverts, positions):
    """Passed and not tied to a later commit; always the shipped one, also when a person stepped over the rules."""
    assert suspects(a_queue(letters, reverts=reverts)) == [sha(position) for position in positions]


@pytest.mark.parametrize(
    ("letters", "marked", "reverts", "positions"),
    [
        ("ppp", set(), {}, []),
        ("p", {1}, {}, [1]),
        ("ppp", set(), {3: [1]}, [3]),
        ("ppp", {1, 2}, {3: [1]}, [2]),  # the revert of the first one brings the second along
        ("pppp", {1, 2, 3}, {4: [1]}, [2, 3]),
        ("pp", {1}, {2: [1]}, [2]),
        ("ppp", {1, 2}, {}, []),  # a person shipped them together
        ("fp", {1}, {}, [1]),  # a red one comes along
        ("bp", {1}, {}, [2]),
    ],
)
def test_a_revert_is_not_to_blame_for_a_suspect_that_it_brings_along(letters, marked, reverts, positions):
    """Of what cannot ship alone those are barred that failed before, and that nothing undoes; else what was shipped."""
    queue = a_queue(letters, suspects=marked, reverts=reverts)
    assert culprits(queue) == [sha(position) for position in positions]


@pytest.mark.parametrize(
    ("letters", "reverts", "positions"),
    [("fp", {}, [1]), ("pp", {}, []), ("frp", {}, [1, 2]), ("ffp", {3: [1]}, [2]), ("bp", {}, [])],
)
def test_what_went_along_without_a_passed_test_may_be_what_was_wrong(letters, reverts, positions):
    """But for what the batch itself undoes."""
    batch = a_queue(letters, reverts=reverts)
    assert selection.rode_along(batch) == [sha(position) for position in positions]


def brought(position):
    """The hash of a commit that came in with the one at this position."""
    return f"e{position:039x}"


@pytest.mark.parametrize(
    ("inner", "reverts", "position", "reason"),
    [
        ({}, {}, 1, "oldest"),
        ({1: True}, {}, None, "which came in with"),  # barred: all that comes after the merge waits
        ({2: True}, {}, 1, "oldest"),
        ({1: True}, {1: [brought(1)]}, 1, "oldest"),  # what mends it came in with it
        ({1: True}, {2: [brought(1)]}, 2, "goes out with"),
        ({1: False}, {3: [brought(1)[:9]]}, 3, "goes out with"),  # undone: never alone
    ],
)
def test_what_is_barred_or_undone_inside_a_merge_keeps_the_merge_back(inner, reverts, position, reason):
    """As if it were on the line where the merge is."""
    queue = [
        replace(
            one,
            inner=((brought(place), inner[place]),) if place in inner else (),
            reverts=frozenset(reverts.get(place, ())),
        )
        for place, one in enumerate(a_queue("ppp"), start=1)
    ]
    choice = choose(queue, [])
    assert choice.position == position
    assert reason in choice.reason


TELLING = [
    "* Sell tea",
    f"commit {'1' * 40}",
    '    Revert "Sell tea"',
    '* Reapply "Sell tea" (#7)',
    "Sell tea (#12)",
    f"This reverts commit {'1' * 40}.",
    f"    This reverts commit {'2' * 40}.",
    f"Rollout-Fixes: {'3' * 40}",
    f"* revert {'1' * 40}",
    f"    revert {'2' * 40}",
    f"revert {'3' * 40}",
    "This reverts merge request !47",
    "    Reverts acme/shop#12",
    "This reverts pull request #59.",
    f"> This reverts commit {'1' * 40}.",
]


@WALK
@given(st.lists(st.sampled_from(TELLING), max_size=9))
def test_a_long_message_says_what_it_said(lines):
    """Whatever is left out of its middle, what it undoes and mends stays, also that one of a list undoes another one."""
    message = "\n".join(f"{line}\n{'für ' * 80}" for line in lines)
    short = selection.shorten(message, 600)
    assert len(short.encode()) <= 2 * 600
    assert selection.undoes(short) == selection.undoes(message)
    assert selection.mended(short) == selection.mended(message)
    assert selection.requests_undone(short) == selection.requests_undone(message)


@st.composite
def queues(draw):
    """Any queue of up to ten commits."""
    length = draw(st.integers(1, 10))
    return [
        replace(
            candidate(
                draw(st.sampled_from("ppppfbtrFR")),
                position=position,
                minutes=draw(st.sampled_from([0, 5, 15, 25, 29, 30, 60])),
                suspect=draw(st.integers(0, 5)) == 0,
                reverts=draw(st.sets(st.integers(1, position - 1), max_size=2)) if position > 1 else (),
                built=draw(st.integers(0, 5)) == 0,
            ),
            barred=draw(st.integers(0, 9)) == 0,
        )
        for position in range(1, length + 1)
    ]


@st.composite
def queues_with_merges(draw):
    """Any queue, with a commit that came in with some of them, barred or not, and undone by what came with it or later."""
    return [
        replace(
            one,
            inner=((brought(place), draw(st.booleans())),) if draw(st.booleans()) else (),
            reverts=one.reverts
            | {brought(undone) for undone in draw(st.sets(st.integers(1, place), max_size=1))},
        )
        for place, one in enumerate(draw(queues()), start=1)
    ]


DURATIONS = st.lists(st.floats(0, 10_000), max_size=8)


@WALK
@given(queues() | queues_with_merges(), DURATIONS, st.integers(1, 4))
def test_what_ships_is_always_permitted(queue, durations, cap):
    """Never a commit that has not passed, never more than the cap, never a bar without its fix, never over reds."""
    choice = choose(queue, durations, cap=cap)
    assert choice.reason
    if choice.position is None:
        return
    assert 1 <= choice.position <= cap
    shipped = queue[: choice.position]
    assert shipped[-1].state is CommitState.PASSED
    assert not any(one.built for one in shipped)
    assert (
        "".join("f" if one.state is CommitState.FAILED and not one.silent else "." for one in shipped).find(
            "fff"
        )
        == -1
    )
    assert all(
        one.age_s >= GOAL_S or one.silent
        for one in shipped
        if one.state in {CommitState.TESTING, CommitState.RECEIVED}
    )
    for position, one in enumerate(shipped, start=1):
        has_fix = any(is_fix_of(later, one.sha) for later in shipped[position:])
        is_undone = any(is_fix_of(later, one.sha) for later in queue[position:])
        assert has_fix or not (one.is_barred or is_undone)
        for inner, is_barred in one.inner:
            has_fix = any(is_fix_of(later, inner) for later in shipped[position - 1 :])
            assert has_fix or not (is_barred or any(is_fix_of(later, inner) for later in queue[position:]))


@WALK
@given(queues(), DURATIONS, st.integers(1, 4))
def test_the_same_facts_give_the_same_choice(queue, durations, cap):
    """Selection is a function of its arguments; the order of the durations says nothing."""
    assert choose(queue, durations, cap=cap) == choose(list(queue), durations[::-1], cap=cap)


@WALK
@given(st.lists(st.integers(0, 60), min_size=1, max_size=15), st.integers(1, 4))
def test_need_grows_with_the_queue_and_with_age(minutes, cap):
    """One more commit, or older ones, never need fewer at once."""
    queue = a_queue("p" * len(minutes), minutes=minutes)
    older = a_queue("p" * len(minutes), minutes=[age + 10 for age in minutes])
    assert 1 <= need(queue, [], GOAL_S, cap) <= cap
    assert need(queue[:-1], [], GOAL_S, cap) <= need(queue, [], GOAL_S, cap) <= need(older, [], GOAL_S, cap)


def ship_all(queue, bad, cap):
    """Automation at work: choose, ship, and on a bad batch bar its culprit or mark its suspects. What happened."""
    shipped, gone_wrong = [], []
    while (choice := choose(queue, [], cap=cap)).position is not None:
        batch, rest = queue[: choice.position], queue[choice.position :]
        if bad.isdisjoint(one.sha for one in batch):
            shipped += [one.sha for one in batch]
            culprit = last_suspect(rest) if batch[-1].suspect else None
            queue = [mark(one, [culprit], barred=True) for one in rest]
            continue
        gone_wrong.append([one.sha for one in batch])
        found = culprits(batch)
        queue = [mark(one, found or suspects(batch), barred=bool(found)) for one in queue]
        if found:
            queue = [replace(one, suspect=False) if one.state is CommitState.PASSED else one for one in queue]
    return shipped, gone_wrong, queue


def mark(one, blamed, *, barred):
    """What the caller does after a batch went wrong: bar the culprits, or suspect several."""
    if one.sha not in blamed:
        return one
    state = CommitState.BARRED if barred else one.state
    return Candidate(one.sha, state, one.age_s, suspect=True, reverts=one.reverts)


@WALK
@given(queues(), st.sets(st.integers(1, 10), max_size=3), st.integers(1, 4))
def test_bad_commits_are_found_and_automation_comes_to_rest(queue, bad_positions, cap):
    """Whatever is bad: no bad commit ships, no batch goes wrong twice, and selection ends."""
    bad = {sha(position) for position in bad_positions}
    shipped, gone_wrong, _ = ship_all(queue, bad, cap)
    assert bad.isdisjoint(shipped)
    assert len({tuple(batch) for batch in gone_wrong}) == len(gone_wrong)


@pytest.mark.parametrize("culprit", [1, 2, 3])
def test_a_culprit_in_a_batch_of_three_is_found(culprit):
    """After a batch of three went wrong, the innocent before the culprit ship, it is barred, the rest waits: two more canaries at most."""
    shipped, gone_wrong, left = ship_all(a_queue("ppp", minutes=[25, 25, 25]), {sha(culprit)}, 3)
    assert shipped == [sha(position) for position in range(1, culprit)]
    # The last one is found by elimination: the other two are out and well.
    assert gone_wrong == [[sha(1), sha(2), sha(3)], *([[sha(culprit)]] if culprit < 3 else [])]
    assert left[0].state is CommitState.BARRED
    assert len(left) == 4 - culprit


def test_the_first_red_commit_is_the_oldest_behind_the_last_good_one():
    """Who made the branch red, and whether it is certain: nothing before it is untested."""
    good, red, untested = CommitState.PASSED, CommitState.FAILED, CommitState.RECEIVED

    def first(*states):
        queue = [
            selection.Candidate(str(n), state, 0.0, False, frozenset()) for n, state in enumerate(states)
        ]
        found = selection.first_red(queue)
        return found and (found.position, found.certain)

    assert first(good, red, red) == (2, True)
    assert first(red, good) is None
    assert first(red, good, untested, red) == (4, False)
    assert first(red, untested) == (1, True)
    assert first(CommitState.BARRED, untested) is None


@pytest.mark.parametrize(
    ("letters", "position"), [("Ff", 2), ("FFff", 3), ("fF", 1), ("FF", 1), ("fpF", 3), ("FpFf", 4)]
)
def test_who_has_no_verdict_is_not_the_first_red_commit(letters, position):
    """Somebody who broke the branch is named before one of whom nobody says whether it is good, whichever came first."""
    assert selection.first_red(a_queue(letters)).position == position


def test_a_red_commit_is_named_with_one_of_which_nobody_says_anything():
    """Either may be mended: the red one by its author, the other one by who has its checks run."""
    reason = choose(a_queue("Rf"), []).reason
    assert reason.startswith(f"{sha(2)[:12]} failed its tests, nobody says whether {sha(1)[:12]} is good")


@pytest.mark.parametrize(("letters", "certain"), [("Rf", True), ("rf", False), ("Tf", True), ("Rrf", False)])
def test_who_is_waited_for_no_more_makes_no_red_uncertain(letters, certain):
    """Of what CI says nothing the red commit above it is told of; of what is tested still it may not be the first one."""
    assert selection.first_red(a_queue(letters)) == selection.Red(len(letters), certain)


def test_of_who_undoes_what_rode_along_is_not_said_that_it_undoes_the_barred_one():
    """It undoes what may have been wrong in its place."""
    queue = a_queue("bf", reverts={2: [9]})
    queue[0] = replace(queue[0], took_along=frozenset({sha(9)}))
    assert choose(queue, []).reason == (
        f"{sha(1)[:12]} ships only together with {sha(2)[:12]}, which undoes what may have been wrong in its place and failed"
        " its tests, and no commit after it has passed"
    )


def test_the_fix_of_what_a_barred_one_took_along_mends_it():
    """The canary that failed may have been the fault of that; of who was barred for something else it mends nothing."""
    queue = a_queue("Rbp", reverts={3: [1]})
    assert choose(queue, []).position is None
    queue[1] = replace(queue[1], took_along=frozenset({sha(1)}))
    assert choose(queue, []).position == 3
    queue[1] = replace(queue[1], took_along=frozenset({sha(9)}))
    assert choose(queue, []).position is None


def test_the_first_of_three_reds_is_red():
    """A commit without a verdict before them is not the one whose author is asked."""
    assert f"the first one {sha(2)[:12]}" in choose(a_queue("Ffff"), []).reason


@pytest.mark.parametrize(
    ("letters", "reverts", "kept"),
    [
        ("bp", {}, [1]),
        ("bfp", {2: [1]}, []),  # the fix is red, and what came after it passed
        ("pb", {}, []),
        ("pp", {}, []),
        ("", {}, []),
    ],
)
def test_what_is_barred_below_the_head_is_kept_back_until_one_of_them_mends_it(letters, reverts, kept):
    """Before the first release only the head is in the queue, and has in it what all the others are."""
    assert selection.kept_back(a_queue(letters, reverts=reverts)) == [sha(one) for one in kept]


def test_how_long_the_queue_is_does_not_matter_to_what_goes_out_next():
    """Beyond what goes out at once only the hashes that are undone are looked at: a push of thousands is foreseen round by round."""

    class Watched(Candidate):
        """Counts who looks at the state of those that cannot go out yet."""

        looks = 0

        def __getattribute__(self, name):
            Watched.looks += name == "state"
            return super().__getattribute__(name)

    far = [Watched(sha(at), LETTERS["p"], 0.0, suspect=False, reverts=frozenset()) for at in range(4, 2000)]
    assert choose([*a_queue("ppp"), *far], []).position == 3
    assert Watched.looks == 0


def test_what_undoes_one_far_behind_it_keeps_it_back_all_the_same():
    """The one that is reverted a thousand commits later, and all between them, do not go out by themselves."""
    assert choose(a_queue("p" * 1001, reverts={1001: [1]}), []).position is None
    assert choose(a_queue("p" * 1001, reverts={1001: [3]}), [], cap=5).position == 2
