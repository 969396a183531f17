"""What a stage of the chain answers: go on to the next stage, look again soon, or end here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Again:
    """The stage is not over: look at it again in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GoOn:
    """The stage is over: the next task of the chain is due."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing to do here: another one does it, or the rollout went elsewhere."""


Step = Again | GoOn | End
