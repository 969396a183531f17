"""What is asked of every part of the bench, and how people hear of its progress."""

import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """How much to measure."""

    hosts: int = 1000
    rounds: int = 3
    judge_runs: int = 10

    def few(self, most: int) -> int:
        """As many hosts as asked for, and no more than `most`: where more would say nothing new."""
        return min(self.hosts, most)


def say(words: str) -> None:
    """Progress, for people."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)
