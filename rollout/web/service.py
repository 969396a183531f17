"""What the handlers share: the services' dependencies, the lanes, the limits."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from rollout.services.bell import BackgroundBell
from rollout.services.intake import Received
from rollout.services.ports import Deps
from rollout.store.store import Transaction
from rollout.web import arrivals
from rollout.web.arrivals import Arrival
from rollout.web.body import Bodies
from rollout.web.lanes import Lane
from rollout.web.together import Together

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much."""

    body_s: float = 10.0  # until a body has arrived
    answer_s: float = 8.0  # GitHub waits for 10 s
    gather_s: float = 0.005  # webhooks that come within so long are stored together
    order_s: float = 25.0  # longer than the store waits for a lock: a stop that gets through says so
    probe_s: float = 2.0
    fresh_s: float = 1.0  # health and metrics, which anybody may ask for, are looked up once in so long
    bodies_in_all: int = 64_000_000


class Service:
    """One for the process. Orders have threads and a bell of their own: a crowd of webhooks is not in their way."""

    def __init__(self, deps: Deps, limits: Limits) -> None:
        self.deps = deps
        self.limits = limits
        self.bodies = Bodies(within_s=limits.body_s, in_all=limits.bodies_in_all)
        self.bells = Bells(BackgroundBell(deps.bell, "webhooks"), BackgroundBell(deps.bell, "orders"))
        self.for_webhooks = replace(deps, bell=self.bells.webhooks)
        self.for_orders = replace(deps, bell=self.bells.orders)
        self.lanes = Lanes(
            webhooks=Together(
                "webhooks",
                partial(arrivals.store, deps=self.for_webhooks),
                gather_s=limits.gather_s,
                most=50,
                waiting=200,
                within_s=limits.answer_s,
            ),
            reads=Lane("reads", threads=4, waiting=60, within_s=limits.answer_s),
            orders=Lane("orders", threads=4, waiting=30, within_s=limits.order_s),
            metrics=Lane("metrics", threads=1, waiting=1, within_s=limits.answer_s),
            store=Lane("store", threads=1, waiting=1, within_s=limits.probe_s),
            broker=Lane("broker", threads=1, waiting=1, within_s=limits.probe_s),
        )

    async def read(self, look: Callable[[Transaction], T]) -> T:
        """What `look` finds in one reading transaction."""

        def work() -> T:
            with self.deps.store.reading() as tx:
                return look(tx)

        return await self.lanes.reads.run(work)

    def close(self) -> None:
        """Let the bells ring out, and begin nothing more."""
        self.bells.webhooks.close()
        self.bells.orders.close()
        self.lanes.close()


@dataclass(frozen=True, slots=True)
class Bells:
    """Who sends the messages of what."""

    webhooks: BackgroundBell
    orders: BackgroundBell


@dataclass(frozen=True, slots=True)
class Lanes:
    """Who waits where."""

    webhooks: Together[Arrival, Received]
    reads: Lane
    orders: Lane
    metrics: Lane
    store: Lane
    broker: Lane
    _all: tuple[str, ...] = field(
        default=("webhooks", "reads", "orders", "metrics", "store", "broker"), repr=False
    )

    def close(self) -> None:
        """Begin nothing more in any of them."""
        for name in self._all:
            getattr(self, name).close()
