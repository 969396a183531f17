"""What a message looks like on its way, read back from a broker in memory."""

import uuid
from dataclasses import replace

import pytest

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
