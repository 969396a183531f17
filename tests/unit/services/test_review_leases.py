"""Leases that are renewed beside the work."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

from rollout.services.leases import LeaseKeeper


class Rows:
    """A store that tells which rows were renewed."""

    def __init__(self):
        self.renewed = []
        self.again = threading.Event()

    @contextmanager
    def transaction(self):
        yield SimpleNamespace(claims=self, commits=self)

    def renew(self, _owner, rows, _lease_s):
        self.renewed.append(rows)
        self.again.set()


def test_a_row_that_is_held_twice_is_renewed_until_both_have_let_go():
    """A rollback keeps its lease when the activation that it ended, in the same process, lets go of the host."""
    rows = Rows()
    keeper = LeaseKeeper(rows, "worker", 0.03)
    with keeper.hold("host", 7):
        with keeper.hold("host", 7):
            pass
        rows.again.clear()
        rows.renewed.clear()
        assert rows.again.wait(10)
        assert rows.renewed[-1] == [7]


def test_a_renewal_that_breaks_ends_no_other():
    """Whatever is raised while leases are renewed: they are renewed again, and the thread that does it lives on."""
    rows = Rows()
    renew, broken = rows.renew, []

    def once(*told):
        if not broken:
            broken.append(True)
            raise RuntimeError("nobody expected this")
        renew(*told)

    rows.renew = once
    with LeaseKeeper(rows, "worker", 0.03).hold("host", 7):
        assert rows.again.wait(10)
    assert broken
