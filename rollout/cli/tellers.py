"""How progress is told while a command waits: bars on a terminal, lines elsewhere, nothing with --json."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from rollout.cli import output
from rollout.cli.scene import Bar

if TYPE_CHECKING:
    from rich.progress import TaskID


class Teller(Protocol):
    """Shown the same scene again and again; says what is new."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def show(self, bars: Sequence[Bar]) -> None:
        """The scene as it is now."""

    def say(self, line: str) -> None:
        """A line that stays."""


def teller(*, as_json: bool) -> Teller:
    """The one for this standard output."""
    if as_json:
        return Silent()
    return Bars() if output.is_terminal() else Lines()


class Silent:
    """With --json there is one document, at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, bars: Sequence[Bar]) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


class Lines:
    """In a pipe or a log: a line whenever something else goes on, not whenever a number moves."""

    def __init__(self) -> None:
        self._told: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, bars: Sequence[Bar]) -> None:
        """A line for each bar that was not there before."""
        for bar in bars:
            if bar.name not in self._told:
                output.say(str(bar))
        self._told = tuple(bar.name for bar in bars)

    def say(self, line: str) -> None:
        """The line."""
        output.say(line)


class Bars:
    """On a terminal: Rich's bars, gone when the command is."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        console = Console(markup=False, highlight=False, emoji=False)
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
            refresh_per_second=8,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, bars: Sequence[Bar]) -> None:
        """Bars come, move and go."""
        for name in set(self._tasks) - {bar.name for bar in bars}:
            self._progress.remove_task(self._tasks.pop(name))
        for bar in bars:
            numbers = "" if bar.total is None else f"{bar.done}/{bar.total}"
            if bar.name not in self._tasks:
                self._tasks[bar.name] = self._progress.add_task(
                    bar.name, total=bar.total, numbers="", detail=""
                )
            self._progress.update(
                self._tasks[bar.name], completed=bar.done, total=bar.total, numbers=numbers, detail=bar.detail
            )

    def say(self, line: str) -> None:
        """The line, above the bars."""
        self._progress.console.print(line, soft_wrap=True)
