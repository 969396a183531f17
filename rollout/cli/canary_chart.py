"""Canary against baseline over time, drawn in a terminal: with colours or without, and in ASCII where there is no more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rollout.cli import output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Bin = Mapping[str, Any]
SIDES = ("canary", "baseline")
LABEL = len("  baseline  ")
WIDEST = 120  # a longer line is read by nobody
FEWEST = 10  # columns, however narrow it is
UNREAD, NO_REQUEST, NONE_BAD = "?", ".", "_"
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
BLOCKS, ASCII = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", ":#"  # parts of a character's height


@dataclass(frozen=True, slots=True)
class Band:
    """One quantity over time: what it is of one side in one bin (None: there is no such number)."""

    title: str
    value: Callable[[Bin], float | None]
    text: Callable[[float], str]
    nothing: str  # how 0 is drawn
    rows: int


@dataclass(frozen=True, slots=True)
class Marks:
    """How many columns come before the switch, and before the end of the one in which the word fell."""

    switch: int
    word: int | None


def console() -> "Console":
    """Standard output: it knows its width, whether it takes more than ASCII, and whether it wants colours."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def columns(screen: "Console") -> int:
    """How many bins fit beside each other; the two marks have columns of their own."""
    return max(FEWEST, min(screen.width, WIDEST) - LABEL - 2)


def draw(told: Mapping[str, Any], screen: "Console") -> None:
    """The document of `/api/rollouts/ID/canary` as a picture; nothing where there are no bins."""
    bins = told["bins"]
    if not bins:
        return
    marks = Marks(sum(one["t"] <= 0 for one in bins), _word(bins, told["t"]))
    steps = ASCII if screen.options.ascii_only else BLOCKS
    for band in (SHARES, RATES):
        for line in _band(bins, band, marks, steps, COLOURS.get(told["status"] or "", "cyan")):
            screen.print(line, no_wrap=True, crop=True)
    for words in (*_below(bins, told, marks), _legend(bins)):
        output.say(words)


def _word(bins: Sequence[Bin], t: float | None) -> int | None:
    return None if not t else next((place for place, one in enumerate(bins, 1) if t <= one["t"] + 1e-6), None)


def _share(side: Bin) -> float | None:
    return side["bad"] / side["requests"] if side["requests"] else None


def _rate(side: Bin) -> float | None:
    return side["requests"] / side["host_s"] if side["observed"] else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


SHARES = Band("share of bad answers", _share, _percent, NONE_BAD, rows=3)
RATES = Band("requests/s of a host", _rate, _number, NO_REQUEST, rows=2)


def _band(bins: Sequence[Bin], band: Band, marks: Marks, steps: str, colour: str) -> "list[Text]":
    """Both sides in one measure, one below the other."""
    from rich.text import Text

    values = {side: [band.value(one[side]) for one in bins] for side in SIDES}
    most = max((value for side in SIDES for value in values[side] if value), default=0.0)
    lines = [Text(f"{band.title}, up to {band.text(most)}", style="bold")]
    for side in SIDES:
        drawn = [
            _column(one[side], value, most, band, steps)
            for one, value in zip(bins, values[side], strict=True)
        ]
        for row in range(band.rows):
            label = f"  {side}" if row == band.rows - 1 else ""
            line = Text(label.ljust(LABEL))
            line.append(
                _marked([column[row] for column in drawn], marks), style=colour if side == "canary" else ""
            )
            line.rstrip()
            lines.append(line)
    return lines


def _column(side: Bin, value: float | None, most: float, band: Band, steps: str) -> str:
    """Its characters from the top down. Not read, no request and none bad are three different things."""
    if not side["observed"]:
        return UNREAD.rjust(band.rows)
    if not side["requests"]:
        return NO_REQUEST.rjust(band.rows)
    if not value:
        return band.nothing.rjust(band.rows)
    high = max(1, round(value / most * band.rows * len(steps)))
    full, part = divmod(high, len(steps))
    return ((steps[part - 1] if part else "") + steps[-1] * full).rjust(band.rows)


def _marked(cells: Sequence[str], marks: Marks) -> str:
    """With a line at the switch, and one where the word fell."""
    word = len(cells) if marks.word is None else marks.word
    before, between, after = cells[: marks.switch], cells[marks.switch : word], cells[word:]
    line = "".join(before) + "|" + "".join(between)
    return line if marks.word is None else f"{line}|{''.join(after)}"


def _below(bins: Sequence[Bin], told: Mapping[str, Any], marks: Marks) -> list[str]:
    """What the two lines in the picture are, and from when until when it is."""
    begin = bins[0]["t"] - bins[0]["dt"]
    history = f"{output.seconds(-begin)} before" if begin < 0 else ""
    lines = [_pointing(marks.switch, "switch", history)]
    if marks.word is not None:
        lines.append(_pointing(marks.word + 1, f"{told['status']} after {told['t']:.0f} s"))
    return lines


def _pointing(place: int, words: str, left: str = "") -> str:
    """`words` with an arrow up to a column: on the side where there is room."""
    if place >= len(words) + len(left) + 2:
        line = left.ljust(place - len(words) - 1) + f"{words} ^"
    else:
        line = " " * place + f"^ {words}"
    return (" " * LABEL + line).rstrip()


def _legend(bins: Sequence[Bin]) -> str:
    return (
        f"a column is {bins[0]['dt']:g} s; {NONE_BAD} none bad, {NO_REQUEST} no request, "
        f"{UNREAD} could not be read"
    )
