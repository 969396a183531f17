"""How long hypothesis walks in unit tests: no clock decides, and nothing is kept on disk. `make faults` walks much longer."""

from hypothesis import settings

from tests.conftest import ALL_FAULTS

_MORE = 10 if ALL_FAULTS else 1
WALK = settings(deadline=None, database=None, max_examples=50 * _MORE)
STATEFUL_WALK = settings(deadline=None, database=None, max_examples=30 * _MORE, stateful_step_count=60)
