"""Rollouts: planned once with their frozen fleet, changed only along the edges of their state machine."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, bindparam, func, insert, or_, select, update

from rollout.domain.counting import Count, count_of
from rollout.domain.model import AppName, Member, Role, Rollout, RolloutId
from rollout.domain.states import (
    ACTIVE,
    FINISHED,
    STAGES,
    HostState,
    RolloutEvent,
    RolloutState,
    next_rollout_state,
)
from rollout.errors import NotFound, StaleWrite
from rollout.store.rows import load, load_all, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import rollout_hosts, rollouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollout.store.store import Transaction


@dataclass(frozen=True, slots=True)
class Planned:
    """A rollout as it is planned: what never changes afterwards."""

    app: AppName
    commit: str
    commits: Sequence[str]
    previous: str | None
    digest: str
    requested_by: str
    policy: Mapping[str, Any]
    max_failed: int
    mode: str
    concurrency: int
    worst_case: int
    fleet: Sequence[tuple[Member, Role]]  # in the order of activation
    ahead: bool = False  # another rollout is to be done first


class Rollouts:
    """The rows of `rollouts`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, plan: Planned, *, why: str) -> Rollout:
        """A pending rollout with its hosts; Conflict when the app has a pending one."""
        key = self._tx.connection.execute(
            insert(rollouts).values(
                **{
                    name: getattr(plan, name)
                    for name in plan.__slots__
                    if name not in {"fleet", "commits", "policy", "ahead"}
                },
                commits=list(plan.commits),
                policy=dict(plan.policy),
                state=RolloutState.PENDING,
                total=len(plan.fleet),
                confirmed=[],
                unconfirmed=[],
                due_at=0.0,
                started_at=self._tx.today(),
                began_s=None if plan.ahead else self._tx.now(),
            )
        ).inserted_primary_key
        assert key is not None
        self._tx.connection.execute(insert(rollout_hosts), _host_rows(plan, int(key[0])))
        self._tx.fleet.know(plan.app, [member for member, _ in plan.fleet])
        added = self.get(RolloutId(int(key[0])))
        self._tx.record(
            plan.app,
            f"rollout {added.id}",
            "plan",
            who=plan.requested_by,
            why=why,
            rollout=added.id,
            states=(None, added.state),
        )
        return added

    def find(self, rollout: RolloutId) -> Rollout | None:
        """The rollout of this id, if there is one."""
        row = self._tx.run(_BY_ID, {"rollout": rollout}).first()
        return load(Rollout, row, **_CONVERTERS)

    def get(self, rollout: RolloutId) -> Rollout:
        """The rollout of this id; NotFound."""
        found = self.find(rollout)
        if found is None:
            raise NotFound(f"there is no rollout {rollout}", remedy="`rollout history` lists them")
        return found

    def lock(self, rollout: RolloutId) -> Rollout:
        """As `get`; nobody else decides about it until the transaction ends."""
        self.hold(rollout)
        return self.get(rollout)

    def hold(self, rollout: RolloutId) -> None:
        """As `lock`, for who has no use for the row."""
        if self._tx.is_postgresql:
            self._tx.run(_HOLD, {"rollout": rollout})

    def identity(self, rollout: RolloutId) -> tuple[object, ...]:
        """What tells it from every other, also from one that had its number in a database that was put back."""
        return tuple(self._tx.run(_IDENTITY, {"rollout": rollout}).one())

    def window(self, rollout: RolloutId) -> int:
        """How many of its hosts may be at risk now; for who holds the row."""
        return int(self._tx.run(_WINDOW, {"rollout": rollout}).scalar_one())

    def rollback_to(self, rollout: RolloutId) -> str | None:
        """The commit that a person named for its way back, if he did."""
        found: str | None = self._tx.run(_ROLLBACK_TO, {"rollout": rollout}).scalar_one()
        return found

    def active(self, app: AppName) -> Rollout | None:
        """The app's one rollout that is under way (halted ones too)."""
        found = self._load(_ACTIVE, its_app=app)
        return found[0] if found else None

    def pending(self, app: AppName) -> Rollout | None:
        """The app's one rollout that is planned and not begun."""
        found = self._load(_PENDING, its_app=app)
        return found[0] if found else None

    def unfinished(self, app: AppName | None = None) -> list[Rollout]:
        """Pending and active ones, oldest first."""
        return self._load(_UNFINISHED_OF, its_app=app) if app else self._load(_UNFINISHED)

    def unfinished_commits(self, app: AppName) -> set[str]:
        """What pending and active rollouts ship."""
        return set(self._tx.run(_UNFINISHED_COMMITS, {"its_app": app}).scalars())

    def finished(self, app: AppName | None, limit: int) -> list[Rollout]:
        """Past ones, newest first."""
        query = (
            rows_of(Rollout, rollouts)
            .where(rollouts.c.state.in_(FINISHED), *([rollouts.c.app == app] if app else []))
            .order_by(rollouts.c.id.desc())
            .limit(limit)
        )
        return load_all(Rollout, self._tx.connection.execute(query), **_CONVERTERS)

    def numbered(self, first: int, last: int, limit: int) -> list[Rollout]:
        """Those with a number from first to last, newest first."""
        query = (
            rows_of(Rollout, rollouts)
            .where(rollouts.c.id.between(first, last))
            .order_by(rollouts.c.id.desc())
            .limit(limit)
        )
        return load_all(Rollout, self._tx.connection.execute(query), **_CONVERTERS)

    def newest_done(self, app: AppName) -> Rollout | None:
        """The rollout whose release the fleet runs: after `rollback --to`, the one that brought that commit."""
        found = self._load(_NEWEST_DONE, its_app=app, its_commit=self.released(app))
        return found[0] if found else None

    def since(self, commit: str, rollout: Rollout) -> list[Rollout]:
        """What the fleet has gone through from this commit to that rollout, newest first, without it; nothing when it did not come from there."""
        found: list[Rollout] = []
        while rollout.previous != commit:
            before = self._list(
                rollouts.c.app == rollout.app,
                rollouts.c.state == RolloutState.DONE,
                rollouts.c.commit == rollout.previous,
                rollouts.c.id < rollout.id,
            )
            if not before:
                return []
            rollout = before[-1]
            found.append(rollout)
        return found

    def released(self, app: AppName) -> str | None:
        """The commit that the fleet runs: of the last done rollout, or where `rollback` went from it, and on from there."""
        row = self._tx.run(_RELEASED, {"its_app": app}).first()
        if row is None:
            return None
        sha, since = row
        while (
            since is not None and sha is not None
        ):  # the rollout that `--to` went to may have been taken back later
            row = self._tx.run(_TAKEN_BACK_SINCE, {"its_app": app, "its_commit": sha, "since": since}).first()
            if row is None:
                break
            sha, since = row
        return None if sha is None else str(sha)

    def newest(self, app: AppName | None) -> Rollout | None:
        """The last rollout of all."""
        found = self._load(_NEWEST_OF, its_app=app) if app else self._load(_NEWEST)
        return found[0] if found else None

    def of_commit(self, app: AppName, sha: str) -> list[Rollout]:
        """Every rollout of this commit, oldest first."""
        return self._list(rollouts.c.app == app, rollouts.c.commit == sha)

    def durations(self, app: AppName, limit: int = 50) -> list[float]:
        """How long the app's newest done rollouts were under way, in seconds; the time that they stood halted is left out."""
        rows = self._tx.run(_DURATIONS, {"its_app": app, "most": limit})
        return [
            (ended - started).total_seconds() if took is None else float(took)
            for took, started, ended in rows
        ]

    def age_s(self, rollout: Rollout) -> float:
        """Seconds since it began, halts left out, by the same clock as its duration will be; of one that is not halted."""
        if rollout.began_s is None:
            return (self._tx.today() - rollout.started_at).total_seconds()
        return self._tx.now() - rollout.began_s

    def due(self) -> list[Rollout]:
        """Unfinished ones that nobody has looked at for too long, or with outcomes to count."""
        return self._load(_DUE, now=self._tx.now())

    def state(self, rollout: RolloutId) -> RolloutState:
        """Of this one."""
        return RolloutState(self._tx.run(_STATE, {"rollout": rollout}).scalar_one())

    def states(self, ids: Sequence[RolloutId]) -> dict[RolloutId, RolloutState]:
        """The states of these, in one query."""
        if not ids:
            return {}
        rows = self._tx.connection.execute(_STATES, {"ids": list(ids)})
        return {RolloutId(number): RolloutState(state) for number, state in rows}

    def elsewhere(self, app: AppName) -> tuple[int, int]:
        """How many other apps have a rollout that acts on hosts, or will soon; and how many of their hosts are under way."""
        row = self._tx.connection.execute(_ELSEWHERE, {"its_app": app, "now": self._tx.now()}).one()
        return int(row[0]), int(row[1])

    def in_state(self, state: RolloutState) -> list[Rollout]:
        """All in this state, oldest first."""
        return self._load(_IN_STATE, its_state=state)

    def change(
        self, rollout: Rollout, what: RolloutEvent, *, who: str, why: str | None = None, **values: Any
    ) -> Rollout:
        """Take an edge of the rollout's state machine; StaleWrite when the row has moved."""
        after = next_rollout_state(rollout.state, what)
        if after in FINISHED:
            values.setdefault("ended_at", self._tx.today())
        changed = self._write(rollout, state=after, **values)
        self._measure(rollout, after)
        self._tx.record(
            rollout.app,
            f"rollout {rollout.id}",
            what,
            who=who,
            why=why,
            rollout=rollout.id,
            states=(rollout.state, after),
        )
        return changed

    def _measure(self, rollout: Rollout, after: RolloutState) -> None:
        """A halt stops its watch, and going on starts it again: a night at a halt is not how long rollouts take."""
        measured: dict[str, Any]
        if after in {RolloutState.DONE, RolloutState.HALTED}:
            measured = {"took_s": self.age_s(rollout)}
        elif rollout.state is RolloutState.HALTED:
            measured = {"began_s": func.coalesce(self._tx.now() - rollouts.c.took_s, rollouts.c.began_s)}
        else:
            return
        self._tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(**measured))

    def update(self, rollout: Rollout, **values: Any) -> Rollout:
        """Change what is not the state; StaleWrite when the row has moved."""
        return self._write(rollout, **values)

    def take_token(self, rollout: RolloutId, *, canary: bool) -> bool:
        """One more host may be at risk: tested and taken in one guarded UPDATE.

        Canary hosts start only while the canary is being deployed; no other host starts without a PASS (I11).
        """
        taken = self._tx.run(_take_token(canary=canary), {"rollout": rollout})
        return taken.rowcount == 1

    def pass_tokens_on(self, rollout: RolloutId, windows: Sequence[int], kept: int) -> bool:
        """Hosts are done, and as many others take their places: as `take_token` each time that one was given back.

        `windows`: after the first one, the second one and so on, never narrower. All but `kept` are only given back, for
        who claims the other hosts.
        """
        values = {
            "rollout": rollout,
            "its_window": windows[0],
            "new_window": windows[-1],
            "passed": len(windows),
            "given_back": len(windows) - kept,
        }
        return self._tx.run(_PASS_TOKENS_ON, values).rowcount == 1

    def room_to_fail(self, rollout: RolloutId) -> bool:
        """Whether one more host without a token may be counted as failed; the row stays locked."""
        found = self._tx.connection.execute(
            update(rollouts)
            .where(
                rollouts.c.id == rollout,
                rollouts.c.failed + rollouts.c.unknown + rollouts.c.in_flight
                < rollouts.c.max_failed + rollouts.c.window,
            )
            .values(in_flight=rollouts.c.in_flight)
        )
        return found.rowcount == 1

    def may_activate(self, rollout: RolloutId, *, canary: bool) -> bool:
        """As `take_token` for a host that has its token; the row stays locked."""
        found = self._tx.connection.execute(
            update(rollouts)
            .where(rollouts.c.id == rollout, *_may_activate(canary=canary))
            .values(in_flight=rollouts.c.in_flight)
        )
        return found.rowcount == 1

    def add_counts(
        self, rollout: RolloutId, before: Count, after: Count, *, window: int | None = None
    ) -> bool:
        """Move the counters by what one host's change means; True when the caller must ring count_outcome.

        One ring serves every outcome since the last one was counted.
        """
        self.move_counts(rollout, before, after, window=window)
        return self.to_count(rollout)

    def to_count(self, rollout: RolloutId) -> bool:
        """Somebody has to decide; True when the caller must ring count_outcome for it. The row is locked by the caller.

        Asked under that lock: while somebody counts, PostgreSQL would show the flag as it was before.
        """
        return self._tx.run(_COUNTING, {"rollout": rollout}).rowcount == 1

    def move_counts(
        self, rollout: RolloutId, before: Count, after: Count, *, window: int | None = None
    ) -> None:
        """Move the counters, for a change that nobody needs to decide about; the row stays locked."""
        moved = _differences(before, after)
        values = {f"{name}_more": difference for name, difference in moved.items()}
        if window is not None:
            values["new_window"] = window
        statement = _move_counts(tuple(moved), window=window is not None)
        self._tx.run(statement, {"rollout": rollout, **values})

    def set_counting(self, rollout: RolloutId, *, counting: bool) -> None:
        """Outcomes wait to be counted, or are being counted now."""
        self._tx.run(_SET, {"rollout": rollout, "counting": counting})

    def ring_again(self, rollout: RolloutId, after_s: float) -> None:
        """Nobody needs to look at this rollout again before `after_s`."""
        self._tx.run(_SET, {"rollout": rollout, "due_at": self._tx.now() + after_s})

    def not_rung(self, rollout: RolloutId) -> None:
        """Nobody was told to look at it after all: whoever looks next finds it due, and late. But for one that waits for a person, or is being stopped."""
        self._tx.run(_NOT_RUNG, {"rollout": rollout, "due_at": 0.0})

    def claim_tick(self, rollout: RolloutId, state: RolloutState, next_s: float) -> bool:
        """True for one of all those who want to do this stage's next step now."""
        now = self._tx.now()
        values = {"rollout": rollout, "its_state": state, "now": now, "due_at": now + next_s}
        return self._tx.run(_CLAIM_TICK, values).rowcount == 1

    def claim_watch(self, rollout: RolloutId, next_s: float) -> bool:
        """As `claim_tick`, for the watch over a fan-out, whose own stage has another pace.

        A watch that is due later than `next_s` would be is due: the clock was set back.
        """
        now = self._tx.now()
        later = rollouts.c.watch_due_at > now + next_s + 1.0
        claimed = self._tx.connection.execute(
            update(rollouts)
            .where(
                rollouts.c.id == rollout,
                rollouts.c.state == RolloutState.FANNING_OUT,
                or_(rollouts.c.watch_due_at.is_(None), rollouts.c.watch_due_at <= now, later),
            )
            .values(watch_due_at=now + next_s)
        )
        return claimed.rowcount == 1

    def watch_at_once(self, rollout: RolloutId) -> None:
        """The watch over its fan-out is due, whenever it was to go on."""
        self._tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout).values(watch_due_at=0.0))

    def unwatched(self, late_s: float) -> list[RolloutId]:
        """Those whose fan-out should have been looked at `late_s` ago."""
        rows = self._tx.run(_UNWATCHED, {"before": self._tx.now() - late_s})
        return [RolloutId(number) for number in rows.scalars()]

    def recount(self, rollout: RolloutId) -> dict[str, int]:
        """The counters as the host rows say; those that differed, repaired."""
        row = self.lock(rollout)
        kinds = [
            (count_of(HostState(state), token=token, unreadable=unreadable, accepted=accepted), amount)
            for state, token, unreadable, accepted, amount in self._tx.connection.execute(
                _KINDS, {"rollout": rollout}
            )
        ]
        true = {name: sum(getattr(one, name) * amount for one, amount in kinds) for name in Count.__slots__}
        wrong = {name: value for name, value in true.items() if getattr(row, name) != value}
        if wrong:
            self._tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout).values(**wrong))
        return wrong

    def host_counts(self, ids: Sequence[RolloutId]) -> dict[RolloutId, dict[str, int]]:
        """How many hosts are in which state, for each rollout; every state is there."""
        counts: dict[RolloutId, dict[str, int]] = {number: dict.fromkeys(HostState, 0) for number in ids}
        rows = self._tx.connection.execute(
            select(rollout_hosts.c.rollout, rollout_hosts.c.state, func.count())
            .where(rollout_hosts.c.rollout.in_(ids))
            .group_by(rollout_hosts.c.rollout, rollout_hosts.c.state)
        )
        for number, state, amount in rows:
            counts[RolloutId(number)][state] = amount
        return counts

    def _list(self, *where: Any) -> list[Rollout]:
        rows = self._tx.connection.execute(_OLDEST_FIRST.where(*where))
        return load_all(Rollout, rows, **_CONVERTERS)

    def _load(self, query: Prepared, **values: Any) -> list[Rollout]:
        return load_all(Rollout, self._tx.run(query, values), **_CONVERTERS)

    def _write(self, rollout: Rollout, **values: Any) -> Rollout:
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        its = {"rollout": rollout.id, "its_version": rollout.version, "its_state": rollout.state}
        changed = self._tx.run(_GUARDED, {**its, "version": rollout.version + 1, **plain})
        if changed.rowcount != 1:
            raise StaleWrite(
                f"rollout {rollout.id} is no longer {rollout.state}",
                remedy=f"look again: rollout show {rollout.id}",
            )
        return replace(rollout, version=rollout.version + 1, **values)


_CONVERTERS = {
    "state": RolloutState,
    "halted_stage": RolloutState,
    "commits": tuple,
    "confirmed": tuple,
    "unconfirmed": tuple,
}


ACTING = ACTIVE - {RolloutState.HALTED} | {RolloutState.PENDING}


def _may_activate(*, canary: bool) -> list[Any]:
    if canary:
        return [rollouts.c.state == RolloutState.DEPLOYING_CANARY]
    return [rollouts.c.state == RolloutState.FANNING_OUT, rollouts.c.canary_status == "pass"]


def _differences(before: Count, after: Count) -> dict[str, int]:
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in Count.__slots__}
    return {name: now - then for name, (then, now) in pairs.items() if now != then}


# -- what runs for every host, or several times a second, built once -------------------------------------------------------

_THIS = rollouts.c.id == bindparam("rollout")
_BY_ID = Prepared(rows_of(Rollout, rollouts).where(_THIS))
_OLDEST_FIRST = rows_of(Rollout, rollouts).order_by(rollouts.c.id)
_IS_UNFINISHED = rollouts.c.state.not_in(sorted(FINISHED))
_OF_APP = rollouts.c.app == bindparam("its_app")
_IN_STATE = Prepared(_OLDEST_FIRST.where(rollouts.c.state == bindparam("its_state")))
_ACTIVE = Prepared(_OLDEST_FIRST.where(_OF_APP, rollouts.c.state.in_(sorted(ACTIVE))))
_PENDING = Prepared(_OLDEST_FIRST.where(_OF_APP, rollouts.c.state == RolloutState.PENDING))
_UNFINISHED = Prepared(_OLDEST_FIRST.where(_IS_UNFINISHED))
_UNFINISHED_OF = Prepared(_OLDEST_FIRST.where(_OF_APP, _IS_UNFINISHED))
_DUE = Prepared(
    _OLDEST_FIRST.where(_IS_UNFINISHED, or_(rollouts.c.due_at <= bindparam("now"), rollouts.c.counting))
)
_LAST = rows_of(Rollout, rollouts).order_by(rollouts.c.id.desc()).limit(1)
_NEWEST = Prepared(_LAST)
_NEWEST_OF = Prepared(_LAST.where(_OF_APP))
_NEWEST_DONE = Prepared(
    _LAST.where(_OF_APP, rollouts.c.state == RolloutState.DONE, rollouts.c.commit == bindparam("its_commit"))
)
_RELEASED = Prepared(
    select(func.coalesce(rollouts.c.rollback_to, rollouts.c.commit), rollouts.c.stop_epoch)
    .where(
        _OF_APP,
        or_(
            rollouts.c.state == RolloutState.DONE,
            and_(rollouts.c.state == RolloutState.ROLLED_BACK, rollouts.c.rollback_to.is_not(None)),
        ),
    )
    .order_by(rollouts.c.id.desc())
    .limit(1)
)
_TAKEN_BACK_SINCE = Prepared(
    select(func.coalesce(rollouts.c.rollback_to, rollouts.c.previous), rollouts.c.stop_epoch)
    .where(
        _OF_APP,
        rollouts.c.commit == bindparam("its_commit"),
        rollouts.c.state.in_([RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK]),
        rollouts.c.stop_epoch > bindparam("since"),
    )
    .order_by(rollouts.c.stop_epoch.desc())
    .limit(1)
)
_DURATIONS = Prepared(
    select(rollouts.c.took_s, rollouts.c.started_at, rollouts.c.ended_at)
    .where(_OF_APP, rollouts.c.state == RolloutState.DONE, rollouts.c.ended_at.is_not(None))
    .order_by(rollouts.c.id.desc())
    .limit(bindparam("most"))
)
_UNWATCHED = Prepared(
    select(rollouts.c.id).where(
        rollouts.c.state == RolloutState.FANNING_OUT,
        or_(rollouts.c.watch_due_at.is_(None), rollouts.c.watch_due_at <= bindparam("before")),
    )
)
_IDENTITY = Prepared(
    select(rollouts.c.id, rollouts.c.commit, rollouts.c.digest, rollouts.c.started_at).where(_THIS)
)
_STATES = select(rollouts.c.id, rollouts.c.state).where(rollouts.c.id.in_(bindparam("ids", expanding=True)))
_SET = Prepared(update(rollouts).where(_THIS))
_LOOKED_AFTER = sorted({*STAGES, RolloutState.PENDING, RolloutState.ROLLING_BACK})
_NOT_RUNG = Prepared(update(rollouts).where(_THIS, rollouts.c.state.in_(_LOOKED_AFTER)))
_CLAIM_TICK = Prepared(
    update(rollouts).where(
        _THIS,
        rollouts.c.state == bindparam("its_state"),
        or_(rollouts.c.due_at.is_(None), rollouts.c.due_at <= bindparam("now")),
    )
)
_GUARDED = Prepared(
    update(rollouts).where(
        _THIS, rollouts.c.version == bindparam("its_version"), rollouts.c.state == bindparam("its_state")
    )
)
_KIND = (
    rollout_hosts.c.state,
    rollout_hosts.c.token,
    rollout_hosts.c.unreadable,
    rollout_hosts.c.accepted,
)
_KINDS = (
    select(*_KIND, func.count().label("amount"))
    .where(rollout_hosts.c.rollout == bindparam("rollout"))
    .group_by(*_KIND)
)
_HOLD = Prepared(select(rollouts.c.id).where(_THIS).with_for_update())
_STATE = Prepared(select(rollouts.c.state).where(_THIS))
_WINDOW = Prepared(select(rollouts.c.window).where(_THIS))
_ROLLBACK_TO = Prepared(select(rollouts.c.rollback_to).where(_THIS))
_UNFINISHED_COMMITS = Prepared(select(rollouts.c.commit).where(_OF_APP, _IS_UNFINISHED))
# A message is under way for it, or somebody works on it.
_BUSY_HOST = or_(
    rollout_hosts.c.state.in_([HostState.PREPARING, HostState.ACTIVATING, HostState.ROLLING_BACK]),
    rollout_hosts.c.due_at > bindparam("now"),
)
_ELSEWHERE = select(
    func.count(rollouts.c.app.distinct()),
    func.coalesce(
        func.sum(
            select(func.count())
            .where(rollout_hosts.c.rollout == rollouts.c.id, _BUSY_HOST)
            .correlate(rollouts)
            .scalar_subquery()
        ),
        0,
    ),
).where(rollouts.c.app != bindparam("its_app"), rollouts.c.state.in_(sorted(ACTING)))
_COUNTING = Prepared(update(rollouts).where(_THIS, ~rollouts.c.counting).values(counting=True))


def has_room(*, in_flight: Any = rollouts.c.in_flight, window: Any = rollouts.c.window) -> Any:
    """Of the budget, for one more host at risk: `domain.budget.may_start` for the database's eyes."""
    return and_(
        rollouts.c.failed + rollouts.c.unknown + in_flight < rollouts.c.max_failed + window,
        rollouts.c.failed + rollouts.c.unreadable <= rollouts.c.max_failed,
        in_flight + rollouts.c.unknown - rollouts.c.unreadable < rollouts.c.concurrency,
    )


@functools.cache
def _take_token(*, canary: bool) -> Prepared:
    may = and_(_THIS, *_may_activate(canary=canary), has_room())
    return Prepared(update(rollouts).where(may).values(in_flight=rollouts.c.in_flight + 1))


# Where there is room for the first one there is for the others: each leaves as many in flight, and no narrower window.
_PASS_TOKENS_ON = Prepared(
    update(rollouts)
    .where(
        _THIS,
        *_may_activate(canary=False),
        has_room(in_flight=rollouts.c.in_flight - 1, window=bindparam("its_window", type_=Integer)),
    )
    .values(
        done=rollouts.c.done + bindparam("passed", type_=Integer),
        window=bindparam("new_window", type_=Integer),
        in_flight=rollouts.c.in_flight - bindparam("given_back", type_=Integer),
    )
)


@functools.cache
def _move_counts(names: tuple[str, ...], *, window: bool) -> Prepared:
    moved: dict[str, Any] = {name: rollouts.c[name] + bindparam(f"{name}_more") for name in names}
    if window:
        moved["window"] = bindparam("new_window")
    moved = moved or {"in_flight": rollouts.c.in_flight}
    return Prepared(update(rollouts).where(_THIS).values(**moved))


def _host_rows(plan: Planned, rollout: int) -> list[dict[str, Any]]:
    return [
        {
            "rollout": rollout,
            "app": plan.app,
            **asdict(member),
            "role": role,
            "position": position,
            "state": HostState.PENDING,
            "due_at": 0.0,
        }
        for position, (member, role) in enumerate(plan.fleet)
    ]
