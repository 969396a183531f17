"""Reports of many threads in one transaction: each is written once, by one of them, and a bad one spoils nobody's."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from rollout.errors import StaleWrite
from rollout.services import hosts
from rollout.services.together import ENOUGH, KEPT, MOST, Together
from tests.support.processes import until


class Writer:
    """Work that stands still at first, and says what it was called with."""

    def __init__(self):
        self.calls, self.threads, self.results = [], [], {}
        self.go = threading.Event()
        self.together = Together()

    def work(self, items):
        self.calls.append(list(items))
        assert self.go.wait(20)
        if "bad" in items:
            raise StaleWrite("overtaken")
        return [f"{item} written" for item in items]

    def begin(self, item):
        def run():
            try:
                self.results[item] = self.together.do("key", item, self.work)
            except StaleWrite as error:
                self.results[item] = error

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def begin_all(self, *items):
        """The first one writes, and the others wait, in this order."""
        for place, item in enumerate(items):
            self.begin(item)
            until(
                lambda place=place: self.calls and len(self.together._waiting["key"]) == place,
                what="the next one waits",
            )

    def end(self):
        self.go.set()
        for thread in self.threads:
            thread.join(20)
        return self.results


def test_who_comes_meanwhile_is_written_with_the_others():
    """One writes for himself at once, the next one for all who came; everybody gets what came of his own."""
    writer = Writer()
    writer.begin_all("a", "b", "c", "d")
    assert writer.end() == {name: f"{name} written" for name in "abcd"}
    assert writer.calls == [["a"], ["b", "c", "d"]]
    assert not writer.together._waiting


def test_a_bad_one_fails_alone():
    """What cannot be written together is written one by one: only the one that was overtaken hears of it."""
    writer = Writer()
    writer.begin_all("a", "b", "bad", "c")
    results = writer.end()
    assert isinstance(results.pop("bad"), StaleWrite)
    assert results == {name: f"{name} written" for name in "abc"}
    assert writer.calls[:2] == [["a"], ["b", "bad", "c"]]
    assert sorted(writer.calls[2:]) == [["b"], ["bad"], ["c"]]


def test_nobody_is_written_twice_or_forgotten_when_many_come():
    """More than go together at once are written in several steps, each once."""
    writer = Writer()
    names = [str(number) for number in range(2 * MOST)]
    writer.begin_all(*names)
    assert len(writer.end()) == 2 * MOST
    assert sorted(item for call in writer.calls for item in call) == sorted(names)
    assert [len(call) for call in writer.calls] == [1, MOST, MOST - 1]


def test_an_interrupt_of_the_one_who_writes_leaves_nobody_waiting():
    """Ctrl-C, or the end of its thread, ends one writer; the others write by themselves."""
    together, came = Together(), threading.Event()
    results = []

    def work(items):
        if items == ["a"]:
            thread.start()
            until(lambda: together._waiting["key"], what="another one waits")
            raise KeyboardInterrupt
        return items

    def other():
        results.append(together.do("key", "b", work))
        came.set()

    thread = threading.Thread(target=other)
    with pytest.raises(KeyboardInterrupt):
        together.do("key", "a", work)
    assert came.wait(20)
    assert results == ["b"]
    assert not together._waiting


def test_one_who_stops_waiting_is_not_waited_for():
    """Ctrl-C ends one that waits; those behind it are written all the same."""
    writer, interrupted = Writer(), Writer()
    writer.begin_all("a")
    waits = Together.wait

    def wait(part):
        if part.item == "gone":
            raise KeyboardInterrupt
        waits(writer.together, part)

    writer.together.wait = wait
    with pytest.raises(KeyboardInterrupt):
        writer.together.do("key", "gone", interrupted.work)
    writer.begin("b")
    until(lambda: writer.together._waiting["key"], what="the other one waits")
    assert set(writer.end()) == {"a", "b"}
    assert [item for call in writer.calls for item in call] == ["a", "b"]
    assert interrupted.calls == []


class Slow(Together):
    """With a clock that only resting moves."""

    def __init__(self):
        super().__init__()
        self.seconds, self.rests = 0.0, []

    def now(self):
        return self.seconds

    def rest(self, _part, seconds):
        self.rests.append(round(seconds, 6))
        self.seconds += seconds


def in_company(together, every_s):
    """A group of one while which two come, whom the next one writes."""
    writer = Writer()
    writer.together = together
    work = writer.work
    writer.together.do, do = lambda key, item, _: do(key, item, work, every_s=every_s), together.do
    try:
        writer.begin_all("a", "b", "c")
        writer.end()
    finally:
        together.do = do
    assert writer.calls == [["a"], ["b", "c"]]


def alone(together, every_s, key="key"):
    together.do(key, "x", list, every_s=every_s)


def test_after_company_the_next_one_waits_for_more():
    """From the beginning of a group of several so much time passes until the next one begins; less when part of it is over already."""
    together = Slow()
    in_company(together, 0.2)
    assert together.rests == []
    together.seconds += 0.05
    alone(together, 0.2)
    assert together.rests == [0.15]


def test_who_is_alone_waits_for_nobody():
    """Neither before the first company, nor for another key, nor after a group of one, nor when its kind may not wait."""
    together = Slow()
    alone(together, 0.2)
    alone(together, 0.2)
    in_company(together, 0.2)
    alone(together, 0.2, key="another")
    alone(together, 0.0)
    assert together.rests == []
    in_company(together, 0.2)
    alone(together, 0.2)
    alone(together, 0.2)
    assert together.rests == [0.2]


def test_whoever_comes_while_the_first_rests_is_written_with_him():
    """That is what he rests for."""
    together, calls = Slow(), []
    in_company(together, 0.2)
    threads = []

    def rest(_part, seconds):
        together.seconds += seconds
        threads.append(threading.Thread(target=together.do, args=("key", "late", work)))
        threads[0].start()
        until(lambda: together._waiting["key"], what="it waits")

    def work(items):
        calls.append(list(items))
        return items

    together.rest = rest
    together.do("key", "first", work, every_s=0.2)
    threads[0].join(20)
    assert calls == [["first", "late"]]


def test_who_rests_goes_on_when_enough_have_come():
    """One more would make nobody's share of the cost less: the time that is left is not waited for."""
    together, calls = Together(), []

    def work(items):
        calls.append(list(items))
        return items

    together._company["key"] = together.now()
    with ThreadPoolExecutor(ENOUGH) as pool:
        for number in range(ENOUGH - 1):
            pool.submit(together.do, "key", number, work, every_s=3600)
            until(
                lambda place=number: len(together._waiting.get("key", ())) == place, what="it rests or waits"
            )
            assert calls == []
        pool.submit(together.do, "key", "last", work, every_s=3600).result(20)
    assert [len(call) for call in calls] == [ENOUGH]
    assert not together._resting


def test_of_old_keys_nothing_is_kept():
    """Rollouts come and go; what is known of their last groups does not pile up."""
    together = Slow()
    together._company.update((("old", number), 0.0) for number in range(KEPT))
    in_company(together, 0.0)
    assert len(together._company) == KEPT
    assert "key" in together._company


def test_a_claim_that_waits_for_its_rollouts_row_holds_up_no_other_rollout():
    """On PostgreSQL a row may be locked for seconds; hosts of another app are claimed meanwhile."""
    deps = SimpleNamespace(store=SimpleNamespace(transaction=contextlib.nullcontext), together=Together())
    waits, unlocked = threading.Event(), threading.Event()

    def locked(_tx):
        waits.set()
        unlocked.wait()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(hosts._begin, 1, locked, deps)
        try:
            assert waits.wait(60)
            assert pool.submit(hosts._begin, 2, lambda _tx: None, deps).result(60) is None
        finally:
            unlocked.set()


def test_who_has_claimed_goes_on_while_those_behind_him_claim():
    """His lease runs: with a database that takes long it was over before he was let go, together with all who had come."""
    deps = SimpleNamespace(store=SimpleNamespace(transaction=contextlib.nullcontext), together=Together())
    first, is_back, seen = threading.Event(), threading.Event(), []

    def waits(many):
        return lambda: len(deps.together._waiting.get(("claims", 1), ())) == many

    def claim_when_two_wait(_tx):
        first.set()
        until(waits(2), what="two wait")

    def claim_when_the_one_before_is_back(_tx):
        seen.append(is_back.wait(20))

    with ThreadPoolExecutor(3) as pool:
        pool.submit(hosts._begin, 1, claim_when_two_wait, deps)
        assert first.wait(60)
        second = pool.submit(hosts._begin, 1, lambda _tx: None, deps)
        until(waits(1), what="the second waits")
        pool.submit(hosts._begin, 1, claim_when_the_one_before_is_back, deps)
        assert second.result(60) is None
        is_back.set()
    assert seen == [True]
