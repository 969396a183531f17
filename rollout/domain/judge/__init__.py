"""The canary's judge: decides as early as the evidence allows, and never on none. docs/judge.md tells it in words.

Pure functions of counts: no clock, no I/O, no randomness. `judge` is the way in; `Judge` is the same, fed bit by bit.
"""

from rollout.domain.judge.judging import Judge, judge

__all__ = ["Judge", "judge"]
