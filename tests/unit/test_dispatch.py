"""What a message looks like on its way, read back from a broker in memory."""

import contextlib
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
from kombu.exceptions import LimitExceeded

from rollout import dispatch
from rollout.dispatch import CeleryBell, celery_app
from rollout.domain import pipeline
from rollout.domain.pipeline import HOSTS, QUEUES, Ring

BY_CHANCE = ("id", "root_id")


@pytest.fixture
def bell():
    return CeleryBell(celery_app("memory://"))


def of_celery(bell, ring):
    """The same ring as Celery's own signatures send it."""
    bell._signature(ring.task, ring).apply_async(retry=False, ignore_result=True)


def messages(bell, queue):
    with bell._app.connection_for_read() as connection:
        channel = connection.default_channel
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            yield message


def taken(bell, queue):
    found = []
    for message in messages(bell, queue):
        uuid.UUID(message.headers["id"])
        headers = {name: value for name, value in message.headers.items() if name not in BY_CHANCE}
        headers["stamped_headers"] = sorted(headers["stamped_headers"] or [])
        found.append((headers, message.decode(), message.properties["priority"], message.content_type))
    return found


@pytest.mark.parametrize(
    "ring",
    [
        Ring(pipeline.DEPLOY_HOST, (7, 3, "web3"), 7),
        Ring(pipeline.ROLL_BACK_HOST, (7, 3, "web3"), 7, revocable=False, priority=0),
        pipeline.count_outcome(7),
        Ring(pipeline.RUN_TESTS, (12,)),
        pipeline.sweep(),
    ],
)
def test_a_message_is_the_one_that_celery_would_send(bell, ring):
    """What is put together here differs in nothing but its number from what `apply_async` sends: queue, arguments, stamps, priority."""
    queue = QUEUES[ring.task]
    of_celery(bell, ring)
    theirs = taken(bell, queue)
    assert bell.ring([ring])
    assert len(theirs) == 1
    assert taken(bell, queue) == theirs


def test_every_message_is_a_task_of_its_own(bell):
    """Two messages for the same row have two numbers: workers that were told to drop the one run the other."""
    ring = Ring(pipeline.DEPLOY_HOST, (7, 3, "web3"), 7)
    assert bell.ring([ring, replace(ring)])
    assert len({message.headers["id"] for message in messages(bell, HOSTS)}) == 2


class Standing:
    """A broker that accepts and never answers: each question costs its seconds, on a clock of its own."""

    def __init__(self, bell, monkeypatch):
        self.now, self.asked, self.answers, self.messages, self._bell = 100.0, 0, False, 0, bell
        monkeypatch.setattr(dispatch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(bell._app, "producer_or_acquire", self._acquire)
        monkeypatch.setattr(bell._app.control, "revoke_by_stamped_headers", lambda _: self._answer())
        monkeypatch.setattr(bell, "_send", lambda _ring, _producer: self._answer())

    def while_waiting(self):
        """What others do while one waits for a producer."""

    def while_asked(self):
        """What others do while one waits for an answer."""

    @contextlib.contextmanager
    def _acquire(self):
        waits, self.while_waiting = self.while_waiting, lambda: None
        waits()
        yield SimpleNamespace(channel=SimpleNamespace(queue_declare=lambda _: self._answer()))

    def _answer(self):
        self.asked += 1
        self.while_asked()
        if not self.answers:
            self.now += dispatch.ANSWER_S
            raise TimeoutError("Timeout reading from socket")
        return SimpleNamespace(message_count=self.messages)


def test_a_broker_that_stands_still_is_waited_for_once_and_asked_again_by_one(bell, monkeypatch):
    """Whoever has a host under way does without it meanwhile: forty of them wait for one answer, not each for his own."""
    broker = Standing(bell, monkeypatch)
    rings = [Ring(pipeline.RUN_TESTS, (12,))]
    assert not bell.ring(rings)
    assert (bell.ring(rings), bell.revoke(7), bell.crowded(), broker.asked) == (False, False, True, 1)
    broker.now += dispatch.SILENT_S
    assert (bell.crowded(), bell.ring(rings), broker.asked) == (True, False, 2)
    broker.now += dispatch.SILENT_S
    broker.answers, broker.messages = True, 3
    assert (bell.crowded(), broker.asked) == (True, 3)
    broker.now, broker.messages = broker.now + dispatch.COUNTED_S, 0
    assert (bell.crowded(), broker.asked) == (False, 4)


def test_who_waits_is_counted_once_for_all_that_ask_together(bell, monkeypatch):
    """Forty hosts that end together cost the broker one count; a moment later it is counted anew."""
    broker = Standing(bell, monkeypatch)
    broker.answers = True
    assert ([bell.crowded() for _ in range(40)], broker.asked) == ([False] * 40, 1)
    broker.now, broker.messages = broker.now + dispatch.COUNTED_S, 7
    assert (bell.crowded(), bell.waiting, broker.asked) == (True, 7, 2)


def test_that_somebody_waits_is_not_believed_for_longer_than_it_is_so(bell, monkeypatch):
    """A row that ends for it rings for the next one, and forty rows that believed in the same message would ring for forty."""
    broker = Standing(bell, monkeypatch)
    broker.answers, broker.messages = True, 1
    assert bell.crowded()
    broker.messages = 0
    assert not bell.crowded()


def test_who_comes_while_one_counts_goes_on(bell, monkeypatch):
    """A broker that is slow to answer keeps one host's outcome from being reported, not forty; and one row ends for who waits."""
    broker = Standing(bell, monkeypatch)
    broker.answers, broker.messages, seen = True, 7, []
    monkeypatch.setattr(broker, "while_asked", lambda: seen.append(bell.crowded()))
    assert [bell.crowded() for _ in range(2)] == [True, True]
    assert (seen, broker.asked) == ([False, False], 2)


def test_who_waited_behind_those_that_heard_nothing_does_not_ask_as_well(bell, monkeypatch):
    """The producers are few: thirty threads behind ten that wait two seconds would each wait two seconds more."""
    broker = Standing(bell, monkeypatch)
    rings = [Ring(pipeline.RUN_TESTS, (12,))]
    monkeypatch.setattr(broker, "while_waiting", lambda: bell.ring(rings))
    assert not bell.ring(rings)
    assert broker.asked == 1


def test_a_pool_that_has_no_producer_left_is_not_the_brokers_silence(bell, monkeypatch):
    """Two hundred hosts at once may want more producers than there are; what is rung next is sent."""
    broker = Standing(bell, monkeypatch)
    broker.answers = True

    def none_left():
        broker.now += dispatch.ANSWER_S
        raise LimitExceeded(10)

    monkeypatch.setattr(broker, "while_waiting", none_left)
    rings = [Ring(pipeline.RUN_TESTS, (12,))]
    assert not bell.ring(rings)
    monkeypatch.setattr(broker, "while_waiting", lambda: None)
    assert (bell.crowded(), broker.asked) == (False, 1)


def test_a_broker_that_refuses_is_asked_each_time(bell, monkeypatch):
    """That costs nothing, and the first message after its restart is sent."""
    broker = Standing(bell, monkeypatch)
    monkeypatch.setattr(dispatch, "ANSWER_S", 0)
    rings = [Ring(pipeline.RUN_TESTS, (12,))]
    assert (bell.ring(rings), bell.ring(rings), broker.asked) == (False, False, 2)
