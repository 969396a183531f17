"""docs/limits.md names places and tests; they are there, and the numbers that matter most are what it says."""

import re
from pathlib import Path

import pytest

from rollout.domain import transfer
from rollout.fleet.limits import Limits
from rollout.releases import limits
from rollout.services import stopping
from rollout.store import journal, postgresql, retention
from rollout.web import service

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "limits.md").read_text()
HOSTS, WEB = Limits(), service.Limits()
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_/]+/[a-z_]+\.(?:py|sh))`", TEXT))))
def test_every_place_is_there(name):
    """A file that moved is a limit that nobody finds."""
    assert any((ROOT / folder / name).exists() for folder in ("rollout", "tests", ".")), name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", TEXT))))
def test_every_proof_is_there(name):
    """A limit without its test is a wish."""
    assert f"def {name}(" in TESTS


@pytest.mark.parametrize(
    "says",
    [
        f"connect · banner and key exchange · login | {HOSTS.connect_s} s · {HOSTS.banner_s} s · {HOSTS.auth_s} s",
        f"first line of an answer · exit status | {HOSTS.exec_s} s · {HOSTS.exec_s} s",
        f"{HOSTS.output_bytes >> 20} MiB on both streams",
        f"{WEB.body_s:g} s · {WEB.answer_s:g} s, then 408 · 503",
        f"transactions of one process at a time | {postgresql.KEPT}, over as many connections",
        f"{journal.KEPT_OUTPUT:,} characters for each step",
        f"the newest {journal.KEPT_DELIVERIES:,}",
        f"the {limits.KEPT_DELTAS} newest of an app, each at most half of its archive, and none of an archive below {transfer.SMALL // 10**6} MB",
        f"one is waited for {limits.DELTA_WAIT_S:g} s",
        f"{postgresql.CONNECT_S} s · about {postgresql.LOST_S} s · {postgresql.ANSWER_S:g} s",
        f"{postgresql.IDLE_S} s in the middle of a transaction; a lock is waited for {postgresql.LOCK_S} s",
        f"(restart limit + health_timeout) + {stopping.ROUNDS_S:g} s",
        f"deliveries (webhooks) | {retention.TOLD.days} days",
        f"samples of the canary and its baseline | {retention.MEASURED.days} days",
        f"events of single hosts | {retention.PRINTED.days} days",
    ],
)
def test_the_numbers_are_the_codes(says):
    """What is written there is what the code does."""
    assert says in TEXT
