"""The one place of the command line that sleeps."""

import time
from collections.abc import Iterator

from rollout.cli.failures import WrongUsage
from rollout.config import durations

POLL_S = 0.15


def ticks(timeout_s: float | None = None) -> Iterator[float]:
    """Seconds since the first tick, again and again; the last one comes at the end of `timeout_s`."""
    began = time.monotonic()
    while True:
        elapsed = time.monotonic() - began
        yield elapsed
        if timeout_s is not None and elapsed >= timeout_s:
            return
        time.sleep(POLL_S)


def limit(given: str | None, *, wait: bool) -> float | None:
    """The seconds of `--timeout`, which only means something together with `--wait`."""
    if given is None:
        return None
    if not wait:
        raise WrongUsage("--timeout goes with --wait", remedy="add --wait, or leave --timeout out")
    try:
        return durations.parse(given)
    except ValueError as error:
        raise WrongUsage(
            f"--timeout: found {given!r}, expected {error}", remedy="for example --timeout 10m"
        ) from error
