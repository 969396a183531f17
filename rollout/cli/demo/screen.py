"""What the demo shows: words that stay, and below them, on a terminal, what happens at this moment."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

COLOURS = {
    "done": "green",
    "failed": "red",
    "unknown": "magenta",
    "activating": "yellow",
    "rolling_back": "yellow",
    "rolled_back": "cyan",
    "rollback_failed": "red",
    "prepared": "blue",
    "preparing": "blue",
}
WORDS = {
    "pending": "is planned",
    "deploying_canary": "the canary shop01 gets it",
    "evaluating_canary": "the canary answers real traffic and is judged; meanwhile it is put on every disk",
    "fanning_out": "the other hosts are switched, a few more at a time",
    "halted": "halted: automation waits for a person",
    "stopping": "stopping",
    "rolling_back": "the touched hosts go back",
    "rolled_back": "rolled back",
    "done": "done",
}


class Screen:
    """Lines that stay, and one changing picture while it is entered."""

    def __init__(self, console: Console, traffic: Callable[[], Mapping[str, int]]) -> None:
        self._console = console
        self._traffic = traffic
        self._rate: tuple[float, Mapping[str, int], str] = (0.0, {}, "")
        self._words = ""
        self._rollout: Mapping[str, Any] | None = None
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._picture, console=console, transient=True, refresh_per_second=6)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._words = ""
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._console.print(text, style=style or None, highlight=False, soft_wrap=True)

    def chapter(self, number: int, title: str, text: str) -> None:
        """The heading of one of the four commits."""
        self._rollout = None
        self.say("")
        self.say(f"[bold]{number}/4  {title}[/bold]  [dim]{text}[/dim]")

    def show(self, words: str, rollout: Mapping[str, Any] | None = None) -> None:
        """What happens now; said once as a line where there is no terminal."""
        if words and words != self._words and not self._console.is_terminal:
            self.say(f"     {words}", "dim")
        self._words = words
        self._rollout = rollout

    def follow(self, rollout: Mapping[str, Any] | None) -> None:
        """What a rollout does now."""
        if rollout is None:
            self.show("its tests run in a clean checkout")
        else:
            self.show(WORDS.get(rollout["state"], rollout["state"]), rollout)

    def _picture(self) -> RenderableType:
        if not self._words:
            return Text("")
        self._spinner.update(text=Text(self._words))
        grid = Table.grid(padding=(0, 1))
        grid.add_row("  ", self._spinner)
        lines: list[RenderableType] = [grid]
        if self._rollout is not None:
            lines.append(_hosts(self._rollout))
        lines.append(Text(f"     {self._requests()}", style="dim"))
        return Group(*lines)

    def _requests(self) -> str:
        """The traffic of about the last second."""
        since, before, text = self._rate
        now = time.monotonic()
        if now - since >= 1:
            counts = self._traffic()
            came = {name: count - before.get(name, 0) for name, count in counts.items()} if before else {}
            text = ", ".join(
                f"{count / (now - since):.0f} {'without an answer' if name == 'none' else name}"
                for name, count in sorted(came.items())
                if count > 0
            )
            self._rate = (now, counts, text)
        return f"requests a second: {text}" if text else ""


def _hosts(rollout: Mapping[str, Any]) -> Text:
    line = Text("     ")
    for host in sorted(rollout["hosts"], key=lambda host: str(host["name"])):
        line.append(f"{host['name'].removeprefix('shop')} ", style="dim")
        line.append("■  ", style=COLOURS.get(host["state"], "dim"))
    counts = rollout["counts"]
    line.append(f"{counts['done']} of {counts['total']} have it", style="dim")
    if counts["failed"]:
        line.append(f", {counts['failed']} failed", style="red")
    return line
