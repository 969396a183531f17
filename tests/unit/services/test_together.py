"""Reports of many threads in one transaction: each is written once, by one of them, and a bad one spoils nobody's."""

import threading

import pytest

from rollout.errors import StaleWrite
from rollout.services.together import MOST, Together
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
