"""What is said to host.sh and what is made of its answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.model import FOREIGN, Answer, Delta, PrepareOrder, Release, SwitchOrder, Target
from rollout.fleet import protocol
from rollout.fleet.protocol import Reply

COMMIT, DIGEST = "a" * 40, "b" * 64
TARGET = Target("web1", "10.0.0.1", 22, "deploy", "/srv/shop", None, "known_hosts")


def reply(*lines):
    """A reply that has taken these lines in."""
    taken = Reply()
    for line in lines:
        taken.take(line)
    return taken


def test_prepare_announces_the_release():
    """The header has every key once and ends with an empty line."""
    order = PrepareOrder(7, 8, Release(COMMIT, DIGEST, "/tmp/a", 123), 5, ("c" * 40, "d" * 40))
    assert protocol.prepare(order).decode() == (
        f"epoch=7\nop=8\ncommit={COMMIT}\ndigest={DIGEST}\nsize=123\nkeep=5\nspare={'c' * 40}\nspare={'d' * 40}\n\n"
    )


def test_a_delta_is_announced_by_its_base_and_its_size():
    """The three keys come together, after the rest."""
    order = PrepareOrder(
        7, 8, Release(COMMIT, DIGEST, "/tmp/a", 123), 5, (), Delta("c" * 40, "d" * 64, "/x", 9)
    )
    header = protocol.prepare(order).decode()
    assert header.endswith(f"keep=5\nbase={'c' * 40}\nbase_digest={'d' * 64}\ndelta=9\n\n")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [(["send=yes"], "yes"), (["send=delta"], "delta"), (["send=delta", "send=yes"], "yes")],
)
def test_the_last_word_says_what_is_sent(lines, wanted):
    """A host that could not use the delta asks for the archive in the same answer; after its end nothing is wanted."""
    assert reply(*lines).wants(wanted)
    assert not reply(*lines, "end=0").wants(wanted)


def test_commands_of_several_lines_repeat_their_key():
    """A restart of two lines is two lines with the same key; an empty one is one empty line."""
    header = protocol.switch(SwitchOrder(7, 8, COMMIT, DIGEST, "one\ntwo", "", 60, 30), TARGET).decode()
    assert "restart=one\nrestart=two\nrestart_limit=60\nhealth=\nhealth_timeout=30\n\n" in header
    assert "host=web1\n" in header


@pytest.mark.parametrize(("commit", "said"), [(None, "none"), (FOREIGN, "foreign"), (COMMIT, COMMIT)])
def test_targets_of_a_rollback(commit, said):
    """Nothing, a foreign link and a commit each have a word."""
    header = protocol.switch(SwitchOrder(7, 8, commit, None, "", "", 60, 30), TARGET).decode()
    assert f"commit={said}\ndigest=\n" in header


def test_status_asks_for_no_more_than_wanted():
    """A plain reading sends neither epoch nor operation number; a sealing one sends both."""
    assert protocol.status(asked=0, seal=None, wait_ms=5) == b"\n"
    assert protocol.status(asked=4, seal=(7, 8), wait_ms=500) == b"op_asked=4\nepoch=7\nop=8\nwait=500\n\n"


def test_header_cannot_be_broken_out_of():
    """A value with a line end is refused before anything is sent."""
    order = PrepareOrder(7, 8, Release("a\ncommit=b", DIGEST, "/tmp/a", 1), 5, ())
    with pytest.raises(ValueError, match="not one line"):
        protocol.prepare(order)


def test_permission_is_never_negative():
    """A lease that has run out permits nothing, in digits that the host accepts."""
    assert protocol.within(-5) == b"within=0\n"
    assert protocol.within(1500) == b"within=1500\n"


def test_a_zero_byte_of_a_command_is_dropped():
    """PostgreSQL takes none, and what a restart prints is stored with its outcome."""
    told = reply("switched=yes", "output=started\0 once", "output=\0", "reason=un\0healthy", "end=10")
    outcome = told.outcome(told.answer)
    assert (outcome.answer, outcome.output, outcome.reason) == (Answer.FAILED, "started once\n", "unhealthy")


def test_noise_before_the_first_known_key_is_ignored():
    """Greetings of a login script are not taken for answers."""
    taken = reply("Welcome!", "motd=hello", "Last login: never", "current=none", "end=0")
    assert taken.fields == {"current": "none"}
    assert taken.answer is Answer.DONE


def test_nothing_counts_after_the_end():
    """What comes after `end=` changes nothing."""
    assert reply("current=none", "end=20", "end=0", f"current={COMMIT}").answer is Answer.REFUSED


@pytest.mark.parametrize("line", ["end=1", "end=", "end=00", "end=0 ", "end", " end=0"])
def test_only_known_codes_end_an_answer(line):
    """A code that is not in the protocol is no answer."""
    assert reply("current=none", line).answer is None


def test_output_lines_are_joined():
    """The lines of restart and health come as one text."""
    assert reply("output=one", "output=", "output=a=b").outcome(Answer.FAILED).output == "one\n\na=b"


def test_outcome_of_a_switch():
    """The fields of an answer become an outcome."""
    outcome = reply(
        "intent=yes", "switched=yes", "put_back=yes", f"current={COMMIT}", "reason=unhealthy"
    ).outcome(Answer.FAILED)
    assert (outcome.intent, outcome.put_back, outcome.current, outcome.reason) == (
        True,
        True,
        COMMIT,
        "unhealthy",
    )


def test_refusal_has_no_intent():
    """A refused operation has not touched the host."""
    assert not reply("clock=1", "boot=b", "current=none", "reason=late").outcome(Answer.REFUSED).intent


@pytest.mark.parametrize(
    ("word", "release"),
    [
        ("none", None),
        ("foreign", FOREIGN),
        (COMMIT, COMMIT),
        ("", None),
        ("../../etc", None),
        ("A" * 40, None),
    ],
)
def test_releases_as_the_host_spells_them(word, release):
    """Only a commit is a commit."""
    assert protocol.release(word) == release


def test_status_of_a_host():
    """The fields of a reading become a status."""
    status = reply(
        f"current={COMMIT}",
        "epoch=9",
        "running=yes",
        "op=8",
        "verb=activate",
        "result=intent",
        "asked=none",
        "sealed=yes",
    ).status()
    assert (status.current, status.epoch, status.running, status.operation) == (COMMIT, 9, True, 8)
    assert (status.verb, status.result, status.asked, status.sealed) == ("activate", "intent", "none", True)


@given(st.lists(st.text(max_size=40), max_size=30))
def test_no_line_hurts(lines):
    """Whatever a host prints, reading it raises nothing and numbers are numbers."""
    taken = reply(*lines)
    assert taken.status().epoch >= 0
    assert taken.greeting().clock >= 0
    assert taken.outcome(Answer.DONE).answer is Answer.DONE
