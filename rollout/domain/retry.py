"""When to try again, and how long to wait before."""

import hashlib


def may_retry(attempt: int, retries: int, retryable: bool) -> bool:
    """Whether a host gets another attempt by itself after attempt `attempt` (from 1) failed."""
    return retryable and attempt <= retries


def backoff_s(failures: int, first: float = 2.0, most: float = 60.0) -> float:
    """Seconds to wait after `failures` failures in a row: `first`, doubled with each one, at most `most`.

    No failure yet, no wait.
    """
    if failures < 1:
        return 0.0
    doublings = min(failures - 1, 64)  # keeps the power small, whatever a row counts to
    return min(most, first * 2.0**doublings)


def spread(seconds: float, key: str, attempt: int) -> float:
    """`seconds` and up to a fifth more, by key and attempt: those who wait for one thing do not come back together."""
    share = int.from_bytes(hashlib.sha256(f"{key} {attempt}".encode()).digest()[:4], "big") / 2**32
    return seconds * (1.0 + share / 5)
