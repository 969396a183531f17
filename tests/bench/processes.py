"""What processes cost: CPU seconds and memory, read from /proc."""

import contextlib
import os
import resource
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"
_NAMES = {
    "control@": "control",
    "tests@": "tests",
    "hosts@": "hosts",
    " web ": "web",
    "rollout up": "supervisor",
    " beat ": "beat",
    "flower": "flower",
    "valkey": "broker",
    "redis": "broker",
    "postgres": "database",
}


def parts(root: int) -> dict[int, str]:
    """The process and everything below it, by the name of the part it is."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, left = {root: "up"}, [root]
    while left:
        for child in children.get(left.pop(), []):
            found[child] = _name(child)
            left.append(child)
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of the process and of its children that have ended; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return sum(map(int, _stat(pid)[11:15])) / TICKS
    return 0.0


def children_cpu_s() -> float:
    """CPU seconds of our own children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_mb(pid: int) -> tuple[float, float]:
    """RSS, and PSS: what is shared counted in parts."""
    found = {"Rss": 0, "Pss": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in found:
                found[key] = int(rest.split()[0])
    return round(found["Rss"] / 1024, 1), round(found["Pss"] / 1024, 1)


def peak_mb(pid: int) -> float:
    """The most that the process ever had in memory."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024


def ran_and_waited_s(pid: int) -> tuple[float, float]:
    """Seconds for which its threads that are there had a core, and for which they waited for one."""
    found = [0.0, 0.0]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            ran, waited, _ = (task / "schedstat").read_text().split()
            found = [found[0] + int(ran) / 1e9, found[1] + int(waited) / 1e9]
    return found[0], found[1]


def established(port: int) -> int:
    """How many TCP connections have this port at either end."""
    ends = f":{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == ESTABLISHED and (row[1].endswith(ends) or row[2].endswith(ends)) for row in rows)


class CpuWatch:
    """Samples process trees ten times a second, so that any span of time can be asked for afterwards."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = list(roots)
        self._known = self._look()
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """CPU seconds of each part between two moments (seconds since 1970)."""
        first, last = self._at(begin), self._at(end)
        return {name: round(spent - first.get(name, 0.0), 3) for name, spent in last.items()}

    def _at(self, moment: float) -> dict[str, float]:
        place = bisect_left(self._samples, moment, key=lambda sample: sample[0])
        if place in {0, len(self._samples)}:
            return self._samples[min(place, len(self._samples) - 1)][1]
        (t0, before), (t1, after) = self._samples[place - 1], self._samples[place]
        share = (moment - t0) / (t1 - t0)
        return {
            name: before.get(name, 0.0) + share * (now - before.get(name, 0.0)) for name, now in after.items()
        }

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(0.1):
            if time.monotonic() - looked > 5:
                self._known, looked = self._look(), time.monotonic()
            self._sample()

    def _look(self) -> dict[int, str]:
        return {pid: name for root in self._roots for pid, name in parts(root).items()}

    def _sample(self) -> None:
        spent: dict[str, float] = {}
        for pid, name in self._known.items():
            spent[name] = spent.get(name, 0.0) + cpu_s(pid)
        self._samples.append((time.time(), spent))


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for mark, name in _NAMES.items():
            if mark in words:
                return name
    return "other"
