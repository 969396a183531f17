"""The threads beside a worker's tasks, on the monotonic clock: the reconciler, the watch over stops, the outbox."""

import threading
from collections.abc import Callable

import structlog

from rollout.errors import RolloutError
from rollout.services import editions, reconcile
from rollout.services.perform import HereAndNow
from rollout.services.ports import Deps
from workers import drivers, memory

log = structlog.get_logger()
OUTBOX_S = 1.0
POLL_S = 1.0  # how often is asked whether a poll is due
TIDY_S = 60.0
HEAL_S = 60.0  # for it the database reads every row of every host, and hardly ever finds one
MEMORY_S = 30.0
LOCAL_THREADS = 8


class Background:
    """Started with the worker, stopped with it. A round that fails is logged and comes again."""

    def __init__(self, deps: Deps, *, holds_connections: bool) -> None:
        self._deps = deps
        self._ended = threading.Event()
        here = HereAndNow(deps, LOCAL_THREADS) if holds_connections else None
        nexts = drivers.nexts(here)
        rounds: list[tuple[str, float, Callable[[], None]]] = [
            ("sweep", deps.settings.reconcile_s, lambda: reconcile.sweep(deps, here, nexts)),
        ]
        if holds_connections:
            drive = drivers.stops()
            rounds.append(("watch", deps.settings.gate_s, lambda: reconcile.watch(deps, here, drive)))
            rounds.append(("memory", MEMORY_S, memory.give_back))
            rounds.append(
                ("edition", editions.TOLD_EVERY_S, lambda: editions.tell_astray("hosts worker", deps))
            )
        else:
            rounds.append(("poll", POLL_S, lambda: drivers.poll_all(deps)))
            rounds.append(("tell", OUTBOX_S, lambda: reconcile.tell(deps)))
            rounds.append(("heal", HEAL_S, lambda: reconcile.heal(deps)))
            rounds.append(("tidy", TIDY_S, lambda: reconcile.tidy(deps)))
            rounds.append(("edition", editions.TOLD_EVERY_S, lambda: editions.tell(deps)))
            self._go("edition", lambda: editions.tell(deps, begins=True))
        for name, every_s, work in rounds:
            threading.Thread(
                target=self._go_round, args=(name, every_s, work), name=name, daemon=True
            ).start()

    def stop(self) -> None:
        """No further round begins."""
        self._ended.set()
        self._deps.fleet.close()

    def _go_round(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        while not self._ended.wait(every_s):
            self._go(name, work)

    @staticmethod
    def _go(name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except RolloutError as error:
            log.warning("round_failed", round=name, error=str(error))
        except Exception:  # a round that dies would take the promise of I8 with it
            log.exception("round_broke", round=name)
