"""Many hosts, one archive: it is open once, and nobody has a copy of it."""

import contextlib
import os
import threading
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from rollout.fleet.conversation import Conversation
from rollout.fleet.deadline import Deadline
from rollout.fleet.limits import Limits
from rollout.fleet.uploads import Uploads

HOSTS, SIZE = 200, 8_000_000


def opened(file):
    """How many descriptors this process has of it; what other tests have left is not counted."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found += descriptor.readlink() == file
    return found


class TakingChannel:
    """A host that takes what it is sent, up to a point, where it waits for all the others."""

    def __init__(self, everybody, half):
        self.everybody, self.half = everybody, half
        self.sum = self.taken = 0
        self.in_buffer = self.in_stderr_buffer = SimpleNamespace(set_event=lambda _: None)
        self.eof_received = self.closed = False

    def settimeout(self, _):
        pass

    def recv_ready(self):
        return False

    def send(self, data):
        if self.taken <= self.half < self.taken + len(data):
            self.everybody.wait(60)
        self.taken += len(data)
        self.sum = zlib.crc32(data, self.sum)
        return len(data)


@pytest.fixture
def archive(tmp_path):
    file = tmp_path / "archive"
    file.write_bytes(os.urandom(SIZE))
    return file


def test_two_hundred_uploads_at_once_cost_no_two_hundred_copies(archive):
    """All of them in the middle of the same archive at the same time: one open file, a piece for each, no copies."""
    uploads, at_once = Uploads(), []
    peak = []

    def all_are_here():
        at_once.append((uploads.files, opened(archive)))
        peak.append(tracemalloc.get_traced_memory()[1])

    everybody = threading.Barrier(HOSTS, action=all_are_here)
    channels = [TakingChannel(everybody, SIZE // 2) for _ in range(HOSTS)]

    transport = SimpleNamespace(make_room=lambda *_: None, aside=lambda ask: ask())
    connection = SimpleNamespace(transport=transport)

    def upload(channel):
        with uploads.source(archive) as source:
            talk = Conversation(connection, channel, Deadline.after(120), Limits())
            assert talk.stream(source, lambda: True) == SIZE

    threads = [threading.Thread(target=upload, args=[channel]) for channel in channels]
    expected = zlib.crc32(archive.read_bytes())
    tracemalloc.start()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        tracemalloc.stop()
    assert at_once == [(1, 1)]
    assert peak[0] < 3 * SIZE
    assert {channel.sum for channel in channels} == {expected}
    assert (uploads.files, opened(archive)) == (0, 0)


def test_an_archive_that_is_replaced_meanwhile_is_another_file(archive):
    """Who began with the old one ends with it; who comes now gets the new one."""
    uploads = Uploads()
    with uploads.source(archive) as old:
        first = old.read(0, 10)
        other = archive.with_name("new")
        other.write_bytes(b"n" * 20)
        other.replace(archive)
        with uploads.source(archive) as new:
            assert (new.size, new.read(0, 10)) == (20, b"n" * 10)
            assert old.read(0, 10) == first
            assert uploads.files == 2
    assert uploads.files == 0


def test_an_upload_that_fails_leaves_nothing_open(archive):
    """An error on the way closes the file behind the last one."""
    uploads = Uploads()
    with pytest.raises(RuntimeError), uploads.source(archive):
        raise RuntimeError
    with pytest.raises(FileNotFoundError), uploads.source(Path("/no/such")):
        pass
    assert (uploads.files, opened(archive)) == (0, 0)
