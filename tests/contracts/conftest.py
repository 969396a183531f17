"""What the contracts share."""

import pytest

from tests.support import stores


@pytest.fixture
def store(database):
    """An empty store of each kind."""
    opened = stores.opened(database)
    yield opened
    opened.close()
