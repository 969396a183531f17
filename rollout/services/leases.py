"""Leases are renewed beside the work: one thread a process, many rows in one statement."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog

from rollout import crashpoints
from rollout.domain.model import AppName, CommitId, HostId
from rollout.errors import RolloutError
from rollout.store.store import Store

log = structlog.get_logger()
Kind = Literal["commit", "host", "poll"]


class LeaseKeeper:
    """Renews what is held every third of a lease. A row that was taken over is not renewed: its guard fails."""

    def __init__(self, store: Store, owner: str, lease_s: float) -> None:
        self._store, self._owner, self._lease_s = store, owner, lease_s
        # Counted: a rollback may begin on a host before the activation that it ends has let go of it.
        self._held: dict[Kind, Counter[Any]] = {"commit": Counter(), "host": Counter(), "poll": Counter()}
        # Hosts whose order has made its switch, and the version of its claim.
        self._switched: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    @contextmanager
    def hold(self, kind: Kind, row: int | AppName) -> Iterator[None]:
        """Renew this row's lease, or an app's claim of its poll, until the end of the block."""
        with self._lock:
            self._held[kind][row] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held[kind] -= Counter([row])
                if kind == "host":
                    self._switched.pop(row, None)

    def passed(self, host: HostId, version: int) -> None:
        """The host says that it has switched by the order that this claim was for: it will not do so again."""
        with self._lock:
            self._switched[host] = version

    def switched(self) -> dict[HostId, int]:
        """Hosts with an order under way whose switch is behind them, and the versions of its claims."""
        with self._lock:
            return {HostId(host): version for host, version in self._switched.items()}

    def renew(self) -> None:
        """Every lease that is held, once."""
        with self._lock:
            commits, hosts, polls = (list(self._held[kind]) for kind in ("commit", "host", "poll"))
        if not commits and not hosts and not polls:
            return
        crashpoints.reach("before-renewal")
        try:
            with self._store.transaction() as tx:
                if commits:
                    tx.commits.renew(self._owner, [CommitId(row) for row in commits], self._lease_s)
                if hosts:
                    tx.claims.renew(self._owner, [HostId(row) for row in hosts], self._lease_s)
                if polls:
                    tx.apps.hold_polls(sorted(polls))
        except RolloutError as error:
            # The leases run out if this goes on, and then nothing is switched any more: as it must be.
            log.warning(
                "leases_not_renewed",
                error=str(error),
                commits=len(commits),
                hosts=len(hosts),
                polls=len(polls),
            )

    @crashpoints.stage("leases")
    def _keep(self) -> None:
        while not self._wake.wait(self._lease_s / 3):
            try:
                self.renew()
            except Exception:  # a thread that dies would take all leases of this process with it
                log.exception("renewal_broke")
