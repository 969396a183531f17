"""A fleet far away whose restarts take their time: the wall against the ideal, the worker's memory, and what idling costs."""

import contextlib
import hashlib
import re
import time
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from rollout.domain import budget
from rollout.domain.model import Release
from tests.bench import processes
from tests.bench.ask import Ask, say
from tests.bench.far import far
from tests.bench.floor import Floor
from tests.bench.ideal import planned_s
from tests.bench.installation import Installation, moments, settle
from tests.bench.report import Figure, Found

RESTART_S, ROUND_TRIP_S, ROUND_TRIPS = 2.0, 0.05, 3  # a channel, the command's greeting, the permission
CONCURRENCY = 200
# The hosts are this machine's processes. So many at once leave it time to spare, and a host takes what it takes alone.
CARRIED = 50
SLOWER_S = 5
IDLE_S = 15
HOSTS_PER_BAKED_S = 25
# The slow ones have a file of their own.
RESTART = f'if test -e "$ROOT/slow"; then sleep {RESTART_S + SLOWER_S:g}; else sleep {RESTART_S:g}; fi'


class FarInstallation(Installation):
    """Every host is behind the same long line."""

    def _configure(self):
        self.far = self.held.enter_context(far(self.sshd.port, ROUND_TRIP_S))
        hosts = self.sshd.hosts
        self.sshd.hosts = self.apps["shop"] = [
            replace(host, door=(host.address, self.far.port)) for host in hosts
        ]
        for host in hosts:
            self.sshd.know(host.address, self.far.port)
        super()._configure()

    def start_anew(self, concurrency: int) -> None:
        """With so many at once."""
        self.stop()
        assert self.up.returncode == 0, (self.folder / "up.log").read_text()[-3000:]
        text = self.config.read_text()
        self.config.write_text(
            re.sub(r"^concurrency = .*$", f"concurrency = {concurrency}", text, flags=re.MULTILINE)
        )
        self.start()
        self.workers_are_there()


@dataclass
class _Seen:
    """Seconds, a round each; of the hosts' worker the most MB, and percents of a core."""

    at_once: int
    carried: int
    few: int
    carried_walls: list[float] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    by_ssh: list[float] = field(default_factory=list)
    troubled: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    late: int = 0
    slow: int = 0
    dead: int = 0


def measure(ask: Ask) -> Found:
    """Some rollouts of few at once, some of many, and as many with trouble on 1 % of the hosts."""
    at_once = min(CONCURRENCY, ask.hosts // 5)
    seen = _Seen(at_once, min(CARRIED, at_once), max(2, ask.hosts // 100))
    system = FarInstallation(
        ask.hosts,
        bake_s=10 + ask.hosts // HOSTS_PER_BAKED_S,
        concurrency=seen.carried,
        slots=at_once + 40,
        max_failed=seen.few,
        restart=RESTART,
    )
    with contextlib.ExitStack() as held:
        system.held = held
        held.enter_context(system)
        system.install_host_program()
        say(f"latency: {seen.carried} at once")
        seen.carried_walls += [_wall(system)[0] for _ in range(ask.rounds)]
        system.start_anew(at_once)
        _many_at_once(system, ask, seen)
        say("latency: with slow and dead hosts")
        _trouble(system, seen)
        seen.troubled += [_wall(system)[0] for _ in range(ask.rounds)]
    return _found(ask, seen)


def _many_at_once(system: FarInstallation, ask: Ask, seen: _Seen) -> None:
    floor = None
    for number in range(1, ask.rounds + 1):
        say(f"latency: rollout {number} of {ask.rounds}")
        wall, seen.late, release = _wall(system)
        seen.walls.append(wall)
        floor = floor or _Floor(system, release, seen.at_once)
        seen.by_ssh.append(floor.wall_s())
        seen.peak_mb = max(seen.peak_mb, processes.memory_mb(system.pid_of("hosts"))[0])
        seen.idle.append(_idle(system, connections=ask.hosts))


def _trouble(system: FarInstallation, seen: _Seen) -> None:
    """From now on the last hosts are slow, or dead."""
    slow, dead = system.sshd.hosts[-seen.few : -seen.few // 2], system.sshd.hosts[-seen.few // 2 :]
    for host in slow:
        (host.root / "slow").touch()
    system.far.take_down([host.address for host in dead])
    seen.slow, seen.dead = len(slow), len(dead)


def _found(ask: Ask, seen: _Seen) -> Found:
    # The canary is done before.
    limits = budget.Limits(seen.few, seen.at_once, budget.Mode.RAMP)
    each_s = RESTART_S + ROUND_TRIPS * ROUND_TRIP_S
    carried_s = planned_s([each_s] * (ask.hosts - 1), replace(limits, concurrency=seen.carried))
    planned = planned_s([each_s] * (ask.hosts - 1), limits)
    ramp_s = planned - (ask.hosts - 1) * each_s / seen.at_once
    # The dead ones do not come to be switched: their places in the budget are taken before the ramp begins.
    sound = [each_s] * (ask.hosts - 1 - seen.few)
    with_trouble = planned_s([*sound, *[each_s + SLOWER_S] * seen.slow], limits, failed=seen.dead)
    wall, ideal = median(seen.walls), median(seen.by_ssh) + ramp_s
    far = f"{RESTART_S:g} s restart, {ROUND_TRIP_S * 1000:g} ms away"
    figures = [
        _against(f"{seen.carried} at once, {far}: wall / ideal", median(seen.carried_walls), carried_s),
        _against(f"{seen.at_once} at once, {far}: wall / plain ssh's", wall, ideal),
        Figure("  RSS of the hosts' worker afterwards", "MB", seen.peak_mb, at_most=200),
        Figure(
            "  idle CPU of the hosts' worker, all connections open",
            "% of a core",
            median(seen.idle),
            at_most=2.0,
        ),
        Figure(
            f"  {seen.slow} slow and {seen.dead} dead hosts add",
            "s",
            median(seen.troubled) - wall,
            at_most=with_trouble - planned + 0.1 * wall,
        ),
    ]
    connected = (
        f"{seen.late} hosts were prepared after PASS" if seen.late else "all hosts were prepared before PASS"
    )
    notes = [
        f"{seen.carried} at once: the ideal is {each_s:g} s a host and the ramp's start; walls: {_told(seen.carried_walls)} s",
        f"{seen.at_once} at once: hosts take more than that from these cores, so the ideal is plain ssh ({_told(seen.by_ssh)} s), and {ramp_s:.1f} s that the ramp takes to begin (K = {seen.few})",
        f"were each host {each_s:g} s and nothing else: {planned:.1f} s ({wall / planned:.2f} of it), with trouble {with_trouble:.1f} s",
        f"walls: {_told(seen.walls)} s; slow hosts take {SLOWER_S} s more; {connected}",
        f"with trouble: {_told(seen.troubled)} s; idle: {_told(seen.idle)} % of a core",
    ]
    return Found(figures, notes, asdict(seen) | {"ideal_s": ideal})


def _against(name: str, wall: float, ideal: float) -> Figure:
    return Figure(name, "s", wall, ideal, wall / ideal, at_most=1.35)


def _told(seconds: list[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in seconds)


class _Floor:
    """Plain ssh through the same long line, over connections that were opened before; each host has two releases to go between."""

    def __init__(self, system: FarInstallation, one: Release, at_once: int) -> None:
        two = replace(one, commit=hashlib.sha1(b"floor").hexdigest())
        self._releases = [one, two]
        self._ssh = Floor(
            system.sshd,
            system.folder / "floor",
            "floor",
            port=system.far.port,
            at_once=at_once,
            restart=RESTART,
        )
        system.install_host_program(self._ssh.sayings.path_of)
        self._ssh.ship(one, None)
        self._ssh.ship(two, one)

    def wall_s(self) -> float:
        """To switch all of them."""
        self._releases.reverse()
        with self._ssh.warm():
            settle()
            return self._ssh.switch("activate", self._releases[1]).seconds


def _wall(system: Installation) -> tuple[float, int, Release]:
    """From PASS to done; how many were prepared late; and what was shipped."""
    sha, rollout = system.release_everywhere()
    at = moments(system.events(rollout.id))
    passed = at["rollout fanning_out"][0]
    late = sum(one > passed for one in at["prepared"])
    return at["rollout done"][0] - passed, late, system.release(sha)


def _idle(system: FarInstallation, *, connections: int) -> float:
    """Percent of a core, with so many connections open."""
    time.sleep(3)
    there = processes.established(system.far.port) // 2  # a row for each end
    assert there >= connections, f"{there} of {connections} connections are open"
    pid = system.pid_of("hosts")
    before = processes.cpu_s(pid)
    time.sleep(IDLE_S)
    return (processes.cpu_s(pid) - before) / IDLE_S * 100
