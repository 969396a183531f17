"""The relative e-process: is the canary worse than the baseline in the same seconds?

Given that a request failed in a step, it was the canary's with probability e^g w / (e^g w + 1 - w), where w is the canary's
share of the requests and g the log ratio of the two error rates: whatever the common rate did (incidents, ramps, the time
of day) cancels. For requests that fail independently the true law is hypergeometric, less spread than this binomial.
The evidence is a ratio of two mixtures: of harmful g over harmless g. With a harmless g drawn from the null's weights it is
at most 1 in expectation, so by Ville's inequality P(ever >= 1/alpha) <= alpha, however often one looks (Ramdas,
Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference", 2023). That is exact for phi = 1 and
counts that are not capped; dividing by an estimated phi, and capping, rest on simulation (docs/judge.md).
"""

from dataclasses import dataclass
from math import exp, expm1, log1p

from rollout.domain.judge.offset import UNKNOWN, Offset
from rollout.domain.judge.sums import geometric, log_sum_exp, normalised

NULL_POINTS = 25  # -0.60 to 0.60
GRID = [round(-0.6 + 0.05 * i, 2) for i in range(NULL_POINTS)] + geometric(0.7, 7.0, 16)
HARMFUL_FROM = 0.07
_EXPM1 = [expm1(g) for g in GRID]


def _spacing(place: int) -> float:
    """The central difference of the grid at a place."""
    low, high = max(place - 1, 0), min(place + 1, len(GRID) - 1)
    return (GRID[high] - GRID[low]) / (high - low)


_FIRST_HARMFUL = next(place for place, g in enumerate(GRID) if g > HARMFUL_FROM)
_HARMFUL = normalised([_spacing(place) / GRID[place] for place in range(_FIRST_HARMFUL, len(GRID))])


@dataclass(frozen=True, slots=True)
class Paired:
    """A step's contribution: errors of the canary, of both, and the canary's share of the exposure."""

    errors: float
    both: float
    share: float

    @property
    def excess(self) -> float:
        """Errors of the canary above its share."""
        return self.errors - self.both * self.share

    def likelihoods(self) -> list[float]:
        """The log likelihood at each point of the grid, against g = 0."""
        x, m, w = self.errors, self.both, self.share
        return [x * g - m * log1p(w * e) for g, e in zip(GRID, _EXPM1, strict=True)]


@dataclass(frozen=True, slots=True)
class Alone:
    """A step's contribution where there is no baseline: errors of the canary, and how many its history lets expect."""

    errors: float
    expected: float

    @property
    def excess(self) -> float:
        """Errors above the expected ones."""
        return self.errors - self.expected

    def likelihoods(self) -> list[float]:
        """As `Paired`, of Poisson counts."""
        x, mu = self.errors, self.expected
        return [x * g - mu * e for g, e in zip(GRID, _EXPM1, strict=True)]


Contribution = Paired | Alone


def paired(errors_c: float, errors_b: float, requests_c: float, exposure_b: float) -> Paired | None:
    """None where a step says nothing: no error, or requests on one side only."""
    if not errors_c + errors_b or not requests_c or not exposure_b:
        return None
    return Paired(errors_c, errors_c + errors_b, requests_c / (requests_c + exposure_b))


class Relative:
    """The e-process: log likelihood ratios summed over steps, one for each point of the grid."""

    def __init__(self, offset: Offset = UNKNOWN) -> None:
        self._sums = [0.0] * len(GRID)
        self._empty = True
        self._null: list[float] = []
        self.spread = 0.0  # of the offset that the null's weights come from
        self.expect(offset)

    def expect(self, offset: Offset) -> None:
        """How far harmless releases differ: the null's weights are normal with the offset's spread."""
        self.spread = offset.spread
        variance = 2.0 * offset.spread**2
        self._null = normalised([exp(-g * g / variance) for g in GRID[:NULL_POINTS]])

    def add(self, contribution: Contribution) -> None:
        """One step more."""
        self._empty = False
        likelihoods = contribution.likelihoods()
        self._sums = [s + one for s, one in zip(self._sums, likelihoods, strict=True)]

    def evidence(self, phi: float, without: list[Contribution] | None = None) -> float:
        """Nats for harm: ln E; 0 with no data. `without`: as if these steps had not been."""
        if self._empty:
            return 0.0
        sums = self._sums
        for contribution in without or ():
            sums = [s - one for s, one in zip(sums, contribution.likelihoods(), strict=True)]
        harm = log_sum_exp([a + s / phi for a, s in zip(_HARMFUL, sums[_FIRST_HARMFUL:], strict=True)])
        return harm - log_sum_exp([z + s / phi for z, s in zip(self._null, sums, strict=False)])
