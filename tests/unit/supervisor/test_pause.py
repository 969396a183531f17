"""How long a dead part waits."""

from rollout.supervisor.child import pause


def test_the_pause_doubles_up_to_thirty_seconds() -> None:
    """1, 2, 4, 8, 16, and from then on 30 seconds, however often it dies."""
    assert [pause(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 1000)] == [1, 2, 4, 8, 16, 30, 30, 30]
