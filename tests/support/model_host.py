"""rollout/fleet/host.sh as a Python object: the same fence, journal, marks, lock and answers, without a shell.

A `Call` is one call of it: a generator that stops at every moment at which time may pass, the host may die, or another
call may come between. Whoever drives it decides how long a moment lasts. tests/integration/test_host_sh_model.py gives
the same orders to both and compares what they say and leave behind.

Not modelled: the syntax of headers, torn lines, the cut of a long journal, output, and folders without a digest.
"""

from collections.abc import Callable, Generator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rollout.domain.model import FOREIGN, PrepareOrder, SwitchOrder
from rollout.errors import AuthRefused, Unreachable
from rollout.fleet.protocol import Reply

LOCK_PATIENCE_S = 60.0  # of prepare and clean
SEAL_WAIT_MS = 1000  # what rollout/fleet/host.py lets a sealing status wait
GREETED, SENDING, WAITING, HEALTH = (
    "greeted",
    "sending",
    "waiting",
    "health",
)  # moments at which something is expected
DONE, FAILED, REFUSED, BROKEN = 0, 10, 20, 30


class Entry(NamedTuple):
    """A record of the journal, or `seal`: a mark of a sealing status, kept here in its place for the checker."""

    what: str
    verb: str
    epoch: int
    operation: int
    commit: str | None
    at: datetime
    came_from: str | None = None
    open: bool = False
    code: int | None = None
    reason: str = ""
    switched: bool = False
    put_back: bool = False
    already: bool = False


NOTHING = Entry("none", "none", 0, 0, None, datetime.min.replace(tzinfo=UTC))


class _End(Exception):  # the last line of every reply
    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


@dataclass
class ModelHost:
    """A host's disk and its temper. The clock is the host's own; `today` is the time of day, which events have too."""

    name: str
    current: str | None = None
    prepared: dict[str, str] = field(default_factory=dict)  # digests by commit, the newest last
    journal: list[Entry] = field(default_factory=list)
    marks: set[tuple[int, int]] = field(default_factory=set)
    remembers_foreign: bool = False
    holder: "Call | None" = None  # who has the lock
    boot: int = 1
    whole: bool = True  # the journal goes back to its first record
    unseen: bool = False  # it has lost its disk, and no operation of ours has been here since
    unhealthy: set[str] = field(default_factory=set)  # commits that do not become healthy here
    comes_up_s: dict[str, float] = field(
        default_factory=dict
    )  # how long after their switch commits are well here
    unreachable: bool = False
    refuses_login: bool = False
    loses_answer: int = 0  # so many switches happen without an answer
    no_room: bool = False
    clock: Callable[[], float] = lambda: 0.0
    used_since: float = 0.0  # by that clock: what `current` says
    today: Callable[[], datetime] = lambda: datetime.now(UTC)
    # Where time may pass, or the order or its answer be lost: permitted and on its way here; done and on its way back.
    before_act: Callable[[], None] = lambda: None
    after_act: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._on_disk: tuple[str | None, int] = (self.current, 0)

    def use(self, commit: str | None) -> None:
        """Switch `current`."""
        self.current, self.used_since = commit, self.clock()

    def is_up(self) -> bool:
        """What `current` says has had the time that it needs to come up."""
        return self.clock() - self.used_since >= self.comes_up_s.get(self.current or "", 0.0)

    def reach(self) -> None:
        """Unreachable or AuthRefused, if it is so."""
        if self.unreachable:
            raise Unreachable(f"{self.name}: no answer")
        if self.refuses_login:
            raise AuthRefused(f"{self.name}: refused our key")

    @property
    def activations(self) -> list[str | None]:
        """Every commit that it was told to switch to, and went about it."""
        return [one.commit for one in self.journal if (one.what, one.verb) == ("intent", "activate")]

    @property
    def records(self) -> list[Entry]:
        """The journal as host.sh has it."""
        return [entry for entry in self.journal if entry.what != "seal"]

    @property
    def last(self) -> Entry:
        """The journal's last record."""
        return next((entry for entry in reversed(self.journal) if entry.what != "seal"), NOTHING)

    @property
    def seen(self) -> tuple[int, int]:
        """The highest epoch and operation number, of journal and marks."""
        last = self.last
        epochs, operations = zip((last.epoch, last.operation), *self.marks, strict=True)
        return max(epochs), max(operations)

    def newest_of(self, operation: int) -> Entry | None:
        """The newest record of an operation."""
        found = (entry for entry in reversed(self.journal) if entry.operation == operation)
        return next((entry for entry in found if entry.what != "seal"), None)

    def note(self, what: str, verb: str, epoch: int, operation: int, commit: str | None) -> None:
        """Something that happened here while nobody drove a call."""
        code = DONE if what == "done" else None
        self.journal.append(Entry(what, verb, epoch, operation, commit, self.today(), code=code))

    def sync(self) -> None:
        """What is there now survives a power cut."""
        self._on_disk = self.current, len(self.journal)

    def sync_current(self) -> None:
        """Of what is there now, the switch survives a power cut."""
        self._on_disk = self.current, self._on_disk[1]

    def memory(self) -> dict[str, Any]:
        """What is on its disk."""
        return {
            "current": self.current,
            "prepared": dict(self.prepared),
            "journal": list(self.journal),
            "marks": set(self.marks),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """It has this on its disk."""
        for name, value in memory.items():
            setattr(self, name, copy(value))
        self.sync()

    # -- what befalls it ---------------------------------------------------------------------------------------------------

    def reboot(self, *, keeps_current: bool = True, keeps_journal: bool = True) -> None:
        """All that runs is gone, and so may be what was not synced: the switch, the last records, or neither."""
        current, length = self._on_disk
        self.holder, self.boot = None, self.boot + 1
        if not keeps_current:
            self.current = current
        if not keeps_journal:
            # A mark is synced before anybody hears of it.
            self.journal[length:] = [entry for entry in self.journal[length:] if entry.what == "seal"]
        self.sync()

    def lose_disk(self) -> None:
        """It comes back with nothing on it."""
        self.reboot()
        self.current, self.remembers_foreign, self.whole, self.unseen = None, False, False, True
        self.prepared.clear()
        self.journal.clear()
        self.marks.clear()
        self.sync()


Steps = Generator[str, Any, None]


class Call:
    """One call of host.sh. `lines` is what it has said so far."""

    def __init__(self, host: ModelHost, verb: str, **keys: Any) -> None:
        self.host, self.verb = host, verb
        self.epoch, self.op = keys.get("epoch", 0), keys.get("op", 0)
        self.commit, self.digest = keys.get("commit"), keys.get("digest") or ""
        self.keys = keys
        self.lines: list[str] = []
        self.acted = False  # it has written its intent
        self._deadline = 0.0
        self._switched = self._put_back = False
        self._was: str | None = None
        self._from: str | None = None

    def run(self) -> Steps:
        """From the header to the last line; closing it is kill -9."""
        verbs = {"activate": self._switch, "rollback": self._switch, "prepare": self._prepare}
        try:
            yield from {**verbs, "status": self._status, "clean": self._clean}[self.verb]()
        except _End as end:
            self._say(**({"reason": end.reason} if end.reason else {}), end=end.code)
        finally:
            if self.host.holder is self:
                self.host.holder = None

    @property
    def reply(self) -> Reply:
        """What a worker makes of it."""
        reply = Reply()
        for line in self.lines:
            reply.take(line)
        return reply

    def _say(self, **pairs: object) -> None:
        self.lines += [f"{key}={_word(value)}" for key, value in pairs.items()]

    # -- the fence ---------------------------------------------------------------------------------------------------------

    def _check_fence(self) -> None:
        epoch, operation = self.host.seen
        if self.epoch < epoch:
            raise _End(REFUSED, "epoch")
        if self.op <= operation:
            raise _End(REFUSED, "op")

    def _overtaken(self) -> bool:
        return any(epoch > self.epoch or operation >= self.op for epoch, operation in self.host.marks)

    def _relieved(self) -> bool:
        """An order with a higher epoch waits for the lock; a seal's mark ends no health wait."""
        return any(epoch > self.epoch and not operation for epoch, operation in self.host.marks)

    def _in_time(self) -> bool:
        return self.host.clock() < self._deadline

    def _forbidden(self) -> str:
        """Why it may not switch any more, or nothing."""
        if not self._in_time():
            return "late"
        return "epoch" if self._overtaken() else ""

    def _drop_marks(self) -> None:
        self.host.marks -= {mark for mark in self.host.marks if mark[0] <= self.epoch and mark[1] <= self.op}

    def _raise_mark(self, epoch: int, operation: int) -> None:
        """In place of the lower marks of its kind: a seal's has an operation number, an order's has none."""
        lower = {
            (e, o) for e, o in self.host.marks if e <= epoch and o <= operation and bool(o) is bool(operation)
        }
        self.host.marks = (self.host.marks - lower) | {(epoch, operation)}

    def _lock(self, until: float) -> Generator[str, Any, bool]:
        """Wait for the lock; False when the clock passes `until` first."""
        while self.host.holder is not None:
            if self.host.clock() >= until:
                return False
            yield WAITING
        return True

    def _record(self, what: str, *, still_open: bool, **values: Any) -> None:
        self.host.unseen = False
        self.host.journal.append(
            Entry(
                what,
                self.verb,
                self.epoch,
                self.op,
                self.commit,
                self.host.today(),
                self._from,
                still_open,
                **values,
            )
        )

    # -- activate and rollback ---------------------------------------------------------------------------------------------

    def _switch(self) -> Steps:
        host = self.host
        greeted = host.clock()
        self._say(clock=int(greeted * 1000), boot=host.boot, current=host.current)
        within = yield GREETED
        if within is None:
            raise _End(REFUSED, "cut off")
        self._deadline = greeted + within / 1000
        if host.holder is not None and self.epoch > host.seen[0]:
            self._raise_mark(self.epoch, 0)
        if not (yield from self._lock(self._deadline)):
            raise _End(REFUSED, "busy")
        host.holder = self
        yield "locked"
        self._was = host.current
        self._answer_known()
        self._check_fence()
        last = host.last
        if not self._in_time():
            raise _End(REFUSED, "late")
        is_there = self._was == self.commit and not last.open
        if self.verb == "rollback" and (is_there or (self.commit is None and self._was == FOREIGN)):
            yield from self._answer_already()
        self._check_release()
        again = self._was == self.commit == last.commit and last is not NOTHING and last.what != "done"
        self._from = last.came_from if again else self._was
        if "back" in self.keys:
            self._from = self.keys["back"]
        host.remembers_foreign |= self._was == FOREIGN != self.commit
        if host.no_room:
            raise _End(BROKEN, "no room")
        self._record("intent", still_open=True)
        self.acted = True
        host.sync()
        yield "intent"
        self._drop_marks()
        yield from self._put_in_place(last)
        self._switched = True
        self._say(switched=True)
        match (yield from self._bring_up(self.commit)):
            case "healthy":
                yield from self._outcome(DONE, "", "done", still_open=False)
            case "relieved":
                yield from self._outcome(FAILED, "overtaken", "left", still_open=True)
            case _:
                yield from self._make_room()

    def _answer_known(self) -> None:
        known = self.host.newest_of(self.op) if self.op <= self.host.last.operation else None
        if known is None:
            return
        self._say(intent="yes", **({"already": "yes"} if known.already else {}))
        self._say(switched=known.switched, put_back=known.put_back, current=self.host.current)
        if known.code is None:
            raise _End(BROKEN, "unknown")
        raise _End(known.code, known.reason)

    def _answer_already(self) -> Steps:
        self._from = self._was
        self.host.sync_current()
        self._record("done", still_open=False, code=DONE, already=True)
        self.acted = True
        yield "written"
        self.host.sync()
        self._drop_marks()
        self._say(intent="yes", already="yes", switched="no", put_back="no", current=self.host.current)
        yield "recorded"
        raise _End(DONE)

    def _check_release(self) -> None:
        if self.commit is None:
            return
        if self.commit == FOREIGN:
            if not self.host.remembers_foreign:
                raise _End(REFUSED, "not prepared")
            return
        if self.commit not in self.host.prepared:
            raise _End(REFUSED, "not prepared")
        if self.digest and self.host.prepared[self.commit] != self.digest:
            raise _End(REFUSED, "digest")

    def _put_in_place(self, last: Entry) -> Steps:
        """The switch itself, fenced on both sides."""
        if why := self._forbidden():
            yield from self._outcome(REFUSED, why, "void", still_open=last.open)
        yield "allowed"
        self.host.use(self.commit)
        yield "switched"
        if why := self._forbidden():
            self.host.use(self._was)
            yield from self._outcome(REFUSED, why, "void", still_open=last.open)

    def _bring_up(self, target: str | None) -> Generator[str, Any, str]:
        """Restart and health there: healthy, unhealthy or relieved."""
        if target is None:
            return "healthy"
        if self.keys.get("restart"):
            yield "restart"
            if target in self.keys.get("broken_restart", ()):
                return "unhealthy"
        if not self.keys.get("health"):
            return "healthy"
        until = self.host.clock() + self.keys["health_timeout"]
        time_is_up = None
        while not time_is_up:
            if self._relieved():
                return "relieved"
            if target not in self.host.unhealthy and self.host.is_up():
                return "healthy"
            time_is_up = (yield HEALTH) or self.host.clock() >= until
        return "relieved" if self._relieved() else "unhealthy"

    def _make_room(self) -> Steps:
        """An unhealthy release makes room for what was there before."""
        if self.verb == "rollback" or self._from == self.commit:
            yield from self._outcome(FAILED, "unhealthy", "failed", still_open=True)
        self._record("back", still_open=True)
        yield "back"
        if not self._is_kept(self._from):
            yield from self._outcome(FAILED, "unhealthy", "failed", still_open=True)
        self.host.use(self._from)
        self._put_back = True
        healthy = (yield from self._bring_up(self._from)) == "healthy"
        yield from self._outcome(FAILED, "unhealthy", "failed", still_open=not healthy)

    def _is_kept(self, target: str | None) -> bool:
        if target == FOREIGN:
            return self.host.remembers_foreign
        return target in {None, self._was} or target in self.host.prepared

    def _outcome(self, code: int, reason: str, what: str, *, still_open: bool) -> Steps:
        values = {"switched": self._switched, "put_back": self._put_back}
        self.host.sync_current()
        self._record(what, still_open=still_open, code=code, reason=reason, **values)
        yield "written"
        self.host.sync()
        self._say(intent="yes", **values, current=self.host.current)
        yield "recorded"
        raise _End(code, reason)

    # -- the other verbs ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> Steps:
        host = self.host
        self._check_fence()
        if self._is_here():
            host.prepared[self.commit or ""] = host.prepared.pop(self.commit or "")  # it is the newest again
            self._say(send="no")
            raise _End(DONE)
        if self._is_wanted():
            raise _End(REFUSED, "in use")
        self._say(send="yes")
        arrived = yield SENDING
        if arrived is None:
            raise _End(REFUSED, "cut off")
        if host.no_room:
            raise _End(BROKEN, "no room")
        if arrived != self.digest:
            raise _End(REFUSED, "digest")
        if not (yield from self._lock(host.clock() + LOCK_PATIENCE_S)):
            raise _End(REFUSED, "busy")
        host.holder = self
        yield "locked"
        self._check_fence()
        if not self._is_here():
            if self._is_wanted():
                raise _End(REFUSED, "in use")
            host.prepared.pop(self.commit or "", None)
            host.prepared[self.commit or ""] = self.digest
        self._tidy()
        raise _End(DONE)

    def _is_here(self) -> bool:
        return self.host.prepared.get(self.commit or "") == self.digest

    def _is_wanted(self) -> bool:
        last = self.host.last
        if self.commit not in self.host.prepared:
            return False
        return self.commit == self.host.current or (last.verb == "activate" and last.came_from == self.commit)

    def _tidy(self) -> int:
        last, prepared = self.host.last, self.host.prepared
        spare = {self.host.current, last.came_from, last.commit, self.commit, *self.keys["spare"]}
        room = self.keys["keep"] - sum(commit in spare for commit in prepared)
        others = [commit for commit in reversed(prepared) if commit not in spare]
        gone = others[max(0, room) :]
        for commit in gone:
            del prepared[commit]
        return len(gone)

    def _clean(self) -> Steps:
        if not (yield from self._lock(self.host.clock() + LOCK_PATIENCE_S)):
            raise _End(REFUSED, "busy")
        self._say(removed=self._tidy())
        raise _End(DONE)

    def _status(self) -> Steps:
        host, asked = self.host, self.keys.get("op_asked", 0)
        sealed, code, why = False, DONE, ""
        running = host.holder is not None
        if self.epoch and self.epoch < host.seen[0]:
            code, why = REFUSED, "epoch"
        elif self.epoch:
            if self.epoch > host.seen[0] or self.op > host.seen[1]:
                self._raise_mark(self.epoch, self.op)
                host.journal.append(Entry("seal", "status", self.epoch, self.op, None, host.today()))
            yield "marked"
            until = host.clock() + self.keys.get("wait", 0) / 1000
            while True:
                running = host.holder is not None
                sealed = not (running and host.last.what == "intent" and host.last.commit != host.current)
                if not running or (sealed and not asked) or host.clock() >= until:
                    break
                yield WAITING
        last, known = host.last, host.newest_of(asked) if asked else None
        self._say(clock=int(host.clock() * 1000), boot=host.boot, current=host.current, epoch=host.seen[0])
        self._say(
            running=running,
            op=last.operation,
            verb=last.verb,
            commit=last.commit or ("" if last is NOTHING else "none"),
        )
        self._say(
            result=_result(last.what),
            asked=_result_asked(known.what if known and asked <= last.operation else "none"),
            sealed=sealed,
        )
        raise _End(code, why)


def prepare_call(host: ModelHost, order: PrepareOrder) -> Call:
    """The call that a PrepareOrder is."""
    release = order.release
    wanted = {"commit": release.commit, "digest": release.digest, "keep": order.keep, "spare": order.spare}
    return Call(host, "prepare", epoch=order.epoch, op=order.operation, **wanted)


def switch_call(host: ModelHost, verb: str, order: SwitchOrder) -> Call:
    """The call that a SwitchOrder is."""
    commands = {
        "restart": order.restart,
        "health": order.health,
        "health_timeout": order.health_timeout_s,
    }
    wanted = {"commit": order.commit, "digest": order.digest}
    if order.owes:
        wanted["back"] = order.owed
    return Call(host, verb, epoch=order.epoch, op=order.operation, **wanted, **commands)


def status_call(host: ModelHost, asked: int, seal: tuple[int, int] | None) -> Call:
    """The call that reads a host, and with `seal` ends all that was sent earlier."""
    sealing = {"epoch": seal[0], "op": seal[1], "wait": SEAL_WAIT_MS} if seal else {}
    return Call(host, "status", op_asked=asked, **sealing)


def at_once(steps: Steps, value: object = None) -> None:
    """Drive a call to its end where no time passes: what does not become healthy has had its time."""
    while True:
        try:
            moment = steps.send(value)
        except StopIteration:
            return
        assert moment != WAITING, "somebody else has the lock"
        value = moment == HEALTH


def _result(what: str) -> str:
    if what in {"done", "failed"}:
        return what
    return "intent" if what in {"intent", "back", "left"} else "none"


def _result_asked(what: str) -> str:
    return what if what == "back" else _result(what)


def _word(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else value
