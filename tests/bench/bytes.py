"""What a release costs on the wire: 10 changed files in a tree of 100 MB, through a real OpenSSH server. `python -m tests.bench bytes`.

Counted by a TCP proxy in front of the host: key exchange, login, headers and answers are in the figures.
"""

import contextlib
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rollout.domain.model import Answer, PrepareOrder, SwitchOrder
from rollout.fleet.ssh import SshFleet
from rollout.releases.deltas import Deltas
from tests.bench.report import Figure, Found
from tests.support import trees
from tests.support.proxy import proxy
from tests.support.sshd import running_sshd

FILES, BYTES_EACH, CHANGED, HOSTS = 10_000, 10_000, 10, 2
OLD, NEW = "a" * 40, "b" * 40
MB = 1_000_000


def measure(_ask=None, *, files=FILES, bytes_each=BYTES_EACH, hosts=HOSTS):
    """The figures, as lines of the bench; how many hosts are asked for does not matter, each costs the same."""
    with tempfile.TemporaryDirectory(prefix="rollout-bytes-") as folder, contextlib.ExitStack() as stack:
        here = Path(folder)
        root = trees.grow(here / "tree", files=files, bytes_each=bytes_each)
        old = trees.release(root, OLD, here / "shelf")
        trees.change(root, CHANGED, seed=2)
        new = trees.release(root, NEW, here / "shelf")
        began = time.monotonic()
        delta = Deltas(here / "shelf" / "deltas", 5).find(old, new)
        made_s = time.monotonic() - began
        assert delta is not None
        server = stack.enter_context(running_sshd(here / "sshd", hosts))
        fleet = stack.enter_context(contextlib.closing(SshFleet()))
        first, part, again, whole = [], [], [], []
        for number in range(hosts):
            target = server.target(number)
            door = stack.enter_context(proxy((target.address, target.port)))
            server.know(door.address, door.port)
            send = _Sender(fleet, replace(target, address=door.address, port=door.port), door)
            first.append(send(old))
            send.activate(old)
            whole.append(
                send(replace(new, commit="c" * 40))
            )  # the same bytes under another name, as if there were no delta
            part.append(send(new, delta))
            again.append(send(new, delta))
    sent, took = (
        (lambda pairs: max(one[0] for one in pairs)),
        (lambda pairs: statistics.median(one[1] for one in pairs)),
    )
    figures = [
        Figure(
            f"{CHANGED} files of {files * bytes_each / MB:g} MB changed: on the wire to a host",
            "MB",
            sent(part) / MB,
            at_most=1.0,
        ),
        Figure("  the archive, without a delta", "MB", sent(whole) / MB),
        Figure("  a release that is there already", "KB", sent(again) / 1000, at_most=10.0),
        Figure(
            "  prepare with a delta", "ms", took(part) * 1000, took(whole) * 1000, took(part) / took(whole)
        ),
        Figure("  making the delta, once", "s", made_s),
    ]
    return Found(figures)


class _Sender:
    """Prepares releases on one host, and counts."""

    def __init__(self, fleet, target, door):
        self.fleet, self.target, self.door, self.number = fleet, target, door, 0

    def __call__(self, release, delta=None):
        """Bytes in both directions, and seconds."""
        self.number += 1
        began, before = time.monotonic(), self.door.passed
        order = PrepareOrder(self.number, self.number, release, 5, (), delta)
        outcome = self.fleet.prepare(self.target, order, timeout_s=300, go_on=lambda: True)
        assert outcome.answer is Answer.DONE, outcome
        return self.door.passed - before, time.monotonic() - began

    def activate(self, release):
        """Switch to it."""
        self.number += 1
        order = SwitchOrder(self.number, self.number, release.commit, release.digest, "", "", 10, 10)
        self.fleet.activate(self.target, order, lambda _: 10_000, timeout_s=60)
