"""`rollout show` draws canary against baseline."""

import io

import pytest
from rich.console import Console

from rollout.cli import canary_chart
from tests.support.fakes import a_rollout
from tests.support.judged import CANARY, OTHERS, a_judged_rollout, a_watched_rollout
from tests.support.traces import on_canary, story

SIDE = {"requests": 20, "bad": 0, "observed": True, "host_s": 2.0}
UNREAD = {"requests": 0, "bad": 0, "observed": False, "host_s": 0.0}


def trace(rate=0.01, until=60, **given):
    rate = on_canary(rate, canaries=(CANARY,))
    return story(canaries=(CANARY,), baseline=OTHERS, rate=rate, until=until, **given)


def a_bin(t, canary=None, **of_canary):
    return {"t": t, "dt": 2.0, "canary": canary or SIDE | of_canary, "baseline": SIDE}


@pytest.fixture
def drawn(capsys):
    """Draws bins: the lines, by the first word of each band's title and the side."""

    def drawn(*bins, t=None, status="running", width=80, encoding="utf-8"):
        screen = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
        canary_chart.draw({"bins": list(bins), "t": t, "status": status}, screen)
        screen.file.seek(0)
        return screen.file.read().splitlines(), capsys.readouterr().out.splitlines()

    return drawn


def bottom(lines, side, band=0):
    """The lowest row of a side in a band: shares, then requests."""
    return [line[canary_chart.LABEL :] for line in lines if line.startswith(f"  {side}")][band]


def test_an_outage_is_seen_beside_a_baseline_that_is_well(cli, deps):
    """Full columns on the canary after the switch, low ones before it and on the baseline; then the sentence; 80 columns."""
    rollout = a_judged_rollout(deps, trace(rate=1.0))
    lines = cli("show", rollout.id).out.splitlines()
    assert f"  {'canary'.ljust(11)} fail on shop01" in lines
    begin = next(place for place, line in enumerate(lines) if line.startswith("share of bad answers, up to "))
    told = next(place for place, line in enumerate(lines) if line.startswith("shop01 answered 5xx to"))
    picture = lines[begin:told]
    before, watched, after = picture[1][canary_chart.LABEL :].split("|")
    assert (before.strip(), watched, after[0]) == ("", "███", "█")
    assert "█" not in picture[4] + picture[5] + picture[6]
    assert any("switch ^" in line for line in picture)
    assert any("fail after 6 s ^" in line for line in picture)
    assert picture[-1].startswith("a column is 2 s; ")
    assert max(map(len, picture)) <= 80


def test_unread_quiet_and_faultless_are_three_different_things(drawn):
    """? for what could not be read, . for no request, _ for no bad answer; none of them looks like a number."""
    quiet = SIDE | {"requests": 0}
    lines, _ = drawn(a_bin(2.0, UNREAD), a_bin(4.0, quiet), a_bin(6.0), a_bin(8.0, bad=20))
    assert bottom(lines, "canary") == "|?._█"
    assert bottom(lines, "baseline") == "|____"
    assert bottom(lines, "canary", band=1) == "|?.██"


def test_the_smallest_share_is_not_nothing(drawn):
    """One bad answer beside an outage is still drawn, and less of it is less high."""
    lines, _ = drawn(a_bin(2.0, bad=20), a_bin(4.0, bad=1), a_bin(6.0, bad=10))
    assert bottom(lines, "canary") == "|█▁█"
    assert [line[canary_chart.LABEL :] for line in lines[1:3]] == ["|█", "|█ ▄"]


def test_both_sides_are_drawn_in_one_measure(drawn):
    """A baseline with half of the canary's share is half as high."""
    side = SIDE | {"bad": 5}
    lines, _ = drawn({"t": 2.0, "dt": 2.0, "canary": SIDE | {"bad": 10}, "baseline": side})
    assert [line[canary_chart.LABEL :] for line in lines[1:7]] == ["|█", "|█", "|█", "|", "|▄", "|█"]


def test_the_switch_and_the_word_are_marked(drawn):
    """A line at each, and what it is below: also where there is no room on the left."""
    bins = [a_bin(2.0 * step) for step in range(-19, 11)]
    lines, below = drawn(*bins, t=12.0, status="pass")
    assert bottom(lines, "canary") == f"{'_' * 20}|{'_' * 6}|____"
    switch, word = (line[canary_chart.LABEL :] for line in below[:2])
    assert switch == "40 s before" + " " * 2 + "switch ^"
    assert word.rindex("^") == 27
    assert word.strip() == "pass after 12 s ^"
    _, below = drawn(*(a_bin(2.0 * step) for step in range(1, 4)), t=4.0, status="fail")
    assert [line[canary_chart.LABEL :] for line in below[:2]] == ["^ switch", "   ^ fail after 4 s"]


def test_without_a_word_only_the_switch_is_marked(drawn):
    """While it is watched."""
    lines, below = drawn(a_bin(0.0), a_bin(2.0))
    assert bottom(lines, "canary") == "_|_"
    assert len(below) == 2


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_terminal_without_blocks_gets_ascii(drawn, encoding):
    """Nothing in the picture is outside ASCII where the encoding is not of the UTF family."""
    lines, below = drawn(a_bin(2.0, bad=20), a_bin(4.0, bad=1), encoding=encoding)
    assert bottom(lines, "canary") == "|#:"
    assert "\n".join(lines + below).isascii()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_is_as_wide_as_the_terminal(cli, deps, monkeypatch, width):
    """And not wider than can be read."""
    rollout = a_watched_rollout(deps, trace(until=300, rps=5))
    monkeypatch.setenv("COLUMNS", str(width))
    picture = (
        cli("show", rollout.id).out.partition("share of bad")[2].partition("a column is")[0].splitlines()
    )
    assert width / 3 < max(map(len, picture)) <= min(width, canary_chart.WIDEST)


def test_history_does_not_squeeze_what_followed(cli, deps):
    """An hour of it leaves an outage of six seconds three columns."""
    rollout = a_judged_rollout(deps, trace(rate=0.98, history=3600))
    assert "a column is 2 s; " in cli("show", rollout.id).out


def test_a_watch_under_way_is_drawn(cli, deps):
    """With its word of now below."""
    rollout = a_watched_rollout(deps, trace(until=20))
    with deps.store.transaction() as tx:
        tx.rollouts.update(rollout, canary_reason="all is well; watched for 20 s")
    told = cli("show", rollout.id).out
    assert "share of bad answers" in told
    assert "could not be read\nall is well; watched for 20 s\n" in told


def test_without_samples_nothing_is_drawn(cli, deps):
    """The head says why the canary passed, and that there is nothing to draw; a pending one says not yet."""
    told = cli("show", a_rollout(deps, state="done").id).out
    assert "pass on shop01: all 200 answers were good (no samples to draw)" in told
    assert "share of bad answers" not in told
    told = cli("show", a_rollout(deps, state="pending").id).out
    assert f"  {'canary'.ljust(11)} not yet on shop01\n" in told


def test_the_document_stays_the_contracts(cli, deps):
    """`show --json` has no picture."""
    told = cli("show", a_judged_rollout(deps, trace()).id, "--json").json
    assert set(told["canary"]) == {"status", "reason", "hosts"}
