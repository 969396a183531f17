"""Notifications through Apprise. Addresses hold tokens: neither messages, logs nor errors contain them."""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rollout.errors import DeliveryFailed

TIMEOUT_S = 15.0
MOST_AT_ONCE = 8
LONGEST_TITLE, LONGEST_BODY = 200, 4000


@dataclass(frozen=True, slots=True)
class AppriseNotifier:
    """Sends to every address at once, each from a thread that nobody waits for longer than `timeout_s`."""

    timeout_s: float = TIMEOUT_S
    _free: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(MOST_AT_ONCE))

    def send(
        self, urls: Sequence[str], title: str, body: str, *, only: Collection[int] | None = None
    ) -> None:
        """Deliver to every address, or to those with these numbers only; DeliveryFailed says which ones, by number and kind, did not take it."""
        _silence()
        deliveries = {
            number: _Delivery(url, title[:LONGEST_TITLE], body[:LONGEST_BODY])
            for number, url in enumerate(urls, start=1)
            if only is None or number in only
        }
        deadline = time.monotonic() + self.timeout_s
        for delivery in deliveries.values():
            if self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
                threading.Thread(target=delivery.run, args=(self._free,), name="notify", daemon=True).start()
        for delivery in deliveries.values():
            delivery.ended.wait(max(0.0, deadline - time.monotonic()))
        failed = {
            number: f"{number} ({delivery.kind}: {delivery.outcome})"
            for number, delivery in deliveries.items()
            if delivery.outcome
        }
        if failed:
            raise DeliveryFailed(
                f"{len(failed)} of {len(urls)} addresses in notify.urls did not take it: no. {', no. '.join(failed.values())}",
                remedy="try the address with Apprise's own command: apprise -vv -b test ADDRESS",
                numbers=tuple(failed),
            )


@dataclass(slots=True)
class _Delivery:
    """One message to one address."""

    url: str = field(repr=False)
    title: str
    body: str
    outcome: str = "no answer in time"  # "" when it was taken
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> str:
        """What kind of address it is: "slack", "mailto"."""
        scheme, found, _ = self.url.partition("://")
        return scheme[:20] if found else "of no kind"

    def run(self, free: threading.Semaphore) -> None:
        """Deliver, and say how it went."""
        try:
            self.outcome = _deliver(self.url, self.title, self.body)
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything, and its text may hold the address
            self.outcome = type(error).__name__
        finally:
            free.release()
            self.ended.set()


def _deliver(url: str, title: str, body: str) -> str:
    import apprise  # noqa: PLC0415  # takes a second, and most processes never send

    # No limits of Apprise's own: they would move the work into threads that hold the process up at its end.
    asset = apprise.AppriseAsset(app_id="rollout", async_mode=False, service_timeout=0, http_redirects=False)
    sender = apprise.Apprise(asset=asset)
    if not sender.add(url):
        return "not an address that Apprise knows"
    return "" if sender.notify(body=body, title=title) else "refused or not reachable"


def _silence() -> None:
    """Apprise, and what it sends with, log addresses; nobody needs their logs."""
    for name in ("apprise", "urllib3"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.CRITICAL + 1)
