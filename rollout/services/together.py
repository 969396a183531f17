"""What many threads want to write about one rollout at once, written as one: most of what a report costs is its transaction.

Whoever comes while nobody writes does so at once, for himself; whoever comes meanwhile is written by the next one, with all
others who came (decision 0020). While there is such company, the next one waits for more of it, if its kind may wait. A thread
returns when what it brought is committed, as ever.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()
T = TypeVar("T")
R = TypeVar("R")
MOST = 64  # at once: others want the rows too
ENOUGH = 12  # nobody waits for more: what the transaction costs is shared then
KEPT = 64  # keys, of whose last group is known when it began


class Part:
    """One thread's, until somebody has written it, or it is the thread's own turn, or enough have come while it rests."""

    def __init__(self, item: Any) -> None:
        self.item = item
        self.result: Any = None
        self.written = False
        self.leads = False
        self._come = threading.Lock()
        self._come.acquire()

    def has_come(self, *, wait: bool = True) -> bool:
        """One of them is so; or neither, when it could not be written together with others."""
        return self._come.acquire(blocking=wait)

    def rest(self, seconds: float) -> None:
        """Until its thread may go on, for so long at most."""
        self._come.acquire(timeout=seconds)

    def come(self) -> None:
        """Let its thread go on."""
        self._come.release()


class Together:
    """Of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[Part]] = {}  # those that somebody writes for now
        self._resting: dict[Hashable, Part] = {}  # who lets others come
        # When their last group began, if it was one of several.
        self._company: OrderedDict[Hashable, float] = OrderedDict()

    def do(
        self,
        key: Hashable,
        item: T,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        every_s: float = 0.0,
        most: int = MOST,
    ) -> R:
        """What `work` makes of this, called with some whose key is the same; for this one alone when it fails for several.

        `work` is the same for everyone with this key, and it does all or nothing. After several at once the next ones are
        begun `every_s` later, or when they are enough, so that they are several too: under load most of the cost is theirs
        together. At most `most` at once: 1 of what only has its turn.
        """
        mine = Part(item)
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(mine)
                self._wake(key)
            else:
                self._waiting[key] = deque()
                mine.leads = True
        if not mine.leads:
            try:
                self.wait(mine)
            except BaseException:  # Ctrl-C
                self._gave_up(key, mine)
                raise
        if mine.leads:
            self._lead(key, mine, work, every_s, most)
        return mine.result if mine.written else work([item])[0]

    def wait(self, part: Part) -> None:
        """Until its time has come."""
        part.has_come()

    def now(self) -> float:
        """Seconds of a clock that is never set."""
        return time.monotonic()

    def rest(self, part: Part, seconds: float) -> None:
        """Let others come, for so long, or until they are enough."""
        part.rest(seconds)

    def _lead(
        self,
        key: Hashable,
        mine: Part,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        every_s: float,
        most: int,
    ) -> None:
        others: list[Part] = []
        try:
            self._let_come(key, mine, every_s)
            with self._lock:
                waiting = self._waiting[key]
                others += (waiting.popleft() for _ in range(min(len(waiting), most - 1)))
                self._company.pop(key, None)
                if others:
                    self._company[key] = self.now()
                    if len(self._company) > KEPT:
                        self._company.popitem(last=False)
            parts = [mine, *others]
            for part, result in zip(parts, work([part.item for part in parts]), strict=True):
                part.result, part.written = result, True
        except Exception as error:
            if not others:
                raise
            log.info("not_written_together", many=len(others) + 1, error=str(error))
        finally:
            self._hand_on(key)
            for part in others:
                part.come()

    def _let_come(self, key: Hashable, mine: Part, every_s: float) -> None:
        with self._lock:
            began = self._company.get(key)
            left = 0.0 if began is None else began + every_s - self.now()
            if left <= 0 or len(self._waiting[key]) + 1 >= ENOUGH:
                return
            self._resting[key] = mine
        try:
            self.rest(mine, left)
        finally:
            with self._lock:
                self._resting.pop(key, None)

    def _wake(self, key: Hashable) -> None:
        if key in self._resting and len(self._waiting[key]) + 1 >= ENOUGH:
            self._resting.pop(key).come()

    def _gave_up(self, key: Hashable, mine: Part) -> None:
        with self._lock:
            waits = mine in self._waiting.get(key, ())
            if waits:
                self._waiting[key].remove(mine)
        if mine.leads:  # its turn came in the very last moment
            self._hand_on(key)

    def _hand_on(self, key: Hashable) -> None:
        with self._lock:
            waiting = self._waiting[key]
            if not waiting:
                del self._waiting[key]
                return
            following = waiting.popleft()
            following.leads = True
        following.come()
