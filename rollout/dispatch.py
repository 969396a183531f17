"""The one module outside `workers` that knows Celery: it sends the names of tasks, and revokes by stamp."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import structlog
from celery import Celery, chain
from celery.canvas import Signature
from celery.utils import uuid
from celery.worker import state
from kombu.exceptions import KombuError, LimitExceeded, OperationalError
from redis.exceptions import RedisError

from rollout import broker, crashpoints
from rollout.domain.pipeline import CONTROL, HOSTS, QUEUES, TESTS, Ring

log = structlog.get_logger()
STAMP = "rollout"  # on every task of a rollout, for people
REVOCABLE = "revocable"  # on those that a stop drops
_BROKER_TROUBLE = (OperationalError, KombuError, RedisError, OSError)
ANSWER_S = 2  # who asks the broker has a host under way, or a stop
SLOW_S = 0.5  # a refusal comes at once
SILENT_S = 5.0
COUNTED_S = 0.25  # forty hosts under way ask who waits; to count them is ten questions


def celery_app(broker_url: str) -> Celery:
    """The Celery application, the same in every process: workers, web, command line."""
    broker.use()
    app = Celery("rollout", broker=broker_url, set_as_current=True)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_routes={name: {"queue": queue} for name, queue in QUEUES.items()},
        task_queues={name: {"exchange": name, "routing_key": name} for name in (CONTROL, TESTS, HOSTS)},
        task_default_queue=CONTROL,
        task_create_missing_queues=False,
        # Prefetch 1 and late acknowledgement: only so can a queued task be revoked on the threads pool.
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the reconciler rings again; a requeued message would only be a second ring
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "priority_steps": list(range(10)),
            "socket_keepalive": True,
            "socket_timeout": ANSWER_S,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
            # A message is a hint: kombu would try for six seconds to send one, while a stop waits for it.
            "max_retries": 1,
            "interval_start": 0.1,
        },
        broker_pool_acquire_timeout=ANSWER_S,
        task_default_priority=5,
        control_queue_ttl=300,
        control_queue_expires=600,
        event_queue_ttl=60,
        event_queue_expires=300,
        enable_utc=True,
        timezone="UTC",
    )
    return app


class Silence:
    """A broker that stands still: it is waited for once, and left alone for a while; then one asks whether it answers again."""

    def __init__(self) -> None:
        self._until = self._found = 0.0

    def lasts(self) -> bool:
        """It said nothing a moment ago, or somebody asks it just now: do without."""
        now = time.monotonic()
        if self._until and now >= self._until:
            self._until = now + SILENT_S
            return False
        return bool(self._until)

    @contextlib.contextmanager
    def heeded(self, producers: AbstractContextManager[Any]) -> Iterator[Any]:
        """Around each question, with one of these producers; not asked by who waited for his behind those that heard nothing."""
        began = time.monotonic()
        try:
            with producers as producer:
                if self._found > began:
                    raise TimeoutError("others heard nothing from the broker")
                yield producer
        except LimitExceeded:  # all are in use: of the broker that says nothing
            raise
        except _BROKER_TROUBLE:
            now = time.monotonic()
            silent = now - began > SLOW_S
            self._found = now if silent else self._found
            self._until = now + SILENT_S if silent else 0.0
            raise
        self._until = 0.0


class CeleryBell:
    """Sends messages over the broker. It never raises: a message is a hint, and the reconciler rings again."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._silence = Silence()
        self.waiting, self._heard = 0, True
        self._counting, self._counted_at = threading.Lock(), -COUNTED_S

    def ring(self, rings: Sequence[Ring]) -> bool:
        """Send them over one connection; False when the broker does not answer."""
        if not rings:
            return True
        if self._silence.lasts():
            return False
        crashpoints.reach("before-ring")
        try:
            with self._silence.heeded(self._app.producer_or_acquire()) as producer:
                for ring in rings:
                    self._send(ring, producer)
                    if ring is not rings[-1]:
                        crashpoints.reach("mid-ring")
        except _BROKER_TROUBLE as error:
            log.warning("bell_did_not_ring", messages=len(rings), error=type(error).__name__)
            return False
        crashpoints.reach("after-ring")
        return True

    def revoke(self, rollout: int) -> bool:
        """Tell every worker to drop the rollout's queued tasks; not its roll-backs."""
        if self._silence.lasts():
            return False
        try:
            with self._silence.heeded(contextlib.nullcontext()):
                self._app.control.revoke_by_stamped_headers({REVOCABLE: [str(rollout)]})
        except _BROKER_TROUBLE as error:
            log.warning("revoke_not_sent", rollout=rollout, error=type(error).__name__)
            return False
        return True

    def alive(self) -> bool:
        """The broker answers."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=2)
        except _BROKER_TROUBLE:
            return False
        return True

    def crowded(self) -> bool:
        """Messages for hosts wait in the broker, or for a thread of this worker (those whose time had to come), or TERM came.

        Also when nobody can tell: whoever does without messages has few threads, and the watch over a fan-out is among what waits for one.
        """
        ends = state.should_stop is not None and state.should_stop is not False  # 0 means that it does
        return (
            ends
            or len(state.reserved_requests) > len(state.active_requests)
            or self.count() > 0
            or not self._heard
        )

    def count(self) -> int:
        """`waiting`, counted anew unless nobody waited a moment ago. One asks; for whoever comes meanwhile nobody waits.

        One row ends for who waits: were all to end that hear of one message, each would ring for one more.
        """
        is_old = self.waiting > 0 or time.monotonic() >= self._counted_at + COUNTED_S
        if not is_old or not self._counting.acquire(blocking=False):
            return 0
        try:
            counted = self._count()
            self.waiting, self._heard = counted or 0, counted is not None
            self._counted_at = time.monotonic()
        finally:
            self._counting.release()
        return self.waiting

    def _count(self) -> int | None:
        if self._silence.lasts():
            return None
        try:
            with self._silence.heeded(self._app.producer_or_acquire()) as producer:
                return int(producer.channel.queue_declare(HOSTS).message_count)
        except _BROKER_TROUBLE:
            return None

    def _send(self, ring: Ring, producer: Any) -> None:
        if ring.then:
            parts = [self._signature(name, ring) for name in (ring.task, *ring.then)]
            chain(*parts).apply_async(producer=producer, retry=False, ignore_result=True)
            return
        # As `apply_async` would, without what it has to find out each time, which is half of a message's cost.
        amqp, its, stamps = self._app.amqp, self._app.current_worker_task, _stamps(ring)
        message = amqp.create_task_message(
            uuid(),
            ring.task,
            ring.arguments,
            argsrepr=repr(ring.arguments),
            kwargsrepr="{}",
            root_id=its and its.request.root_id,
            parent_id=its and its.request.id,
            ignore_result=True,
            stamped_headers=sorted(stamps),
            **stamps,
        )
        amqp.send_task_message(
            producer, ring.task, message, queue=QUEUES[ring.task], priority=ring.priority, retry=False
        )

    def _signature(self, name: str, ring: Ring) -> Signature:
        signature = self._app.signature(
            name, args=ring.arguments, immutable=True, queue=QUEUES[name], priority=ring.priority
        )
        if stamps := _stamps(ring):
            signature.stamp(**stamps)
        return signature


def _stamps(ring: Ring) -> dict[str, str]:
    """What workers revoke by, and people see; of each task of a chain."""
    if ring.rollout is None:
        return {}
    return dict.fromkeys((REVOCABLE, STAMP) if ring.revocable else (STAMP,), str(ring.rollout))
