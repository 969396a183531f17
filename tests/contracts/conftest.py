"""What the contracts share."""

import pytest

from rollout.store.store import Store


@pytest.fixture
def store(database):
    """An empty store of each kind."""
    opened = Store(database)
    opened.prepare()
    yield opened
    opened.close()
