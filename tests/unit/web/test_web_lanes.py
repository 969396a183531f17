"""Threads in lanes, values that stay fresh, and a bell that nobody waits for."""

import asyncio
from threading import Event

import pytest

from rollout.errors import NotFound, ServiceUnavailable
from rollout.services import bell as bells
from rollout.services.bell import BackgroundBell
from rollout.web.errors import Busy
from rollout.web.fresh import Fresh
from rollout.web.lanes import Lane
from tests.support.processes import until


@pytest.fixture
def end():
    """Ends all work that waits for it."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def lane():
    """Two threads, room for one more."""
    lane = Lane("test", threads=2, waiting=1, within_s=0.2)
    yield lane
    lane.close()


def test_work_returns_and_raises():
    """What the work returns is the answer; what it raises is raised."""

    def refuse():
        raise NotFound("nothing")

    lane = Lane("test", threads=1, waiting=0, within_s=60)
    assert asyncio.run(lane.run(lambda: 7)) == 7
    with pytest.raises(NotFound):
        asyncio.run(lane.run(refuse))
    lane.close()


def test_work_that_takes_too_long_is_given_up(lane, end):
    """ServiceUnavailable in time, whatever the thread does."""
    with pytest.raises(ServiceUnavailable):
        asyncio.run(lane.run(lambda: end.wait(20)))


def test_a_full_lane_says_so_and_has_room_again(lane, end):
    """Room is counted by what threads do, not by who still waits; when they are done, there is room again."""

    async def crowd():
        return await asyncio.gather(
            *(lane.run(lambda: end.wait(20)) for _ in range(4)), return_exceptions=True
        )

    kinds = [type(one) for one in asyncio.run(crowd())]
    assert kinds.count(Busy) == 1
    assert kinds.count(ServiceUnavailable) == 3
    with pytest.raises(ServiceUnavailable):  # both threads still hang
        asyncio.run(lane.run(lambda: 7))
    end.set()

    def answers():
        try:
            return asyncio.run(lane.run(lambda: 7)) == 7
        except ServiceUnavailable:
            return False

    until(answers, what="room")


def test_a_value_is_looked_up_once_for_many():
    """Everybody who asks at once gets the one answer; an error is not kept."""
    looked = []

    async def look():
        looked.append(1)
        await asyncio.sleep(0)
        if len(looked) == 1:
            raise NotFound("first")
        return len(looked)

    async def ask():
        fresh = Fresh(look, 60)
        with pytest.raises(NotFound):
            await fresh.get()
        return await asyncio.gather(*(fresh.get() for _ in range(20)))

    assert set(asyncio.run(ask())) == {2}


class SlowBell:
    """Rings when it may."""

    def __init__(self, end):
        self.end, self.rung, self.revoked = end, [], []

    def ring(self, rings):
        self.end.wait(20)
        self.rung += rings
        return True

    def revoke(self, rollout):
        self.revoked.append(rollout)
        return True

    def alive(self):
        return True


def test_a_bell_hands_over_in_order_and_rings_out_at_the_end(end):
    """Nothing that was handed over is lost when the service ends while the broker answers."""
    slow = SlowBell(end)
    bell = BackgroundBell(slow, "test")
    assert bell.ring([])
    assert bell.ring(["one"])
    assert bell.revoke(7)
    assert bell.ring(["two"])
    assert slow.rung == []
    end.set()
    bell.close()
    assert slow.rung == ["one", "two"]
    assert slow.revoked == [7]


def test_a_bell_that_is_not_heard_keeps_so_many_and_no_more(monkeypatch, end):
    """Memory is bounded: what finds no room is dropped, and the caller learns of it."""
    monkeypatch.setattr(bells, "MOST_WAITING", 3)
    bell = BackgroundBell(SlowBell(end), "test")
    answers = [bell.ring([number]) for number in range(10)]
    assert answers.count(True) in {3, 4}  # one may be in the thread's hands already
    assert answers[-1] is False
    bell.close(0.01)
