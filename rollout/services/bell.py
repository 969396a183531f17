"""A bell that nobody waits for: messages are sent by a thread of its own.

They are hints, so what finds no room is dropped; the reconciler rings again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Full, Queue
from threading import Thread

import structlog

from rollout import crashpoints
from rollout.domain.pipeline import Ring
from rollout.errors import RolloutError
from rollout.services.ports import Bell, Deps

log = structlog.get_logger()
MOST_WAITING = 1000
SOON_S = 0.5  # a broker that stands still would keep a host's outcome from being known


def ring(rings: Sequence[Ring], deps: Deps) -> None:
    """Ring for rows that were marked for it; who cannot be heard leaves them due, for a hosts worker that does without messages."""
    if not rings or deps.bell.ring(rings):
        return
    hosts = [one.host for one in rings if one.host is not None]
    rollouts = {one.rollout for one in rings if one.rollout is not None}
    try:
        with deps.store.transaction() as tx:
            for rollout in sorted(rollouts):  # before its hosts' rows, as everybody has them
                tx.rollouts.not_rung(rollout)
            tx.hosts.not_rung(hosts)
    except RolloutError as error:  # as late as before: a message is a hint, and who rings has more to do
        log.warning("not_rung_not_said", rollouts=sorted(rollouts), error=str(error))


class BackgroundBell:
    """`services.ports.Bell`; True means handed over, not sent."""

    def __init__(self, bell: Bell, name: str) -> None:
        self._bell = bell
        self._waiting: Queue[Callable[[], bool] | None] = Queue(MOST_WAITING)
        self._thread = Thread(target=self._serve, name=f"bell-{name}", daemon=True)
        self._thread.start()

    def ring(self, rings: Sequence[Ring]) -> bool:
        """Hand them over; False when too many wait already."""
        return not rings or self._hand_over(crashpoints.carried(partial(self._bell.ring, list(rings))))

    def revoke(self, rollout: int) -> bool:
        """Hand it over; False when too many wait already."""
        return self._hand_over(crashpoints.carried(partial(self._bell.revoke, rollout)))

    def alive(self) -> bool:
        """The broker answers; this one is waited for."""
        return self._bell.alive()

    waiting = 0  # who rings here looks at a few rows, for a person

    def count(self) -> int:
        """Not asked."""
        return self.waiting

    def crowded(self) -> bool:
        """As the bell says, if it does so soon; else somebody may wait. Who asks has a host to report, whose lease nobody renews."""
        answer: Future[bool] = Future()

        def ask() -> bool:
            if answer.set_running_or_notify_cancel():
                answer.set_result(self._bell.crowded())
            return True

        if not self._hand_over(ask):
            return True
        try:
            return answer.result(SOON_S)
        except TimeoutError:
            answer.cancel()
            return True

    def close(self, within_s: float = 2.0) -> None:
        """Send what waits, for so long; the thread is a daemon and holds nobody up."""
        if self._hand_over(None):
            self._thread.join(within_s)

    def _hand_over(self, work: Callable[[], bool] | None) -> bool:
        try:
            self._waiting.put_nowait(work)
        except Full:
            log.warning("bell_dropped", waiting=MOST_WAITING)
            return False
        return True

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("bell_broke")  # the thread goes on: the next message may be sent
