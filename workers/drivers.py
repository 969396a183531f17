"""Stops of different apps are driven side by side: a silent host of one holds up no other."""

import threading

import structlog

from rollout.domain.model import RolloutId
from rollout.errors import RolloutError
from rollout.services import stopping
from rollout.services.ports import Deps

log = structlog.get_logger()


class SideBySide:
    """Drives a stop in a thread of its own, unless one is at it: as many threads as there are stops, one for an app."""

    def __init__(self) -> None:
        self._driven: set[RolloutId] = set()
        self._lock = threading.Lock()

    def __call__(self, rollout: RolloutId, deps: Deps) -> None:
        """Begin, and come back at once."""
        with self._lock:
            if rollout in self._driven:
                return
            self._driven.add(rollout)
        threading.Thread(
            target=self._drive, args=(rollout, deps), name=f"drive {rollout}", daemon=True
        ).start()

    def _drive(self, rollout: RolloutId, deps: Deps) -> None:
        try:
            stopping.drive(rollout, deps)
        except RolloutError as error:
            log.warning("not_driven", rollout=rollout, error=str(error))
        except Exception:  # it comes again with the next round
            log.exception("drive_broke", rollout=rollout)
        finally:
            with self._lock:
                self._driven.discard(rollout)
