"""One host, asked through `host.sh`: each verb is one command on one channel, and each failure is one of our errors.

Before anything can have changed on the host, a failure is Unreachable and may be tried again. Afterwards it is
OutcomeUnknown, unless the host itself said what came of it.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rollout import crashpoints
from rollout.domain.model import Answer, Greeting, HostStatus, Outcome, PrepareOrder, SwitchOrder, Target
from rollout.errors import (
    HostError,
    NoSpace,
    OutcomeUnknown,
    ReleaseError,
    StepFailed,
    StepRefused,
    Unreachable,
)
from rollout.fleet import protocol
from rollout.fleet.commands import NOT_INSTALLED, TRUE, Program
from rollout.fleet.conversation import Conversation
from rollout.fleet.deadline import Deadline
from rollout.fleet.limits import Limits
from rollout.fleet.pool import Pool
from rollout.fleet.protocol import Reply
from rollout.fleet.uploads import Source, Uploads

T = TypeVar("T")
_SEAL_WAIT_MS = 1000  # for the lock, before a sealing status answers what it knows
_NO_ROOM = (
    "No space left",
    "Disk quota exceeded",
    "Permission denied",
    "Read-only file system",
    "cannot create",
)


def nothing() -> None:
    """Nobody wants to know."""


class _NotInstalled(Exception):
    """The program is not on the host yet."""


class Host:
    """What can be asked of one host until a deadline."""

    def __init__(
        self,
        target: Target,
        pool: Pool,
        program: Program,
        limits: Limits,
        timeout_s: float,
        uploads: Uploads,
    ) -> None:
        self._target = target
        self._pool = pool
        self._program = program
        self._limits = limits
        self._uploads = uploads
        self._deadline = Deadline.after(timeout_s)
        self._timeout_s = timeout_s

    def prepare(self, order: PrepareOrder, go_on: Callable[[], bool]) -> Outcome:
        """Put a release there. Until its last byte is sent the host keeps nothing of it."""
        with self._archive(order) as archive, self._delta(order) as delta:
            known = order if delta else replace(order, delta=None)
            return self._installed(self._program, lambda: self._prepare(known, archive, delta, go_on))

    def activate(
        self, order: SwitchOrder, permit: Callable[[Greeting], int], on_switch: Callable[[], None]
    ) -> Outcome:
        """Switch to a release."""
        return self._installed(self._program, lambda: self._switch("activate", order, permit, on_switch))

    def roll_back(self, order: SwitchOrder, permit: Callable[[Greeting], int]) -> Outcome:
        """Switch back."""
        return self._installed(self._program, lambda: self._switch("rollback", order, permit, nothing))

    def status(self, asked: int, seal: tuple[int, int] | None) -> HostStatus:
        """Read it, and seal it if asked to. Both may be repeated, so every failure is worth trying again."""
        wait_ms = min(_SEAL_WAIT_MS, int(self._timeout_s * 500))
        header = protocol.status(asked=asked, seal=seal, wait_ms=wait_ms)
        return self._installed(self._program, lambda: self._ask("status", header, enough="result")).status()

    def check(self) -> dict[str, str]:
        """What `hello` says when asked deeply, and `sh_ms`: how long the login shell takes to do nothing."""
        answer = self._installed(self._program, lambda: self._ask("hello", protocol.hello(deep=True)))
        return answer.fields | {"sh_ms": str(self._time_of_nothing())}

    def read(self, program: Program, lines: Sequence[str]) -> str:
        """The output of a read-only program of ours."""
        return self._installed(program, lambda: self._read(program, lines))

    def _prepare(
        self, order: PrepareOrder, archive: Source, delta: Source | None, go_on: Callable[[], bool]
    ) -> Outcome:
        reply = Reply()
        with self._talk(self._program.call(self._target.path, "prepare")) as talk:
            talk.send(protocol.prepare(order))
            self._until(talk, reply, "send")
            if delta and reply.wants("delta") and self._stream(talk, delta, go_on):
                with _unknown():
                    # The host builds the release. When it is not the one that was tested, it asks for all of it.
                    self._until(talk, reply, "send", self._deadline)
            whole = reply.wants("yes") and self._stream(talk, archive, go_on)
            crashpoints.reach("after-upload")
            with _unknown() if whole else contextlib.nullcontext():
                talk.end_input()
                return reply.outcome(self._answer(talk, reply))

    @staticmethod
    def _stream(talk: Conversation, source: Source, go_on: Callable[[], bool]) -> bool:
        """Send it; whether the host has got all of it."""
        sent = talk.stream(source, go_on)
        if sent < source.size and not talk.aside(go_on):
            raise OutcomeUnknown(
                f"{talk.where}: sending the release was cut short because it is no longer wanted"
            )
        return sent == source.size

    @contextlib.contextmanager
    def _archive(self, order: PrepareOrder) -> Iterator[Source]:
        """The archive, whole; ReleaseError."""
        path, size = order.release.archive, order.release.size
        with contextlib.ExitStack() as held:
            try:
                archive = held.enter_context(self._uploads.source(Path(path)))
                found = f"has {archive.size}"
            except FileNotFoundError:
                archive, found = None, "is missing"
            if archive is None or archive.size != size:
                raise ReleaseError(
                    f"the archive of {order.release.commit[:10]} should have {size} bytes, and {path} {found}",
                    remedy="build the commit again: rollout deploy COMMIT",
                )
            yield archive

    @contextlib.contextmanager
    def _delta(self, order: PrepareOrder) -> Iterator[Source | None]:
        """The delta, whole; None when there is none (any more): the archive does as well."""
        with contextlib.ExitStack() as held:
            delta = None
            if order.delta is not None:
                with contextlib.suppress(OSError):
                    delta = held.enter_context(self._uploads.source(Path(order.delta.archive)))
            yield delta if delta and order.delta and delta.size == order.delta.size else None

    def _switch(
        self,
        verb: str,
        order: SwitchOrder,
        permit: Callable[[Greeting], int],
        on_switch: Callable[[], None],
    ) -> Outcome:
        reply = Reply()
        with self._talk(self._program.call(self._target.path, verb)) as talk:
            talk.send(protocol.switch(order, self._target))
            self._until(talk, reply, "current")
            if reply.answer is None:
                crashpoints.reach("after-greeting")
                permission = protocol.within(talk.aside(functools.partial(permit, reply.greeting())))
                crashpoints.reach("after-permit")
                with _unknown():
                    talk.send(permission)
                    talk.end_input()
                    crashpoints.reach("after-permission")
                    self._until(talk, reply, "switched", self._deadline)
                    if reply.answer is None and reply.yes("switched"):
                        talk.aside(on_switch)
                    answer = self._answer(talk, reply)
                    crashpoints.reach("after-answer")
                    return reply.outcome(answer)
            return reply.outcome(reply.answer)

    def _ask(self, verb: str, header: bytes, enough: str = "end") -> Reply:
        """A verb that is header in, answer out. Without the key that is enough, a no is StepFailed or StepRefused."""
        reply = Reply()
        with self._talk(self._program.call(self._target.path, verb)) as talk:
            talk.send(header)
            talk.end_input()
            answer = self._answer(talk, reply)
            if answer is not Answer.DONE and enough not in reply.fields:
                kind = StepRefused if answer is Answer.REFUSED else StepFailed
                raise kind(f"{talk.where}: {verb} was {answer.value}: {reply.why}", remedy=talk.by_hand)
        return reply

    def _read(self, program: Program, lines: Sequence[str]) -> str:
        with self._talk(program.call(self._target.path)) as talk:
            talk.send(protocol.lines(lines))
            talk.end_input()
            output = talk.everything()
            status = talk.exit_status()
            if status != 0:
                raise self._ended(talk, status)
            return output.decode(errors="replace")

    def _time_of_nothing(self) -> int:
        with self._talk(TRUE) as talk:
            began = time.monotonic()
            talk.end_input()
            talk.everything()
            talk.exit_status()
            return round((time.monotonic() - began) * 1000)

    @contextlib.contextmanager
    def _talk(self, command: str) -> Iterator[Conversation]:
        crashpoints.reach("before-connect")
        with self._pool.session(self._target, self._deadline) as (connection, channel):
            crashpoints.reach("after-connect")
            talk = Conversation(connection, channel, self._deadline, self._limits)
            talk.start(command)
            yield talk

    def _until(
        self, talk: Conversation, reply: Reply, key: str | None, limit: Deadline | None = None
    ) -> None:
        """Read up to and including this key (None: the first one), or to the end of the answer."""
        limit = limit or self._deadline.within(self._limits.exec_s)
        while reply.answer is None:
            line = talk.line(limit)
            if line is None:
                raise self._no_answer(talk, reply)
            found = reply.take(line)
            if not found:
                talk.noise(line)
            elif key in {None, found}:
                return

    def _answer(self, talk: Conversation, reply: Reply) -> Answer:
        """Read to the end of the answer."""
        if not reply.fields:
            self._until(talk, reply, None)
        while reply.answer is None:
            line = talk.line(self._deadline)
            if line is None:
                raise self._no_answer(talk, reply)
            reply.take(line)
        return reply.answer

    def _no_answer(self, talk: Conversation, reply: Reply) -> Exception:
        status = talk.exit_status()
        if status is None and not talk.lost and talk.refused:
            return StepFailed(f"{talk.where}: its SSH server refuses to run commands", remedy=talk.by_hand)
        if status == NOT_INSTALLED and reply.fields:
            return StepFailed(f"{talk.where}: its answer broke off{_said(talk)}", remedy=talk.by_hand)
        return self._ended(talk, status)

    def _ended(self, talk: Conversation, status: int | None) -> Exception:
        if status == NOT_INSTALLED:
            return _NotInstalled()
        if status is None:
            words = talk.cut or ("the connection broke" if talk.lost else "the command was killed")
            return Unreachable(f"{talk.where}: {words}{_said(talk)}", remedy=talk.by_hand)
        return StepFailed(f"{talk.where}: the command ended with {status}{_said(talk)}", remedy=talk.by_hand)

    def _installed(self, program: Program, ask: Callable[[], T]) -> T:
        """Ask; when the program is not there, install it and ask again."""
        try:
            return ask()
        except _NotInstalled:
            self._install(program)
        try:
            return ask()
        except _NotInstalled:
            raise StepFailed(
                f"{self._target.name}: host.sh was installed under {self._target.path}/.rollout and is gone again",
                remedy="does something clean that folder?",
            ) from None

    def _install(self, program: Program) -> None:
        with self._talk(program.install(self._target.path)) as talk:
            talk.send(program.text.encode())
            talk.end_input()
            crashpoints.reach("mid-install")
            output = talk.everything()
            status = talk.exit_status()
            if status == 0 and b"installed=yes" in output:
                return
            raise self._not_installed(talk, status)

    def _not_installed(self, talk: Conversation, status: int | None) -> HostError:
        words = (
            f"{talk.where}: host.sh could not be installed under {self._target.path}/.rollout{_said(talk)}"
        )
        if status is None:
            return Unreachable(words, remedy=talk.by_hand)
        if any(hint in talk.said() for hint in _NO_ROOM):
            return NoSpace(
                words, remedy=f"make room and let {self._target.user} write to {self._target.path}"
            )
        return StepFailed(words, remedy=talk.by_hand)


@contextlib.contextmanager
def _unknown() -> Iterator[None]:
    """From here on the host may have acted, so no answer is no knowledge."""
    try:
        yield
    except (Unreachable, StepFailed) as exc:
        raise OutcomeUnknown(str(exc), remedy="read the host: rollout hosts --verify") from exc


def _said(talk: Conversation) -> str:
    said = talk.said()
    return f"; it said: {said}" if said else ""
