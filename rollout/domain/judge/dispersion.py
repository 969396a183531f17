"""Dispersion: how much more counts of errors vary than requests that fail independently of each other would.

Pearson's chi-square of hosts x blocks of time against independence, over its degrees of freedom (McCullagh and Nelder,
"Generalized Linear Models", 1989, section 4.5), shrunk towards a prior. Conditioning on the columns' sums takes out what
all hosts share (incidents, load), conditioning on the rows' sums what makes one host lastingly worse than another.
Done for blocks of 10, 30 and 60 s: noise that grows with the block's length has a memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from rollout.domain.judge.constants import (
    AUTOCORRELATED,
    BLOCK_S,
    BLOCKS,
    PHI_MOST,
    PHI_PRIOR,
    PHI_PRIOR_DF,
)


class Dispersion:
    """phi of one kind of counts, updated step by step; between two ends of blocks it does not change."""

    def __init__(self) -> None:
        self.phi = PHI_PRIOR
        self._past = _Ladder()
        self._present = _Ladder()

    def add_past(self, middle: float, counts: Mapping[str, float]) -> None:
        """Counts of every host that was observed, around second `middle`, before the switch."""
        self._past.add(middle, counts)

    def end_past(self) -> None:
        """The switch: nothing more comes from before it."""
        self._past.close()
        self._estimate()

    def add(self, middle: float, counts: Mapping[str, float]) -> None:
        """As `add_past`, since the switch; hosts of the baseline only."""
        if self._present.add(middle, counts):
            self._estimate()

    def _estimate(self) -> None:
        pairs = zip(self._past.tables, self._present.tables, strict=True)
        self.phi = combined([_phi([*past.chi_squares(), *present.chi_squares()]) for past, present in pairs])


def over_time(blocks: Sequence[tuple[float, float]]) -> float:
    """The phi of a single host, of its (errors, requests) in consecutive blocks of 10 s, against a constant rate."""
    found = []
    for length in BLOCKS:
        sums = [
            (sum(k for k, _ in part), sum(n for _, n in part))
            for part in (blocks[i : i + length] for i in range(0, len(blocks), length))
        ]
        kept = [(k, n) for k, n in sums if n]
        errors, requests = sum(k for k, _ in kept), sum(n for _, n in kept)
        square = requests / errors * sum(k * k / n for k, n in kept) - errors if errors else 0.0
        found.append(_phi([(square, len(kept) - 1, errors)]))
    return combined(found)


def combined(of_lengths: Sequence[float]) -> float:
    """One phi of those of the block lengths, shortest first."""
    most = max(of_lengths)
    growth = most / of_lengths[0]
    return min(max(most * sqrt(growth) if growth > AUTOCORRELATED else most, 1.0), PHI_MOST)


def _phi(chi_squares: Iterable[tuple[float, float, float]]) -> float:
    """Of tables' (X2, df, errors); few errors tell little, so no more degrees of freedom than errors count."""
    listed = list(chi_squares)
    square, freedom, errors = (
        (sum(column) for column in zip(*listed, strict=True)) if listed else (0.0, 0.0, 0.0)
    )
    if freedom <= 0:
        return PHI_PRIOR
    counted = min(freedom, errors)
    return max(1.0, (counted * square / freedom + PHI_PRIOR_DF * PHI_PRIOR) / (counted + PHI_PRIOR_DF))


class _Table:
    """Hosts x blocks. Blocks in which other hosts were seen make a table of their own, in the same sums."""

    def __init__(self) -> None:
        self._strata: dict[frozenset[str], _Stratum] = {}

    def add(self, counts: Mapping[str, float]) -> None:
        hosts = frozenset(counts)
        if hosts not in self._strata:
            self._strata[hosts] = _Stratum()
        self._strata[hosts].add(counts)

    def chi_squares(self) -> list[tuple[float, float, float]]:
        return [one.chi_square() for one in self._strata.values()]


class _Stratum:
    """The sums from which X2 = K (sum_h sum_b k_hb^2 / (K_h c_b) - 1) follows at any time."""

    def __init__(self) -> None:
        self._columns = 0
        self._rows: dict[str, list[float]] = {}  # host -> [K_h, sum_b k_hb^2 / c_b]

    def add(self, counts: Mapping[str, float]) -> None:
        column = sum(counts.values())
        if not column:
            return
        self._columns += 1
        for host, count in counts.items():
            row = self._rows.setdefault(host, [0.0, 0.0])
            row[0] += count
            row[1] += count * count / column

    def chi_square(self) -> tuple[float, float, float]:
        rows = [row for row in self._rows.values() if row[0]]
        errors = sum(row[0] for row in rows)
        freedom = (self._columns - 1) * (len(rows) - 1)
        if freedom <= 0:
            return 0.0, 0.0, 0.0
        return errors * (sum(row[1] / row[0] for row in rows) - 1.0), float(freedom), errors


class _Ladder:
    """Blocks of 10 s that add up to blocks of 30 s and 60 s."""

    def __init__(self) -> None:
        self.tables = tuple(_Table() for _ in BLOCKS)
        self._open = [_Block() for _ in BLOCKS]
        self._number: int | None = None

    def add(self, middle: float, counts: Mapping[str, float]) -> bool:
        """Whether it has ended a block."""
        number = int(middle // BLOCK_S)
        ended = self._number is not None and number != self._number
        if ended:
            self._close(number)
        self._number = number
        self._open[0].add(counts)
        return ended

    def close(self) -> None:
        """End the blocks that are open."""
        if self._number is not None:
            self._close(self._number + BLOCKS[-1])

    def _close(self, following: int) -> None:
        for place, length in enumerate(BLOCKS):
            if self._number is None or self._number // length == following // length:
                return
            counts = self._open[place].whole()
            self.tables[place].add(counts)
            if place + 1 < len(BLOCKS):
                self._open[place + 1].add(counts)
            self._open[place] = _Block()


class _Block:
    """Counts of the hosts that were observed all through it."""

    def __init__(self) -> None:
        self._parts = 0
        self._counts: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def add(self, counts: Mapping[str, float]) -> None:
        self._parts += 1
        mine, seen = self._counts, self._seen
        for host, count in counts.items():
            mine[host] = mine.get(host, 0.0) + count
            seen[host] = seen.get(host, 0) + 1

    def whole(self) -> dict[str, float]:
        return {host: count for host, count in self._counts.items() if self._seen[host] == self._parts}
