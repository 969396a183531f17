"""The plan of a rollout: which hosts are the canary, in which order hosts are activated, and within what limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from rollout.domain.model import Role
from rollout.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Place:
    """A host's part in a rollout."""

    name: str
    role: Role
    position: int  # order of activation, from 0


def canary_hosts(names: Sequence[str], wanted: tuple[str, ...] | int) -> list[str]:
    """The canary among `names` (fleet order): the named hosts, or the first `wanted` of them, at least one.

    ConfigError when there is no host, no canary, or a name that is not in the fleet.
    """
    if not names:
        raise ConfigError(
            "canary: the fleet has no host left",
            remedy="add hosts to the fleet, or take one back in with `rollout include HOST`",
        )
    if isinstance(wanted, int):
        return list(names[: max(1, wanted)])
    if not wanted:
        raise ConfigError("canary.hosts: names no host", remedy="name at least one host, or give a count: 1")
    for name in wanted:
        if name not in names:
            raise _not_in_fleet(name, names)
    return list(dict.fromkeys(wanted))


def order(names: Sequence[str], canary: Sequence[str], baseline: int) -> list[Place]:
    """Every host's role and position, in order of activation: canary, others, and the baseline last.

    The baseline is the last `baseline` hosts that are not the canary; all of these when there are fewer.
    """
    others = [name for name in names if name not in set(canary)]
    compared = min(max(0, baseline), len(others))
    middle = len(others) - compared
    roles = [
        *((name, Role.CANARY) for name in canary),
        *((name, Role.OTHER) for name in others[:middle]),
        *((name, Role.BASELINE) for name in others[middle:]),
    ]
    return [Place(name, role, position) for position, (name, role) in enumerate(roles)]


def k_of(value: int, total: int) -> int:
    """K: how many hosts may fail before the rollout halts. `value` is `max_failed` as a number of hosts."""
    return max(0, min(value, total))


def _not_in_fleet(name: str, names: Sequence[str]) -> ConfigError:
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(
        f"canary.hosts: {name!r} is not among the {len(names)} hosts of this rollout{hint}",
        remedy=f"correct canary.hosts, or take the host back in with `rollout include {name}` if it is excluded",
    )
