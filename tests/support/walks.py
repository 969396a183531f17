"""How long hypothesis walks in unit tests: no clock decides, and nothing is kept on disk."""

from hypothesis import settings

WALK = settings(deadline=None, database=None, max_examples=150)
STATEFUL_WALK = settings(deadline=None, database=None, max_examples=80, stateful_step_count=60)
