"""What a worker keeps of the memory that it once needed."""

import ctypes
import os
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
