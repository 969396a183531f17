"""What the services need of the world: one Protocol a neighbour, and `Deps`, the bag that carries them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rollout.config.deploy_file import AppConfig, Config
from rollout.config.settings import Settings
from rollout.domain.model import (
    BranchCommit,
    Delta,
    Greeting,
    HostStatus,
    Member,
    Outcome,
    PrepareOrder,
    Pull,
    Release,
    SwitchOrder,
    Target,
    TestResult,
)
from rollout.domain.pipeline import Ring
from rollout.domain.verdict import Interval
from rollout.services.comparison import Comparison
from rollout.services.leases import LeaseKeeper
from rollout.services.policies import Plans
from rollout.services.sightings import Sightings
from rollout.services.together import Together
from rollout.store.store import Store

Permit = Callable[[Greeting], int]
"""Asked after a host greeted: the milliseconds it may still switch in. Raises LeaseLost instead of answering."""


class Fleet(Protocol):
    """The hosts, over SSH. Every method but `members` raises HostError's children; none outlives `timeout_s`."""

    def members(self, config: AppConfig) -> list[Member]:
        """The app's fleet as configured now, ranges and inventory resolved; ConfigError when empty or doubled."""

    def prepare(
        self, target: Target, order: PrepareOrder, *, timeout_s: float, go_on: Callable[[], bool]
    ) -> Outcome:
        """Put the release on the host. `go_on` is asked while sending; False cuts it (OutcomeUnknown)."""

    def activate(
        self,
        target: Target,
        order: SwitchOrder,
        permit: Permit,
        *,
        timeout_s: float,
        on_switch: Callable[[], None],
    ) -> Outcome:
        """Switch, restart, health check; put back when unhealthy. `on_switch` is called when the host says that it has switched."""

    def roll_back(self, target: Target, order: SwitchOrder, permit: Permit, *, timeout_s: float) -> Outcome:
        """Switch back, restart, health check; a no-op when already back."""

    def status(
        self,
        target: Target,
        *,
        asked: int = 0,
        seal: tuple[int, int] | None = None,
        timeout_s: float,
    ) -> HostStatus:
        """Read the host; with `seal` (epoch, operation number) nothing sent earlier can act afterwards.

        `asked` is the operation number whose result is wanted.
        """

    def check(self, target: Target, *, timeout_s: float) -> Mapping[str, str]:
        """What `rollout check` wants to know of a host; see docs/host.md, verb hello."""

    def read(self, target: Target, program: str, lines: Sequence[str], *, timeout_s: float) -> str:
        """Run a read-only POSIX sh program of ours with `lines` on its standard input; its output."""

    def close(self) -> None:
        """Close every connection."""


class Workshop(Protocol):
    """From a commit to the bytes that hosts get: mirror, checkout, tests, build, archive."""

    def fetch(self, app: str, config: AppConfig, *, limit_s: float | None = None) -> str:
        """Update the bare mirror; the head of the configured branch (40 hex digits).

        ServiceUnavailable when the repository does not answer, or not within the limit (as it comes, and at most, what a first
        fetch may take), NotFound when the branch does not exist.
        """

    def has_branch(self, app: str, config: AppConfig) -> bool:
        """Whether this machine's mirror does: then a fetch brings only what is new."""

    def remote_head(self, app: str, config: AppConfig) -> str:
        """The head of the branch by one `ls-remote`."""

    def remote_heads(self, app: str, config: AppConfig) -> tuple[str, list[Pull]]:
        """As `remote_head`, and the heads of all pull requests, open or not, by the same `ls-remote`."""

    def fetch_pulls(self, app: str, config: AppConfig, pulls: Sequence[Pull]) -> list[Pull]:
        """Bring these heads into the mirror, and let go of all others; as fetched, without those that could not be."""

    def resolve(self, app: str, name: str) -> str:
        """The full hash of a commit in the mirror; NotFound."""

    def branch(self, app: str, config: AppConfig, limit: int) -> list[BranchCommit]:
        """The branch's newest first-parent commits in the mirror, oldest first: of a branch of which nothing is known."""

    def contains(self, app: str, head: str, sha: str) -> bool:
        """Whether `head`, which is in the mirror, is this commit, or has it."""

    def history(self, app: str, head: str, since: str, limit: int) -> list[BranchCommit] | None:
        """What `head` has and its ancestor `since` has not, the head first, parents after their children.

        None when more than `limit` follow `since`; of what came in by merges the newest, at most as many.
        """

    def run_tests(self, app: str, config: AppConfig, commit: str, *, go_on: Callable[[], bool]) -> TestResult:
        """The test command in a clean checkout, contained; killed whole at its limit or when `go_on` is False."""

    def build(
        self, app: str, config: AppConfig, commit: str, needed: Collection[str] = ()
    ) -> tuple[Release | None, TestResult]:
        """The release of this commit; None when the build failed, with its output.

        Old archives make room for it, but for those of the `needed` commits.
        """

    def has_archive(self, app: str, commit: str) -> bool:
        """Whether its archive is there still; then it makes room for none of the next ones."""

    def delta(self, app: str, base: Release, target: Release) -> Delta | None:
        """What a host with the release `base` lacks of `target`; None when it should get the archive. Never fails."""


class MetricSource(Protocol):
    """Where the canary's numbers come from."""

    def read(
        self, target: Target, role: str, config: AppConfig, cursor: str | None, *, elapsed: float = 0.0
    ) -> tuple[list[Interval], str]:
        """What is new on this host since `cursor`, and the next cursor; each interval once, by time.

        None begins: `elapsed` seconds ago was t = 0, and what the source knows of the time before is read as well
        (t <= 0; of a canary only what its old release answered). Raises MetricUnavailable or HostError when it could
        not be read; the same cursor then asks for the same again.
        """


class Bell(Protocol):
    """Sends messages. Losing them delays; so a bell that cannot ring says so in the log and goes on."""

    def ring(self, rings: Sequence[Ring]) -> bool:
        """Send them; False when the broker does not answer."""

    def revoke(self, rollout: int) -> bool:
        """Revoke every queued task stamped with this rollout; an accelerator only."""

    def alive(self) -> bool:
        """The broker answers."""

    def crowded(self) -> bool:
        """Somebody waits for a place in the hosts workers, or this one is to end; also when nobody can tell."""

    waiting: int  # messages for hosts that the broker had when it was last asked

    def count(self) -> int:
        """`waiting`, asked for anew if that is a while ago, or 0 while somebody else asks; not within a transaction."""


class Notifier(Protocol):
    """Tells people."""

    def send(
        self, urls: Sequence[str], title: str, body: str, *, only: Collection[int] | None = None
    ) -> None:
        """Deliver to every address, or to those with these numbers only; DeliveryFailed, with the numbers of who did not take it."""


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything a service may use, picked by `rollout/wiring.py`."""

    config: Config
    settings: Settings
    store: Store
    fleet: Fleet
    workshop: Workshop
    metrics: Mapping[str, MetricSource]
    bell: Bell
    notifier: Notifier
    leases: LeaseKeeper
    worker: str  # this process's name, the owner of its leases
    comparison: Comparison = field(default_factory=Comparison)
    sightings: Sightings = field(default_factory=Sightings)
    plans: Plans = field(default_factory=Plans)
    together: Together = field(default_factory=Together)

    @property
    def state_dir(self) -> Path:
        """The folder with database, broker, mirror and releases."""
        return self.config.server.state_dir
