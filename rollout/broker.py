"""Kombu's Redis transport without what our messages do not need: they are hints, and the rows are the truth.

As it comes it makes a client for each message, and writes each one that is under way into Redis and out again, so that
another worker gets it an hour after its own has died. The reconciler rings within seconds. Both cost a third of a worker's time.
"""

from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis, virtual

log = structlog.get_logger()


class UnderWay(virtual.QoS):
    """Messages under way are known to their worker alone, which puts them back when it ends and has the broker."""

    def restore_unacked(self) -> None:
        """Without a broker they are gone: kombu would write them into a file that nobody reads."""
        failed = super().restore_unacked()  # type: ignore[no-untyped-call]
        if failed:
            log.info("messages_not_put_back", messages=len(failed), error=str(failed[0][0]))


class Channel(redis.Channel):
    """Sends over one client, which takes a connection from the pool for each command, as the many did."""

    ack_emulation = False
    _shared: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.QoS = UnderWay  # type: ignore[assignment]

    def _create_client(self, asynchronous: bool = False) -> Any:  # kombu's signature
        if asynchronous:  # these are told apart by their connections
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._shared is None or self._shared.connection_pool is not self.pool:
            self._shared = super()._create_client()  # type: ignore[no-untyped-call]
        return self._shared


class Transport(redis.Transport):
    """What `redis://`, `rediss://` and `redis+socket://` mean in our processes, once `use` was called."""

    Channel = Channel


def use() -> None:
    """From now on, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
