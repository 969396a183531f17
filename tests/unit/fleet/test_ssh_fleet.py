"""SshFleet is what the services ask for."""

import inspect
import threading

from rollout.fleet.ssh import SshFleet
from rollout.services.ports import Fleet


def test_has_every_method_of_the_port():
    """Each method of the Protocol is there with the same parameters."""
    for name, wanted in inspect.getmembers(Fleet, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert list(inspect.signature(getattr(SshFleet, name)).parameters) == list(
            inspect.signature(wanted).parameters
        )


def test_unused_fleet_has_no_thread():
    """A process that only carries a fleet around pays for none of its threads."""
    before = threading.active_count()
    fleet = SshFleet()
    assert threading.active_count() == before
    fleet.close()


def test_can_be_closed_twice():
    """A fleet that was never used can be closed, and closed again."""
    fleet = SshFleet()
    fleet.close()
    fleet.close()
