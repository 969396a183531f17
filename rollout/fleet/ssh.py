"""The fleet over SSH: what the services see of all this."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rollout.domain.model import Greeting, HostStatus, Member, Outcome, PrepareOrder, SwitchOrder, Target
from rollout.fleet.commands import Program, host_program
from rollout.fleet.connection import Engine
from rollout.fleet.host import Host, nothing
from rollout.fleet.inventory import members
from rollout.fleet.limits import Limits
from rollout.fleet.pool import Pool
from rollout.fleet.uploads import Uploads

if TYPE_CHECKING:
    from rollout.config.deploy_file import AppConfig
    from rollout.services.ports import Fleet


class SshFleet:
    """Implements `services.ports.Fleet`. One a process; safe for any number of threads."""

    def __init__(self, limits: Limits | None = None, *, program: Program | None = None) -> None:
        self._limits = limits or Limits()
        self._engine = Engine.of(self._limits)
        self._pool = Pool(self._engine)
        self._program = program or host_program()
        self._uploads = Uploads()

    def members(self, config: "AppConfig") -> list[Member]:
        """The app's fleet as configured now."""
        return members(config)

    def prepare(
        self, target: Target, order: PrepareOrder, *, timeout_s: float, go_on: Callable[[], bool]
    ) -> Outcome:
        """Put the release on the host; ReleaseError when its archive is gone from this machine."""
        return self._host(target, timeout_s).prepare(order, go_on)

    def activate(
        self,
        target: Target,
        order: SwitchOrder,
        permit: Callable[[Greeting], int],
        *,
        timeout_s: float,
        on_switch: Callable[[], None] = nothing,
    ) -> Outcome:
        """Switch, restart, health check; put back when unhealthy."""
        return self._host(target, timeout_s).activate(order, permit, on_switch)

    def roll_back(
        self, target: Target, order: SwitchOrder, permit: Callable[[Greeting], int], *, timeout_s: float
    ) -> Outcome:
        """Switch back, restart, health check; a no-op when already back."""
        return self._host(target, timeout_s).roll_back(order, permit)

    def status(
        self, target: Target, *, asked: int = 0, seal: tuple[int, int] | None = None, timeout_s: float
    ) -> HostStatus:
        """Read the host, over its warm connection even while an activation waits on it."""
        return self._host(target, timeout_s).status(asked, seal)

    def check(self, target: Target, *, timeout_s: float) -> Mapping[str, str]:
        """The fields of `hello` asked deeply, and `sh_ms`."""
        return self._host(target, timeout_s).check()

    def read(self, target: Target, program: str, lines: Sequence[str], *, timeout_s: float) -> str:
        """Run a read-only sh program of ours: installed once beside host.sh, called by path."""
        return self._host(target, timeout_s).read(Program(program), lines)

    def close(self) -> None:
        """Close every connection; whoever waits on one gets Unreachable or OutcomeUnknown at once."""
        self._pool.close()
        self._engine.close()

    def _host(self, target: Target, timeout_s: float) -> Host:
        return Host(target, self._pool, self._program, self._limits, timeout_s, self._uploads)


if TYPE_CHECKING:
    _is_what_the_services_ask_for: Fleet = SshFleet()
