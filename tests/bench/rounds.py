"""One round: the floor cold and warm, then the whole system cold and warm, on the same server."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.domain.model import Release
from tests.bench.floor import Floor, Run
from tests.bench.installation import Installation, moment, settle
from tests.bench.processes import CpuWatch

REST_S = 0.5  # between two measurements, for processes that end


@dataclass(frozen=True)
class Round:
    """What was measured. Of ours, `cold` is prepare and fan-out together."""

    floor_cold: Run
    floor_two: Run
    floor_warm: Run
    prepare: Run
    fan_out: Run
    cold: Run
    warm: Run
    parts_cold: dict[str, float]  # CPU seconds of each of our processes
    parts_warm: dict[str, float]


class Rounds:
    """Brings every host of three fleets (ours, the floor's, the floor's of two calls) to a first release, then measures."""

    def __init__(self, system: Installation) -> None:
        self._system = system
        self._floor = Floor(system.sshd, system.folder / "floor", "floor")
        self._floor_two = Floor(system.sshd, system.folder / "floor2", "floor2", kex=None)
        for path_of in (self._floor.path_of, self._floor_two.path_of, lambda host: host.path):
            system.install_host_program(path_of)
        sha = system.push("The release that rollbacks go back to")
        system.ends(sha, "done")
        self._base = self._kept(system.release(sha))
        for floor in (self._floor, self._floor_two):
            floor.ship(self._base, None)
        self._barred: list[str] = []
        self._last = self._base  # of the floor that makes two calls, which is never rolled back

    def one(self) -> Round:
        """A round; all fleets run the first release again when it is over."""
        number = len(self._barred) + 1
        release = replace(self._base, commit=hashlib.sha1(b"floor %d" % number).hexdigest())
        self._go_cold()
        floor_cold = self._floor.ship(release, self._base)
        floor_two = self._floor_two.ship_in_two(release, self._last)
        self._last = release
        with self._floor.warm():
            settle(REST_S)
            floor_warm = self._floor.roll_back(self._base)
        self._go_cold()
        with CpuWatch(self._system.up.pid) as watch:
            ours = self._ship_and_return(number)
        spans = {name: ours[name] for name in ("prepare", "fan_out", "warm")}
        spent = {name: watch.between(*span) for name, span in spans.items()}
        runs = {name: Run(end - begin, sum(spent[name].values())) for name, (begin, end) in spans.items()}
        return Round(
            floor_cold=floor_cold,
            floor_two=floor_two,
            floor_warm=floor_warm,
            **runs,
            cold=_both(spans["prepare"], spans["fan_out"], watch),
            parts_cold=_sum(spent["prepare"], spent["fan_out"]),
            parts_warm=spent["warm"],
        )

    def _ship_and_return(self, number: int) -> dict[str, tuple[float, float]]:
        """A push that reaches every host, and its rollback; begin and end of what is measured, as the events say."""
        fixes = "".join(f"Rollout-Fixes: {sha}\n" for sha in self._barred)
        sha = self._system.push(f"Release {number}\n\n{fixes}")
        done = self._system.ends(sha, "done")
        settle(REST_S)
        code, answer = self._system.rollout("rollback", "--reason", "measured")
        assert code == 0, answer
        self._system.ends(sha, "rolled_back")
        self._barred.append(sha)
        at = _moments(self._system.events(done.id))
        assert set(self._system.disks().values()) == {self._base.commit}, "a host is not back"
        return {
            "prepare": (min(at["preparing"]), max(at["prepared"])),
            "fan_out": (at["fan out"][0], at["done"][0]),
            "warm": (at["roll back"][0], max(at["rolled_back"])),
        }

    def _go_cold(self) -> None:
        self._system.go_cold()
        settle(REST_S)

    def _kept(self, release: Release) -> Release:
        """With an archive that nobody tidies away."""
        archive = self._system.folder / "floor.tar.gz"
        archive.write_bytes(Path(release.archive).read_bytes())
        return replace(release, archive=str(archive))


def _moments(events) -> dict[str, list[float]]:
    """When hosts took up which state; and when the rollout had its PASS, was done, began to go back."""
    found: dict[str, list[float]] = {}
    names = {"fanning_out": "fan out", "done": "done", "rolling_back": "roll back"}
    for event in events:
        of_a_host = event.subject.startswith("host ")
        if of_a_host and event.after == "prepared" and event.before != "preparing":
            continue
        name = event.after if of_a_host and event.after != "done" else names.get(event.after)
        if of_a_host and event.after == "done":
            continue
        if name is not None:
            found.setdefault(name, []).append(moment(event.at))
    return found


def _both(first: tuple[float, float], second: tuple[float, float], watch: CpuWatch) -> Run:
    """Two spans together; what they have in common counts once."""
    spans = (
        [first, second] if first[1] <= second[0] else [(min(first[0], second[0]), max(first[1], second[1]))]
    )
    seconds = sum(end - begin for begin, end in spans)
    return Run(seconds, sum(sum(watch.between(*span).values()) for span in spans))


def _sum(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {name: round(first.get(name, 0.0) + second.get(name, 0.0), 3) for name in first | second}
