"""Celery's plainest scheduler (it keeps nothing on disk: beat is only one more bell), which does end at TERM."""

from typing import Any

from celery.beat import Scheduler


class Ringer(Scheduler):  # type: ignore[misc]
    """Ends beat after the message in whose middle TERM came.

    Celery ends beat by SystemExit out of the signal's handler. In the middle of a message it closes the connection under
    redis-py first, whose next error then takes the exit's place: beat logged it, and rang on for ever.
    """

    closed = False

    def close(self) -> None:
        """Called by the handler before it raises."""
        self.closed = True
        super().close()

    def tick(self, *args: Any, **options: Any) -> float:
        """Ring what is due; the seconds until the next."""
        wait: float = super().tick(*args, **options)
        if self.closed:
            raise SystemExit
        return wait
