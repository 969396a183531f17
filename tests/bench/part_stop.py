"""A stop while 100 hosts are being switched: from the command to its acknowledgement, and from there to the first host back."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

from tests.bench.ask import Ask, say
from tests.bench.installation import Installation, moments, running
from tests.bench.report import Figure, Found
from tests.support.system import wait_for

IN_FLIGHT = 100
QUICK = 20  # hosts that are done when the stop comes, so that some can go back at once
SLOW_S = 6


@dataclass(frozen=True)
class Kind:
    """Where the hosts in flight are when the stop comes: behind their switch, or before it."""

    slow: str  # what takes long, while a file of this name is there, on every host but the first ones
    touched: bool


KINDS = {"in a restart": Kind("restart", touched=True), "at their login": Kind("login", touched=False)}
RESTART = (
    'if test -e "$SSHD_FOLDER/restart"; then case $HOST in web00?|web01?|web020) ;; *) sleep '
    f"{SLOW_S} ;; esac; fi"
)
LOGIN = (
    f'case $SSH_ORIGINAL_COMMAND in *activate*) ! test -e "$SSHD_FOLDER/login" || sleep {SLOW_S} ;; esac\n'
)


@dataclass(frozen=True)
class Stop:
    """Milliseconds."""

    to_acknowledged: float  # from the call, or from the start of the process, to the moment in the store
    told: float  # until the caller knew: the API's answer (accepted), or the command's line
    to_first_back: float
    in_flight: int


def measure(ask: Ask) -> Found:
    """By the API and by the command, with either kind of hosts in flight, in turn."""
    flight = ask.few(IN_FLIGHT)
    hosts = QUICK + flight
    found: dict[tuple[str, str], list[Stop]] = {(kind, way): [] for kind in KINDS for way in WAYS}
    with running(
        hosts, bake_s=2, baseline=0, concurrency=flight, slots=flight + 40, max_failed=flight, restart=RESTART
    ) as system:
        for host in system.sshd.hosts[QUICK:]:
            host.login(LOGIN)
        say(f"a first release on {hosts} hosts")
        system.release_everywhere()
        for number in range(ask.rounds):
            for (kind, way), stops in found.items():
                say(f"stop {number + 1}, {way}, hosts {kind}")
                stops.append(_one(system, flight, KINDS[kind], WAYS[way][1]))
    figures = []
    for (kind, way), stops in found.items():
        took = median(one.to_acknowledged for one in stops)
        told = median(one.told for one in stops)
        figures += [
            Figure(f"stop, hosts {kind}: {WAYS[way][0]} → acknowledged", "ms", took, at_most=500),
            Figure(f"  {way}, hosts {kind}: until the caller is told", "ms", told),
        ]
    first = median(one.to_first_back for stops in found.values() for one in stops)
    figures.append(Figure("stop: acknowledged → first host back", "ms", first, at_most=300))
    notes = [
        f"{way}, {min(one.in_flight for one in stops)} hosts or more {kind} of {SLOW_S} s: "
        + ", ".join(f"{one.to_acknowledged:.0f}" for one in stops)
        + " ms to acknowledged"
        for (kind, way), stops in found.items()
    ]
    return Found(figures, notes, {"stops": {", ".join(key): stops for key, stops in found.items()}})


def _one(system: Installation, flight: int, kind: Kind, stop) -> Stop:
    """A rollout that is stopped in the middle; everything is back when it returns."""
    slow = system.sshd.folder / kind.slow
    slow.touch()
    sha = system.push_release("To be stopped")
    system.releases.append(sha)
    rollout = system.ends(sha, "fanning_out").id

    def in_flight():
        with system.store.reading() as tx:
            hosts = [host for host in tx.hosts.of(rollout) if host.state == "activating"]
        there = sum(host.touched is kind.touched for host in hosts)
        return len(hosts) if there >= flight * 0.95 else 0

    amount = wait_for(in_flight, seconds=SLOW_S * 3, every=0.05, why="hosts in flight")
    slow.unlink()  # those that are at it sleep on; the way back is quick
    began, told = stop(system, rollout)
    system.ends(sha, "rolled_back", seconds=120)
    at = moments(system.events(rollout))
    acknowledged = at["rollout rolling_back"][0]
    return Stop(
        to_acknowledged=(acknowledged - began) * 1000,
        told=(told - began) * 1000,
        to_first_back=(min(at["rolled_back"]) - acknowledged) * 1000,
        in_flight=amount,
    )


def _by_command(system: Installation, rollout: int) -> tuple[float, float]:
    words = [sys.executable, "-m", "rollout", "stop", str(rollout), "--reason", "measured"]
    began, told, lines = time.time(), 0.0, []
    with subprocess.Popen(
        [*words, "--config", str(system.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | system.environment | {"NO_COLOR": "1"},
    ) as command:
        for line in command.stdout:
            lines.append(line)
            if line.startswith("acknowledged"):
                told = time.time()
    assert told, "".join(lines)
    return began, told


WAYS = {
    "API": ("API call", Installation.stop_over_the_api),
    "command": ("command's process start", _by_command),
}
