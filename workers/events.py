"""Task events, which Flower shows, are sent twice a second: each by itself they were a sixth of a worker's time."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

EVERY_S = 0.5


class EventsInBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """Replaces the sending at once by a timer; a batch that is full (24) goes when it is."""

    requires = (Events,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """The connection is up, and with it the dispatcher of events."""
        if consumer.hub is not None and consumer.event_dispatcher is not None:
            consumer.event_dispatcher.on_send_buffered = None
            self._timer = consumer.hub.call_repeatedly(EVERY_S, consumer.event_dispatcher.flush)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002
        """The connection is gone; the next one has a dispatcher of its own."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
