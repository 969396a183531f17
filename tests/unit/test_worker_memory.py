"""What a worker keeps of the memory that it once needed."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from workers import memory

PIECE, PIECES, EACH = 32 * 1024, 2000, 100


def resident():
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="it is glibc that keeps pages")
def test_pages_between_what_is_still_in_use_are_given_back():
    """Of many pieces each hundredth stays: the others' pages go back to the system."""
    pieces = [bytearray(PIECE) for _ in range(PIECES)]
    kept, full = pieces[::EACH], resident()
    pieces.clear()
    memory.give_back()
    assert len(kept) == PIECES // EACH
    assert resident() < full - PIECE * PIECES // 2


def test_what_only_itself_refers_to_is_freed():
    """A worker that has nothing to do allocates too little for the collector to come by itself."""
    one = threading.Event()
    one.itself = one
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one
        assert gone() is not None
        memory.give_back()
        assert gone() is None
    finally:
        gc.enable()


MANY_THREADS = """
import ctypes, sys, threading
from workers import memory
if sys.argv[1] == "shared":
    memory.share_arenas()
begin = threading.Barrier(16)
def work():
    begin.wait()
    for _ in range(200):
        bytearray(1000)
    begin.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for one in threads: one.start()
for one in threads: one.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="it is glibc that has arenas")
@pytest.mark.parametrize(("how", "few"), [("shared", True), ("as it comes", False)])
def test_threads_allocate_from_two_places(how, few):
    """However many there are: what is freed in one place is used again by the next thread, and not kept for one that sleeps."""
    told = subprocess.run(
        [sys.executable, "-c", MANY_THREADS, how], capture_output=True, text=True, timeout=60, check=True
    )
    assert (told.stdout.count("<heap nr=") <= memory.ARENAS) is few
