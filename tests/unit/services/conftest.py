"""The world that most of these tests begin with; the others make their own."""

import pytest

from tests.support.released import released


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three hosts with a first release."""
    return released(tmp_path, monkeypatch, hosts=3)
