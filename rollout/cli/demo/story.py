"""The demo's story: four commits, one good and three bad in different ways; and whether each ended as it must."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout.cli.demo import evidence
from rollout.cli.demo.evidence import Found
from rollout.cli.demo.product import NO_COMMIT, Product
from rollout.cli.demo.repository import Repository
from rollout.cli.demo.screen import Screen
from rollout.cli.demo.world import World, read_world
from rollout.errors import RolloutError
from rollout.supervisor import flower
from rollout.supervisor.descendants import end_descendants
from rollout.supervisor.guardian import ENDING, guarded

LONGEST_CHAPTER_S = 120.0
WORLD_S = 30.0
PAUSE_S = 1.0  # between two looks at a rollout, each of which is a command
BROKEN = frozenset({"shop07", "shop09", "shop11"})  # where the fourth commit does not start
STILL = frozenset({"done", "halted", "rolled_back", "stopped", "error"})
LONGEST_FOLDER = 64  # bytes, so that the broker's socket fits below it


def play(console: Console, *, keep: bool = False) -> int:
    """Play it in one temporary folder: 0 when each commit ended as it must. Nothing is left behind."""
    folder = _folder()
    try:
        return guarded(lambda: _play(folder, console, keep=keep))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    place = Path(tempfile.gettempdir())
    if len(bytes(place)) > LONGEST_FOLDER:
        place = Path("/tmp")  # noqa: S108  # mkdtemp makes a folder of our own in it
    return Path(tempfile.mkdtemp(prefix="rollout-demo-", dir=place))


def _play(folder: Path, console: Console, *, keep: bool) -> int:
    for sign in ENDING:
        signal.signal(sign, _interrupted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        with ExitStack() as stack:
            story = _setting(folder, console, stack)
            ended_well = story.tell()
            if keep:
                story.stay()
    except RolloutError as exc:
        console.print(f"[red]The demo could not go on:[/red] {escape(str(exc))}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("[dim]ended[/dim]")
        return 130
    finally:  # whoever started us may be gone
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if ended_well else 1


def _interrupted(_sign: int, _frame: object) -> None:
    for sign in ENDING:
        signal.signal(sign, signal.SIG_IGN)  # once is enough: what follows is the ending
    raise KeyboardInterrupt


def _setting(folder: Path, console: Console, stack: ExitStack) -> "Story":
    """World, repository and product, all running; the stack ends them."""
    began = time.monotonic()
    console.print(
        "[bold]rollout demo[/bold]: a fleet of 12 hosts (SSH servers on loopback addresses), real traffic,"
        " the whole system, and 4 commits.",
        highlight=False,
        soft_wrap=True,
    )
    world = stack.enter_context(_world(folder))
    screen = stack.enter_context(Screen(console, world.traffic))
    screen.show("starting broker, web, workers, beat and Flower")
    repository = Repository(folder)
    product = Product(folder, world, repository)
    stack.callback(product.stop)
    stack.callback(screen.show, "ending everything")
    product.start()
    screen.say(
        f"Everything runs after {time.monotonic() - began:.1f} s."
        f" Dashboard: http://127.0.0.1:{product.web}/  Flower: http://127.0.0.1:{product.flower}/",
        "dim",
    )
    return Story(world, repository, product, screen, console)


@contextmanager
def _world(folder: Path) -> Iterator[World]:
    log = folder / "world.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rollout.cli.demo.world", str(folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    assert process.stdin is not None
    try:
        deadline = time.monotonic() + WORLD_S
        while (world := read_world(folder)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RolloutError(f"the demo's fleet did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield world
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Story:
    """Tells it; `tell` is True when each of the four ended as it must."""

    def __init__(
        self, world: World, repository: Repository, product: Product, screen: Screen, console: Console
    ) -> None:
        self._world = world
        self._repository = repository
        self._product = product
        self._screen = screen
        self._console = console
        self._good = ""  # the first commit, which every host runs in the end
        self._results: list[tuple[str, str, bool]] = []

    def tell(self) -> bool:
        """All four chapters, and the table of what every host runs."""
        began = time.monotonic()
        for chapter in (self._good_commit, self._failing_tests, self._bad_canary, self._broken_start):
            chapter()
        found = self._look()
        self._screen.show("")
        self._console.print(self._table(found))
        for commit, text, right in self._results:
            mark = "[green]as it must[/green]" if right else "[red]NOT as it must[/red]"
            self._screen.say(f"  {commit[:12]}  {escape(text)}: {mark}")
        self._screen.say(f"[dim]{time.monotonic() - began:.0f} s[/dim]")
        return len(self._results) == 4 and all(right for _, _, right in self._results)

    def stay(self) -> None:
        """Leave it running until Ctrl-C, and say how to look at it."""
        product = self._product
        command = f"{Path(sys.executable).with_name('rollout')} status --config {product.config}"
        self._screen.say("")
        self._screen.say("It all keeps running; Ctrl-C ends it.")
        self._screen.say(f"  dashboard  http://127.0.0.1:{product.web}/")
        self._screen.say(
            f"  Flower     http://127.0.0.1:{product.flower}/"
            f"  (user {flower.USER}, password {flower.password(product.state_dir)})"
        )
        self._screen.say(f"  command    {command}")
        self._screen.say(f"  repository {self._repository.work} (push, then wait for the poll)")
        with suppress(KeyboardInterrupt):
            while True:
                signal.pause()

    # The four chapters

    def _good_commit(self) -> None:
        commit = self._good = self._repository.create()
        self._screen.chapter(1, "A good commit", f"{commit[:12]}: a shop with a checkout")
        self._push(commit)
        end = self._until_still(commit)
        self._say_verdict(end)
        found = self._look()
        self._tell_end(
            commit,
            "tested, watched on the canary, then on"
            f" {sum(each.disk == commit for each in found.values())} of {len(found)} hosts{_took(end)}",
            {"the rollout is done": end["state"] == "done", "every host runs it": _all_run(found, commit)},
        )

    def _say_verdict(self, rollout: Mapping[str, Any]) -> None:
        self._screen.say(f"     its judge: {escape(str(rollout['canary']['reason']))}")

    def _failing_tests(self) -> None:
        commit = self._repository.fail_tests()
        self._screen.chapter(2, "A commit that fails its tests", f"{commit[:12]}: round to whole euros")
        self._push(commit)
        self._screen.show("its tests run in a clean checkout")
        code, answer = self._product.ask("deploy", commit, "--wait")
        self._tell_end(
            commit,
            "its tests failed; no host has heard of it",
            {
                "`rollout deploy --wait` says so": code == 1 and answer.get("state") == "failed",
                "there is no rollout of it": self._product.rollout_of(commit) is None,
                "every host runs what it ran": _all_run(self._look(), self._good),
            },
        )

    def _bad_canary(self) -> None:
        commit = self._repository.answer_500()
        self._screen.chapter(3, "A commit that answers 500s", f"{commit[:12]}: a faster checkout")
        self._push(commit)
        end = self._until_still(commit)
        self._say_verdict(end)
        touched = evidence.ever_switched_to(self._world, commit)
        refused, _ = self._product.ask("deploy", commit)
        self._tell_end(
            commit,
            "caught on the canary, rolled back, barred;"
            f" by their journals it ran on {', '.join(touched) or 'no host'}",
            {
                "the canary failed": end["canary"]["status"] == "fail",
                "the rollout is rolled back": end["state"] == "rolled_back",
                "only the canary ever ran it": touched == ["shop01"],
                "the commit is barred": refused == 4,
                "every host runs what it ran": _all_run(self._look(), self._good),
            },
        )

    def _broken_start(self) -> None:
        commit = self._repository.break_some_hosts()
        self._screen.chapter(
            4, "A commit that does not start on some hosts", f"{commit[:12]}: reverts the third"
        )
        self._push(commit)
        halted = self._until_still(commit)
        failed = sorted(host["name"] for host in halted["hosts"] if host["state"] == "failed")
        self._screen.say(
            f"     fine on the canary; then it failed on {', '.join(failed) or 'no host'}, more than the"
            f" {halted['budget']['max_failed']} that may fail: {halted['state']}"
        )
        self._screen.say(f"     $ rollout stop {halted['id']} --wait")
        self._screen.show("stopping, and rolling back what was touched")
        code, _ = self._product.ask("stop", str(halted["id"]), "--wait")
        end = self._product.show(halted["id"])
        for host in end["hosts"]:
            if host["state"] == "rollback_failed":
                self._screen.say(f"     {host['name']} did not go back: {escape(str(host['error']))}", "red")
        budget = halted["budget"]
        back = end["counts"]["rolled_back"]
        self._tell_end(
            commit,
            f"halted past the threshold, stopped, and rolled back on {back} hosts",
            {
                "it halted": halted["state"] == "halted",
                "more hosts failed than may": len(failed) > budget["max_failed"],
                "not more than the plan's worst case": len(failed) <= budget["worst_case"],
                "they are hosts on which it cannot start": set(failed) <= BROKEN,
                "`rollout stop --wait` succeeded": code == 0,
                "the rollout is rolled back": end["state"] == "rolled_back",
                "every host runs what it ran": _all_run(self._look(), self._good),
            },
        )

    # What they share

    def _push(self, commit: str) -> None:
        commits = self._repository.commits
        before = commits[-2] if len(commits) > 1 else NO_COMMIT
        self._screen.show("git push, and the signed webhook that follows it")
        self._product.push(before, commit)

    def _until_still(self, commit: str) -> Mapping[str, Any]:
        """The commit's rollout as soon as it has ended or waits for a person."""
        deadline = time.monotonic() + LONGEST_CHAPTER_S
        rollout: Mapping[str, Any] | None = None
        while rollout is None or rollout["state"] not in STILL:
            if time.monotonic() > deadline:
                state = rollout["state"] if rollout else "not begun"
                raise RolloutError(
                    f"after {LONGEST_CHAPTER_S:g} s the rollout of {commit[:12]} is {state}\n{self._product.last_words()}"
                )
            time.sleep(PAUSE_S)
            rollout = self._product.show(rollout["id"]) if rollout else self._product.rollout_of(commit)
            self._screen.follow(rollout)
        return rollout

    def _look(self) -> Mapping[str, Found]:
        return evidence.look(self._world)

    def _tell_end(self, commit: str, text: str, truths: Mapping[str, bool]) -> None:
        """Whether it ended as it must: all of the truths, and otherwise which of them are none."""
        right = all(truths.values())
        self._results.append((commit, text, right))
        self._screen.say(f"     {'[green]✓[/green]' if right else '[red]✗[/red]'} {escape(text)}")
        for truth in (truth for truth, holds in truths.items() if not holds):
            self._screen.say(f"       not so: {truth}", "red")

    def _table(self, found: Mapping[str, Found]) -> Table:
        """What every host runs, by its own disk and its own answer."""
        names = {commit: number for number, commit in enumerate(self._repository.commits, 1)}
        table = Table(title="What every host runs, read from the hosts", title_justify="left")
        for head in ("host", "address", "on its disk", "its service answers", "commit"):
            table.add_column(head)
        for host in self._world.hosts:
            each = found[host.name]
            style = "green" if each == Found(self._good, self._good) else "red"
            number = names.get(each.disk)
            table.add_row(
                host.name,
                host.address,
                each.disk[:12] or "nothing",
                each.answers[:12] or "nothing",
                f"{number} of 4" if number else "none",
                style=style,
            )
        return table


def _all_run(found: Mapping[str, Found], commit: str) -> bool:
    return all(each == Found(commit, commit) for each in found.values())


def _took(rollout: Mapping[str, Any]) -> str:
    times = [host["took_s"] for host in rollout["hosts"] if host["took_s"] is not None]
    return f"; a host took {sum(times) / len(times):.1f} s" if times else ""
