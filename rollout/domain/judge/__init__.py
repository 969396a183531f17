"""The canary's judge: decides as early as the evidence allows, and never on none. docs/judge.md tells it in words.

Pure functions of counts: no clock, no I/O, no randomness. `judge` is the way in; `Judge` is the same, fed bit by bit; `watch` goes on during the fan-out.
"""

from rollout.domain.judge.judging import Judge, judge
from rollout.domain.judge.watching import watch

__all__ = ["Judge", "judge", "watch"]
