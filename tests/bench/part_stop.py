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
# While the file is there, a restart takes long on every host but the first ones.
RESTART = (
    'if test -e "$SSHD_FOLDER/slow"; then case $HOST in web00?|web01?|web020) ;; *) sleep '
    f"{SLOW_S} ;; esac; fi"
)


@dataclass(frozen=True)
class Stop:
    """Milliseconds."""

    to_acknowledged: float  # from the call, or from the start of the process, to the moment in the store
    told: float  # until the caller knew: the API's answer (accepted), or the command's line
    to_first_back: float
    in_flight: int


def measure(ask: Ask) -> Found:
    """By the API and by the command, in turn."""
    flight = ask.few(IN_FLIGHT)
    hosts = QUICK + flight
    with running(
        hosts, bake_s=2, baseline=0, concurrency=flight, slots=flight + 40, max_failed=flight, restart=RESTART
    ) as system:
        say(f"a first release on {hosts} hosts")
        system.release_everywhere()
        found: dict[str, list[Stop]] = {"API": [], "command": []}
        for number in range(ask.rounds):
            for way, stop in (("API", Installation.stop_over_the_api), ("command", _by_command)):
                say(f"stop {number + 1}, {way}")
                found[way].append(_one(system, flight, stop))
    figures = []
    for way, begin in (("API", "API call"), ("command", "command's process start")):
        of_way = found[way]
        figures += [
            Figure(
                f"stop: {begin} → acknowledged",
                "ms",
                median(one.to_acknowledged for one in of_way),
                at_most=500,
            ),
            Figure(f"  {way}: until the caller is told", "ms", median(one.told for one in of_way)),
        ]
    every = [one for of_way in found.values() for one in of_way]
    first = median(one.to_first_back for one in every)
    figures.append(Figure("stop: acknowledged → first host back", "ms", first, at_most=300))
    notes = [
        f"{min(one.in_flight for one in every)} to {max(one.in_flight for one in every)} hosts in flight, in a restart of {SLOW_S} s",
        *(
            f"{way}: " + ", ".join(f"{one.to_acknowledged:.0f}" for one in of_way) + " ms to acknowledged"
            for way, of_way in found.items()
        ),
    ]
    return Found(figures, notes, {"stops": found})


def _one(system: Installation, flight: int, stop) -> Stop:
    """A rollout that is stopped in the middle; everything is back when it returns."""
    slow = system.sshd.folder / "slow"
    slow.touch()
    sha = system.push_release("To be stopped")
    system.releases.append(sha)
    rollout = system.ends(sha, "fanning_out").id

    def in_flight():
        with system.store.reading() as tx:
            hosts = [host for host in tx.hosts.of(rollout) if host.state == "activating"]
        return len(hosts) if sum(host.touched for host in hosts) >= flight * 0.95 else 0

    amount = wait_for(in_flight, seconds=SLOW_S * 3, every=0.05, why="hosts in flight")
    slow.unlink()  # those that are in it sleep on; the way back is quick
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
