"""What was freed is given back to the system."""

import ctypes


def give_back() -> None:
    """Pages between what is still in use, which glibc keeps: after a rollout on 1,000 hosts a tenth of a worker's memory. Elsewhere it is nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
