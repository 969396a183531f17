"""How things are printed: cleaned, aligned, counted; and how progress is told."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest

from rollout.cli import output, scene, tellers
from rollout.cli.scene import Bar
from rollout.domain.states import HostState, RolloutState


class Terminal:
    """Standard output that a person watches."""

    def __init__(self):
        self.text = ""
        self.encoding = "utf-8"

    def isatty(self):
        return True

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass

    def fileno(self):
        raise OSError


@pytest.fixture
def terminal(monkeypatch):
    """Puts a terminal that shows colours in the place of standard output, from the call on."""

    def terminal():
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return made

    return terminal


def a_view(state, **counts):
    """A rollout's view with four hosts."""
    every = {"total": 4, **{str(one): 0 for one in HostState}} | counts
    return {
        "id": 7,
        "app": "shop",
        "commit": "a" * 40,
        "state": state,
        "reason": None,
        "counts": every,
        "canary": {"status": None, "reason": None, "hosts": ["shop01"]},
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x7fc\x9bd", "a b c d"),
        ("one\ntwo\tthree", "one two three"),
        ("\u202eevil\u2066", "evil"),
    ],
)
def test_text_of_others_is_cleaned(text, shown):
    """Escape sequences go, control characters become spaces."""
    assert output.clean(text) == shown


def test_lines_stay_lines_where_they_are_wanted():
    """Output of programs keeps its lines and tabs, and loses everything else."""
    assert output.clean("a\r\nb\rc\td\x1b[2K\x08", lines=True) == "a\nb\nc\td"


def test_columns_are_aligned(capsys):
    """Each column is as wide as its widest cell; nothing trails."""
    output.table(("id", "name"), [(1, "a"), (1000, None)])
    assert capsys.readouterr().out == "id    name\n1     a\n1000  -\n"


@pytest.mark.parametrize(
    ("span", "text"),
    [(0.42, "0.4 s"), (12, "12 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_spans_are_rounded_for_people(span, text):
    """A number and one unit."""
    assert output.seconds(span) == text


def test_ages_are_told():
    """How long ago; never in the future."""
    now = datetime.now(UTC)
    assert output.ago(now - timedelta(minutes=5)) == "5 min ago"
    assert output.ago(now + timedelta(minutes=5)) == "0.0 s ago"
    assert output.ago(None) == "-"


def test_many_names_are_cut():
    """The first ten, and how many more."""
    assert output.names([f"h{number}" for number in range(12)]).endswith("h9 and 2 more")


def test_colours_are_for_terminals_that_want_them(terminal, monkeypatch):
    """A terminal gets colours; with NO_COLOR, or a dumb one, nobody does."""
    terminal()
    assert output.state("failed") == "\x1b[31mfailed\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.state("failed") == "failed"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.state("failed") == "failed"


def test_no_colours_in_a_pipe(capsys, monkeypatch):
    """What is piped is plain."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.say(output.state("failed"))
    assert capsys.readouterr().out == "failed\n"


@pytest.mark.parametrize("state", list(RolloutState))
def test_every_state_has_its_scene(state):
    """Unfinished states show at least one bar, finished ones none; every one has a headline."""
    view = a_view(str(state), done=2, failed=1, pending=1)
    finished = state in {
        RolloutState.DONE,
        RolloutState.ROLLED_BACK,
        RolloutState.STOPPED,
        RolloutState.ERROR,
    }
    assert bool(scene.of_rollout(view)) is not finished
    assert all(bar.name.startswith("rollout 7 ") for bar in scene.of_rollout(view))
    assert "2 of 4 hosts done, 1 failed" in scene.headline(view)


def test_bars_never_run_over():
    """Done never exceeds the total, excluded hosts leave the total."""
    for state in RolloutState:
        for bar in scene.of_rollout(a_view(str(state), done=3, excluded=1)):
            assert bar.total is None or bar.done <= bar.total


def test_in_a_pipe_only_news_are_told(capsys):
    """A line when something else goes on, none when a number moves."""
    with tellers.teller(as_json=False) as told:
        told.show([Bar("hosts", 1, 4)])
        told.show([Bar("hosts", 2, 4)])
        told.show([Bar("back", 0, None, "x")])
        told.say("a line")
    assert capsys.readouterr().out == "hosts 1 of 4\nback: x\na line\n"


def test_with_json_nothing_is_told(capsys):
    """There is one document, and it is not from here."""
    with tellers.teller(as_json=True) as told:
        told.show([Bar("hosts", 1, 4)])
        told.say("a line")
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_bars(terminal):
    """Bars come, move and go; text of others is no markup."""
    shown = terminal()
    with tellers.teller(as_json=False) as told:
        told.show([Bar("hosts", 1, 4, "[red]x[/red]")])
        told.show([Bar("hosts", 2, 4), Bar("more", 0, None)])
        told.show([Bar("more", 0, None, "[bold]y[/bold]")])
        told.say("[b]a line[/b]")
    assert "[b]a line[/b]" in shown.text


def test_what_the_terminal_cannot_write_ends_no_command(monkeypatch):
    """A subject with letters that the encoding does not have is shown with ?; arrows are drawn of ASCII there."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    output.say(f"für {output.arrow()}")
    output.warn("für")
    shown.seek(0)
    assert shown.read() == "f?r ->\nf?r\n"
