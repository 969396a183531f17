"""One round: the floor cold and warm, then the whole system cold and warm, on the same server."""

import hashlib
from dataclasses import dataclass, replace

from tests.bench.floor import Floor, Run
from tests.bench.installation import Installation, moments, settle
from tests.bench.processes import CpuWatch
from tests.support.system import wait_for

HOLD = "hold"


def restart_of(hosts: int) -> str:
    """A trivial one; but while the file is there it does not end on the last host, so that a stop finds all of them touched."""
    return f'while test $HOST = web{hosts:03} && test -e "$SSHD_FOLDER/{HOLD}"; do sleep 0.1; done'


@dataclass(frozen=True)
class Round:
    """What was measured. Of ours, `cold` is prepare and fan-out together."""

    floor_cold: Run
    floor_activate: Run  # warm, on prepared hosts
    floor_back: Run  # warm
    prepare: Run
    fan_out: Run
    cold: Run
    back: Run
    first_back_s: float  # from the stop's acknowledgement to the first host that is back
    late: int  # hosts that were not yet prepared when the canary had its PASS
    parts: dict[str, dict[str, float]]  # CPU seconds of each of our processes in each span


class Rounds:
    """Brings every host of two fleets (ours, the floor's) to a first release, then measures."""

    def __init__(self, system: Installation) -> None:
        self._system = system
        self._floor = Floor(system.sshd, system.folder / "floor", "floor")
        system.install_host_program(self._floor.sayings.path_of)
        sha, _ = system.release_everywhere("The release that rollbacks go back to")
        self.base = system.release(sha)
        self._floor.ship(self.base, None)

    def one(self) -> Round:
        """A round; our fleet runs the first release again when it is over."""
        number = len(self._system.releases) + 1
        release = replace(self.base, commit=hashlib.sha1(b"floor %d" % number).hexdigest())
        self._system.go_cold()
        floor_cold = self._floor.ship(release, self.base)
        with self._floor.warm():
            settle()
            floor_back = self._floor.switch("rollback", self.base)
            floor_activate = self._floor.switch("activate", release)
        self._system.go_cold()
        with CpuWatch(self._system.roots()) as watch:
            rollout, stopped = self._ship_and_stop(number)
        at = moments(self._system.events(rollout))
        passed = at["rollout fanning_out"][0]
        baked = at["rollout evaluating_canary"][0]  # the canary is no host's preparing or switching
        spans = {
            "prepare": (min(begun for begun in at["preparing"] if begun > baked), max(at["prepared"])),
            "fan_out": (passed, max(at["done"])),
            "back": (stopped, max(at["rolled_back"])),
        }
        spent = {name: watch.between(*span) for name, span in spans.items()}
        return Round(
            floor_cold=floor_cold,
            floor_activate=floor_activate,
            floor_back=floor_back,
            **{name: Run(end - begin, sum(spent[name].values())) for name, (begin, end) in spans.items()},
            cold=_both(spans["prepare"], spans["fan_out"], watch),
            first_back_s=min(at["rolled_back"]) - at["rollout rolling_back"][0],
            late=sum(prepared > passed for prepared in at["prepared"]),
            parts=spent,
        )

    def _ship_and_stop(self, number: int) -> tuple[int, float]:
        """A push that reaches every host, the last one of which holds its restart up, and the moment at which it is stopped."""
        system, hosts = self._system, len(self._system.sshd.hosts)
        hold = system.sshd.folder / HOLD
        hold.touch()
        sha = system.push_release(f"Release {number}")
        rollout = int(system.ends(sha, "fanning_out").id)
        wait_for(
            lambda: system.rollout_row(sha).done == hosts - 1,
            seconds=300,
            every=0.1,
            why="all but one to be done",
        )
        settle()
        system.releases.append(sha)
        hold.unlink()
        stopped, _ = system.stop_over_the_api(rollout)
        system.ends(sha, "rolled_back")
        assert set(system.disks().values()) == {self.base.commit}, "a host is not back"
        return rollout, stopped


def _both(first: tuple[float, float], second: tuple[float, float], watch: CpuWatch) -> Run:
    """Two spans together; what they have in common counts once."""
    spans = (
        [first, second] if first[1] <= second[0] else [(min(first[0], second[0]), max(first[1], second[1]))]
    )
    seconds = sum(end - begin for begin, end in spans)
    return Run(seconds, sum(sum(watch.between(*span).values()) for span in spans))
