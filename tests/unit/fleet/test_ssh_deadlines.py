"""Deadlines and alarms."""

import threading

from rollout.fleet.deadline import Alarms, Deadline


def test_deadline_never_has_less_than_nothing_left():
    """A deadline that has passed has no time left, not less."""
    past = Deadline.after(-5)
    assert past.passed
    assert past.left() == 0


def test_within_takes_the_sooner():
    """A phase ends with its own limit or with the whole, whichever is sooner."""
    whole = Deadline.after(100)
    assert whole.within(1).at < whole.at
    assert whole.within(1000) == whole


def test_alarms_run_in_the_order_of_their_deadlines():
    """The alarm that is due first runs first, whatever the order they were set in."""
    alarms, ran, done = Alarms(), [], threading.Event()
    base = Deadline.after(0.5)
    alarms.at(base.later(0.03), done.set)
    alarms.at(base.later(0.02), lambda: ran.append("second"))
    alarms.at(base.later(0.01), lambda: ran.append("first"))
    assert done.wait(10)
    alarms.close()
    assert ran == ["first", "second"]


def test_cancelled_alarm_does_not_run():
    """An alarm that was cancelled in time stays silent."""
    alarms, ran, done = Alarms(), [], threading.Event()
    with alarms.at(Deadline.after(1), lambda: ran.append("cancelled")):
        pass
    alarms.at(Deadline.after(1.05), done.set)
    assert done.wait(10)
    alarms.close()
    assert ran == []


def test_cancelled_alarms_do_not_pile_up():
    """Thousands of alarms that were cancelled long before they are due take no room."""
    alarms = Alarms()
    for _ in range(5000):
        alarms.at(Deadline.after(1000), list).cancel()
    assert len(alarms) < 1000
    alarms.close()


def test_cancel_after_it_ran_is_harmless():
    """Cancelling an alarm that has run changes nothing."""
    alarms, done = Alarms(), threading.Event()
    alarm = alarms.at(Deadline.after(0), done.set)
    assert done.wait(10)
    alarm.cancel()
    alarm.cancel()
    alarms.close()


def test_closed_alarms_run_nothing():
    """After close no alarm runs and the thread is gone."""
    alarms, ran = Alarms(), []
    alarms.at(Deadline.after(1000), lambda: ran.append("late"))
    alarms.close()
    alarms.at(Deadline.after(0), lambda: ran.append("later"))
    assert ran == []
    assert not [thread for thread in threading.enumerate() if thread is alarms._thread]
