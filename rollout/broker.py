"""Kombu's Redis transport, with one client for each channel: it makes one for each message otherwise, an eighth of a worker's time."""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


class Channel(redis.Channel):
    """Sends over one client, which takes a connection from the pool for each command, as the many did."""

    _shared: Any = None

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
