"""freeze, unfreeze: what is typed, and what is told."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from rollout.cli.freeze import moment
from rollout.services.freezes import HOTFIX
from tests.support.fakes import a_commit, a_rollout

NOW = datetime(2026, 11, 28, 12, 30, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("17:00", "2026-11-28T17:00:00+01:00"),
        ("8:05", "2026-11-29T08:05:00+01:00"),  # the next one
        ("2h", "2026-11-28T14:30:00+01:00"),
        ("3d", "2026-12-01T12:30:00+01:00"),
        ("2027-07-01T08:00", "2027-07-01T08:00:00+02:00"),
        ("2026-11-28T20:00:00Z", "2026-11-28T20:00:00+00:00"),
    ],
)
def test_until_takes_a_clock_a_duration_and_a_moment(given, expected):
    """As people say it; without a zone it is the queue's."""
    assert moment(given, NOW).isoformat() == expected


@pytest.mark.parametrize(
    ("given", "now", "expected"),
    [
        ("2h", "2026-10-25T01:30+02:00", "2026-10-25T01:30"),  # the hour from two to three comes twice
        ("2h", "2026-03-29T01:30+01:00", "2026-03-29T02:30"),  # and is left out
        ("2:45", "2026-10-25T02:15+02:00", "2026-10-25T00:45"),
        ("2:45", "2026-10-25T02:15+01:00", "2026-10-25T01:45"),
        ("2:45", "2026-10-25T02:50+02:00", "2026-10-25T01:45"),
    ],
)
def test_until_across_a_clock_that_is_moved(given, now, expected):
    """A duration lasts as long as it says; a time that comes twice is the next one of the two."""
    started = datetime.fromisoformat(now).astimezone(NOW.tzinfo)
    assert moment(given, started).astimezone(UTC) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_freeze_is_told_and_shown_and_ended(cli, deps):
    """`status` says why nothing is next, also beside a rollout that is under way; `unfreeze` ends it."""
    a_commit(deps)
    assert cli("freeze", "--until", "2h", "--reason", "the sale").code == 0
    assert "frozen until" in cli("status").out
    assert "the sale" in cli("status").out
    a_rollout(deps, commit=a_commit(deps))
    assert "the sale" in cli("status").out
    assert cli("unfreeze").code == 0
    assert "the sale" not in cli("status").out


def test_a_shorter_freeze_is_a_conflict_and_a_longer_one_is_told_as_such(cli):
    """Nobody's freeze ends because somebody else froze: 4, with whose it is; what is prolonged is named."""
    cli("freeze", "--until", "2h", "--reason", "the sale")
    assert "the sale" in (longer := cli("freeze", "--reason", "audit")).out
    assert longer.code == 0
    refused = cli("freeze", "--until", "1h", "--reason", "lunch")
    assert refused.code == 4
    assert "audit" in refused.err


def test_a_hotfix_is_shown_as_one(cli, deps):
    """`status` and `show` say which freeze it went past, and why; of what was planned as always they say nothing."""
    usual = a_rollout(deps, state="done")
    assert "hotfix" not in cli("show", str(usual.id)).out
    fix = a_rollout(deps, why=f"{HOTFIX}frozen by ann: the sale; bob: mends the till")
    assert "hotfix, although frozen by ann: the sale; bob: mends the till" in cli("status").out
    assert "hotfix      although frozen by ann: the sale; bob: mends the till" in cli("show", str(fix.id)).out


def test_the_documents_of_both(cli):
    """Programs read whether it is frozen, until when in UTC, and why."""
    told = cli("freeze", "--reason", "audit", "--json").json
    assert told == {"app": "shop", "frozen": True, "until": None, "reason": "audit"}
    cli("unfreeze")
    assert cli("freeze", "--until", "2027-01-01T00:00:00+01:00", "--reason", "audit", "--json").json[
        "until"
    ] == ("2026-12-31T23:00:00+00:00")
    assert cli("unfreeze", "--json").json == {"app": "shop", "frozen": False, "until": None, "reason": None}


def test_unfreeze_does_not_call_free_what_a_window_binds(cli, monkeypatch):
    """People, on the clock of their time zone, and programs, in UTC, read that the window still freezes, and until when."""
    ends = datetime(2027, 1, 4, 7, 0, tzinfo=UTC)
    monkeypatch.setattr("rollout.services.freezes._by_a_window", lambda *_: ends)
    berlin = property(lambda _queue: ZoneInfo("Europe/Berlin"))
    monkeypatch.setattr("rollout.config.app.QueueConfig.zone", berlin)
    cli("freeze", "--reason", "audit")
    assert "a window of rollout.toml does until Mon 2027-01-04 08:00 CET" in cli("unfreeze").out
    cli("freeze", "--reason", "audit")
    assert cli("unfreeze", "--json").json == {
        "app": "shop",
        "frozen": True,
        "until": "2027-01-04T07:00:00+00:00",
        "reason": "a window of rollout.toml",
    }


def test_what_cannot_be_is_refused_and_changes_nothing(cli):
    """A time that is none is wrong usage, one that is over and an unfreeze of nothing are conflicts; a reason is needed."""
    for senseless in ("soon", "999999999d", "0001-01-01T00:00+10:00"):
        assert cli("freeze", "--until", senseless, "--reason", "x").code == 2
    assert cli("freeze").code == 2
    assert cli("freeze", "--until", "2020-01-01", "--reason", "x").code == 4
    assert cli("unfreeze").code == 4
    assert "frozen" not in cli("status").out
