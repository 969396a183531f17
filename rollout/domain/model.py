"""The nouns: what the store keeps and the services hand around. Frozen; a change goes through the store.

Times called `*_at` are UTC datetimes for people. Times called `*_until` and `due_at` are seconds on the store's own
clock (see `store/clock.py`): only the store compares them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from rollout.domain.states import CommitState, HostState, RolloutState

AppName = NewType("AppName", str)
CommitId = NewType("CommitId", int)
RolloutId = NewType("RolloutId", int)
HostId = NewType("HostId", int)  # of a host in one rollout
Epoch = NewType("Epoch", int)  # fencing number, milliseconds since 1970 or one more than the last

FOREIGN = "foreign"  # `current` pointed somewhere that is none of our releases
UNREAD = "unknown"  # of a host that nobody could look at: what it runs is not guessed
NOT_ON_BRANCH = "not on branch"  # so begins the reason of a commit that failed for nothing else


class Role(StrEnum):
    """What a host is for in its rollout."""

    CANARY = "canary"
    BASELINE = "baseline"  # the canary is compared with it; activated last
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of an app's branch and its one test status."""

    id: CommitId
    app: AppName
    sha: str  # 40 hex digits
    state: CommitState
    version: int
    position: int | None  # on the branch's line (domain/branches.py); None until the mirror has it there
    on_branch: bool
    subject: str
    author: str
    message: str  # see `selection.shorten`: at most 8 KiB
    received_at: datetime
    received_s: float | None  # store clock; null when it has begun anew since
    tested_at: datetime | None
    reason: str | None  # why it failed or is barred
    # It is barred for this reason though it has not passed; its state says so when it has.
    bar_wanted: str | None
    suspect: bool  # was in a batch that went wrong: goes out alone
    suspect_of: RolloutId | None  # that batch; None when it was suspected by an older version
    now_reason: str | None  # a person wants it out before the queue, for this reason
    now_by: str | None
    attempt: int  # of its tests, from 1; 0 before the first
    reds: int  # runs that failed since it was received, or since a person had it tested again
    lost: int  # runs in a row that ended with their worker
    flaky: bool  # passed after a red run
    took_s: float | None  # of its last test run, without the build
    output: str  # of tests and build, head and tail kept
    digest: str | None  # of its release
    tree: str | None  # git's hash of all that is in it; None until the mirror has it
    same_as: str | None  # barred for being the same as this commit, and for nothing else
    lease_owner: str | None
    lease_until: float | None
    due_at: float | None
    # The pull request whose head it is; of one on the branch: it passed there, and waits for its release.
    pull: int | None
    merged_into: str | None = None  # the commit of the branch's line that it came in with, not being on it
    # Hashes, or requests, that those that came in with it revert or mend; see `selection.PERHAPS`.
    mends: str = ""
    # By a person, since it was barred or suspect last, or the same went wrong under another hash: being the same as a barred one does not bar it again.
    unbarred: bool = False

    @property
    def is_barred(self) -> bool:
        """Automation must not ship it, whatever its tests say."""
        return self.state is CommitState.BARRED or self.bar_wanted is not None

    @property
    def barred_for(self) -> str | None:
        """All reasons of its bar."""
        return self.reason if self.state is CommitState.BARRED else self.bar_wanted

    @property
    def is_pull(self) -> bool:
        """Head of a pull request that is not merged: never shipped."""
        return self.pull is not None and self.position is None

    @property
    def is_left_out(self) -> bool:
        """It waits, and for no tests: inside a merge, or as the head of a pull request that has a newer one."""
        waits = self.merged_into is None and self.due_at is not None
        return self.state is CommitState.RECEIVED and not waits

    @property
    def is_late(self) -> bool:
        """Nobody said in time whether it is good: it has failed, and is not red."""
        return self.state is CommitState.FAILED and not self.reds

    @property
    def is_built_again(self) -> bool:
        """It passed its tests, and lacks only its archive, which had to make room for those of newer commits."""
        return self.state in {CommitState.RECEIVED, CommitState.TESTING} and self.digest is not None


@dataclass(frozen=True, slots=True)
class Release:
    """A commit's bytes: an archive of the tree, and the digest of what is in it."""

    commit: str
    digest: str  # sha256 of the canonical listing of the tree (docs/host.md)
    archive: str  # path of the .tar.gz
    size: int  # bytes of the archive


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release on its way to one app's fleet."""

    id: RolloutId
    app: AppName
    commit: str
    commits: tuple[str, ...]  # oldest first, `commit` last
    previous: str | None  # the release of the last done rollout
    digest: str
    state: RolloutState
    halted_stage: RolloutState | None
    reason: str | None
    requested_by: str
    version: int
    policy: Mapping[str, Any]  # the app's section of rollout.toml as it was at planning
    max_failed: int  # K
    mode: str  # strict | ramp
    concurrency: int
    worst_case: int
    window: int
    total: int
    done: int
    failed: int  # not accepted ones; recomputable from the host rows, as all counters are
    unreadable: int
    unknown: int
    in_flight: int
    counting: bool  # an outcome waits for count_outcome
    confirmed: tuple[str, ...]  # stages that a person said yes to
    canary_status: str | None
    canary_reason: str | None
    ready_at: float | None  # store clock: when the canary was switched and healthy
    passed_t: float | None  # t of the judge's PASS: seconds after ready_at
    accepted_at: (
        float | None
    )  # store clock: when a person took the canary on; what was seen before is no evidence
    keep: bool  # stop without rolling back
    rollback_to: str | None  # a commit, for `rollback --to`
    stop_epoch: Epoch | None
    stop_started: float | None  # store clock
    unconfirmed: tuple[str, ...]  # hosts that a stop could not read
    due_at: float | None
    began_s: float | None  # store clock; None while it is planned ahead, and if that was before a reboot
    started_at: datetime
    ended_at: datetime | None
    acknowledged_at: datetime | None

    @property
    def is_ahead(self) -> bool:
        """It was planned while another one was fanning out, and has not begun."""
        return self.state is RolloutState.PENDING and self.began_s is None


@dataclass(frozen=True, slots=True)
class RolloutHost:
    """One host of a rollout's frozen fleet."""

    id: HostId
    rollout: RolloutId
    app: AppName
    name: str
    address: str
    port: int
    user: str
    variables: Mapping[str, str]
    path: str  # release.path with this host's variables filled in
    role: Role
    position: int  # order of activation, from 0
    state: HostState
    version: int
    attempt: int  # from 1
    touched: bool  # an activation was sent; then `previous` is known
    touched_at: float | None  # store clock: when the first one was
    switched_at: float | None  # store clock: when the release was in use and healthy
    token: bool  # has the right to be at risk
    unreadable: bool
    accepted: bool  # its failure was accepted by a person
    epoch: Epoch | None  # of the last claim
    operation: Epoch | None  # the operation number of the last activation or rollback: its claim's epoch
    sealed: Epoch | None  # the highest epoch that a sealing status left on the host
    release: str | None  # what the host runs, as last read
    previous: str | None  # what it ran before this rollout: a commit, FOREIGN, or None for nothing
    owes: bool  # an older rollout had not brought it back when this one took it: it goes back to `owed`, not to `previous`
    owed: str | None
    error: str | None
    cause: str | None  # class of the error, for grouping
    took_s: float | None
    lease_owner: str | None
    lease_until: float | None
    due_at: float | None
    lost_at: float | None  # store clock: since when its outcome is not known
    failures: int  # of its rollback, for the back-off
    tries: int  # to bring it to this release after the rollout was done without it
    busy_since: float | None  # store clock: since when the host is busy, and has to be asked again
    cursor: str | None  # where the metric source goes on reading

    @property
    def way_back(self) -> str | None:
        """Where it goes when it leaves this rollout's release; of a touched host."""
        return self.owed if self.owes else self.previous


@dataclass(frozen=True, slots=True)
class FleetHost:
    """What is known of a host across rollouts."""

    app: AppName
    name: str
    address: str
    release: str | None  # recorded: what it should run; UNREAD until it can be read
    found: str | None  # read from its disk, at verified_at
    verified_at: datetime | None
    excluded: str | None  # the reason, when it is out of all rollouts
    left_at: datetime | None  # when the inventory was read, and had it no more; None: it is in the fleet
    operation: Epoch  # of the last claim whose report was recorded: an older one's comes too late
    owes: bool  # a rollback that nobody could finish yet: to `owed`, whatever it runs
    owed: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what to what, why and when: written in the transaction of the change itself."""

    at: datetime
    app: AppName
    rollout: RolloutId | None
    subject: str  # "rollout 7", "host web001", "commit 1a2b…"
    what: str
    before: str | None
    after: str | None
    who: str
    why: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook as it was stored, and what became of it."""

    id: int
    received_at: datetime
    provider: str
    delivery: str  # the server's own id of it
    app: AppName | None
    branch: str | None
    head: str | None
    outcome: str  # of domain/deliveries.py
    reason: str
    ref: str | None
    settled_at: datetime | None  # None: its commit is on its way


@dataclass(frozen=True, slots=True)
class Freeze:
    """Automation starts nothing for an app, as a person said."""

    at: datetime
    until: datetime | None  # None: until somebody says otherwise
    by: str
    reason: str

    def binds(self, now: datetime) -> bool:
        """Whether it is not over."""
        return self.until is None or now < self.until


class CheckState(StrEnum):
    """What a CI server says of one check of a commit."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"  # its run is over, or stands still, and says nothing of the commit


@dataclass(frozen=True, slots=True)
class Check:
    """A CI server's newest word on one run of a check of a commit."""

    name: str
    state: CheckState
    url: str = ""
    source: str = "api"  # who said so: a webhook's provider, or the API
    details: str = ""  # of a JUnit report: what failed; of one that says nothing: why, and what now
    stamp: str = ""  # its place among the server's words on this run, by its time and number there; "" where it says none
    began_at: datetime | None = None  # when its run was first told of
    took_s: float | None = None  # from then to its result; None: not known
    # Which of its source's things says so: a kind of event, and the suite where that has some; "" over the API, and of a version before 0019.
    thing: str = ""
    run: int = 0  # its number among the runs of that thing; 0 where that has one word
    attempt: int = 0  # a later one's run takes its place; 0 where the server does not say
    since: float | None = None  # by the server's clock: when it began
    until: float | None = None  # by the same: when it was over
    # By ours: when it was said, whatever it says; None before it is kept.
    reported_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Push:
    """What a webhook said, reduced to what we use. Nothing in it names what is fetched."""

    provider: str
    delivery: str
    kind: str  # "push", "ping", "pull", "report" (then `check` is of the commit `head`) or "other"
    repositories: tuple[str, ...] = ()  # addresses as the server spells them
    full_name: str = ""
    branch: str = ""  # "" when the ref is not a branch
    head: str = ""  # 40 hex digits; "" when the branch was deleted
    more: tuple[
        tuple[str, str], ...
    ] = ()  # (branch, head) of further branches: Bitbucket tells of several at once
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Pull:
    """The head of a pull request in the app's repository."""

    number: int
    ref: str  # as the git server names it
    sha: str
    subject: str = ""
    author: str = ""
    message: str = ""
    tree: str | None = None  # git's hash of all that is in it


@dataclass(frozen=True, slots=True)
class Target:
    """How to reach a host, and where its releases are."""

    name: str
    address: str
    port: int
    user: str
    path: str
    identity_file: str | None
    known_hosts: str


@dataclass(frozen=True, slots=True)
class Greeting:
    """What host.sh says before it acts."""

    clock: int  # milliseconds of the host's uptime
    boot: str
    current: str | None  # the release in use: a commit, FOREIGN or None


@dataclass(frozen=True, slots=True)
class Member:
    """A host of an app's fleet, as the configuration or the inventory names it."""

    name: str
    address: str
    port: int
    user: str
    variables: Mapping[str, str]
    path: str  # release.path with this host's variables filled in


class Answer(StrEnum):
    """The code of host.sh's `end=` line."""

    DONE = "done"  # 0
    FAILED = "failed"  # 10: carried out, unhealthy, put back
    REFUSED = "refused"  # 20: fenced or not possible; nothing changed
    BROKEN = "broken"  # 30: could not be carried out (no room, not writable)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step on one host."""

    answer: Answer
    reason: str = ""  # host.sh's word: "late", "epoch", "digest", "unhealthy", "no room" …
    intent: bool = False  # the journal has an intent: the host was touched
    put_back: bool = False  # an unhealthy release was switched back
    current: str | None = None
    output: str = ""  # of restart and health, at most 4 KiB


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What reading a host says."""

    current: str | None
    epoch: int  # the highest that the host has seen
    running: bool  # an operation holds the lock
    operation: int  # the last one in the journal, 0 for none
    verb: str  # of that operation
    result: str  # of that operation: none, intent, done, failed
    asked: str  # the result of the operation asked for: none, intent, back (unhealthy, its way back not ended), done, failed
    sealed: bool  # nothing sent before this reading can act on the host any more
    boot: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """What a host that has the release `base` lacks of another one (docs/host.md)."""

    base: str  # commit
    base_digest: str
    archive: str  # path
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """Put a release on a host."""

    epoch: int
    operation: int
    release: Release
    keep: int
    spare: tuple[str, ...]  # releases that must stay
    delta: Delta | None = None  # sent in place of the archive where the host has its base


@dataclass(frozen=True, slots=True)
class SwitchOrder:
    """Switch a host to a release: activate, or roll back."""

    epoch: int
    operation: int
    commit: str | None  # None: remove `current`; FOREIGN: restore the link that was there before us
    digest: str | None
    restart: str
    health: str
    restart_limit_s: int
    health_timeout_s: int
    owes: bool = False  # what it runs is not to be put back, should this be unhealthy, but `owed`
    owed: str | None = None


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of a commit's tests and build."""

    passed: bool
    reason: str  # one line: "tests passed in 12 s", "exit status 2", "timed out after 300 s"
    output: str  # head and tail
    took_s: float | None = None


@dataclass(frozen=True, slots=True)
class BranchCommit:
    """A commit as git tells it."""

    sha: str
    position: int  # on the branch's line; 0 of one that is not on it
    subject: str
    author: str
    message: str
    parents: tuple[str, ...] = ()
    into: str | None = None  # the commit of the line that it came in with
    mends: frozenset[str] = frozenset()  # as `Commit.mends`
    tree: str | None = None  # git's hash of all that is in it


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people are told."""

    id: int
    app: AppName
    rollout: RolloutId | None
    title: str
    body: str
    attempts: int
    # The numbers of the addresses that have not taken it, once others have; None: all.
    owed: frozenset[int] | None
