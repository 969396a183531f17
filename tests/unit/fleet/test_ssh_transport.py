"""Who reads a connection: the thread that waits, or the attendant; without a host, by packets that mean nothing."""

import socket
import threading
from types import SimpleNamespace

import paramiko
import pytest
from paramiko.message import Message

from rollout.fleet.deadline import Deadline
from rollout.fleet.dial import Wire
from rollout.fleet.transport import PatientTransport


class Attendant:
    """Remembers what it is told."""

    works = True

    def __init__(self):
        self.told = []

    def watch(self, transport):
        """Look after it."""
        self.told.append("watch")

    def leave(self, transport):
        """Somebody reads it."""
        self.told.append("leave")

    def forget(self, transport):
        """It is over."""
        self.told.append("forget")


class Plain(PatientTransport):
    """Its packets are four bytes of length, a byte and no tail; each sets the event of its byte."""

    def __init__(self, wire):
        super().__init__(wire, Attendant())
        self.packetizer.tail = 0
        self.active = True
        self.completion_event = threading.Event()
        self.came = {byte: threading.Event() for byte in b"abc"}

    def _handle_next(self):
        found = self.packetizer.read_all(5)
        self.came[found[4]].set()


def packet(letter):
    """One of them."""
    return (1).to_bytes(4, "big") + letter


@pytest.fixture
def peer():
    """A transport and the other end of its socket."""
    ours, theirs = socket.socketpair()
    with Wire(fileno=ours.detach()) as wire, theirs:
        yield Plain(wire), theirs


SOON = 10


def test_who_waits_reads_and_stops_at_what_it_waits_for(peer):
    """The thread that holds the connection takes packets until its event is set, and tells when its limit passed first."""
    transport, host = peer
    transport.hold()
    host.sendall(packet(b"a") + packet(b"b") + packet(b"c"))
    assert transport.wait(transport.came[ord("b")], Deadline.after(SOON))
    assert transport.came[ord("a")].is_set()
    assert not transport.came[ord("c")].is_set()
    transport.came[ord("a")].clear()
    assert not transport.wait(transport.came[ord("a")], Deadline.after(0.01))
    assert transport.came[ord("c")].is_set()


def test_what_was_read_ahead_is_taken_before_another_may_read(peer):
    """The socket would not tell the next reader of it, who would wait for ever."""
    transport, host = peer
    transport.hold()
    host.sendall(packet(b"a") + packet(b"b"))
    transport.wait(transport.came[ord("a")], Deadline.after(SOON))
    assert not transport.came[ord("b")].is_set()
    transport.let_go()
    assert transport.came[ord("b")].is_set()
    assert transport._attendant.told == ["leave", "watch"]


def test_one_thread_reads_at_a_time_and_the_others_are_told(peer):
    """Who comes second waits for its event, which the first one sets; letting go is the first one's own."""
    transport, host = peer
    transport.hold()
    answers = []

    def second():
        transport.hold()
        answers.append(transport.wait(transport.came[ord("a")], Deadline.after(SOON)))
        transport.let_go()

    other = threading.Thread(target=second)
    other.start()
    host.sendall(packet(b"a") + packet(b"b"))
    assert transport.wait(transport.came[ord("b")], Deadline.after(SOON))
    other.join()
    assert answers == [True]
    assert transport._attendant.told == ["leave"]


def test_half_a_packet_holds_up_nobody_who_looks_after_many(peer):
    """The attendant leaves what is not whole, and comes back for it."""
    transport, host = peer
    host.sendall(packet(b"a") + packet(b"b")[:3])
    transport.attend()
    host.sendall(packet(b"b")[3:])
    assert (transport.came[ord("a")].is_set(), transport.came[ord("b")].is_set()) == (True, False)
    transport.attend()
    assert transport.came[ord("b")].is_set()
    assert transport._attendant.told == ["watch", "watch"]


def test_a_connection_that_ends_tells_everybody_once(peer):
    """Whoever waits for something of it is woken, in whichever thread the end was read."""
    transport, host = peer
    opened = transport.channel_events[1] = threading.Event()
    host.close()
    transport.attend()
    assert not transport.active
    assert opened.is_set()
    assert transport.completion_event.is_set()
    assert isinstance(transport.get_exception(), EOFError)
    transport.close()
    assert transport._attendant.told == ["forget"]


def test_what_ends_the_thread_ends_the_connection(peer):
    """A packet that is half read when Ctrl-C comes can never be read to its end: nobody reads on from its middle."""
    transport, host = peer
    transport.hold()
    host.sendall(packet(b"a"))

    def interrupted():
        raise KeyboardInterrupt

    transport._handle_next = interrupted
    with pytest.raises(KeyboardInterrupt):
        transport.wait(transport.came[ord("a")], Deadline.after(SOON))
    assert not transport.active


def in_another_thread(work):
    """What came of it; it fails when the work does not end."""
    came = []

    def run():
        try:
            came.append(work())
        except Exception as error:  # noqa: BLE001 -- it is looked at
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(SOON)
        assert came, "it waits for ever"
        return came[0]

    return result


def test_a_session_on_a_connection_that_just_ended_is_refused(peer):
    """Its end was told before the session asked for it, and the thread that read the end may be busy with something else."""
    transport, _ = peer
    transport.hold()
    transport._lose(EOFError())
    assert isinstance(in_another_thread(transport.session)(), EOFError | paramiko.SSHException)


def test_who_waits_for_new_keys_to_send_is_told_of_the_end(peer):
    """In the middle of a key exchange nobody may send; when the connection ends there, nobody will ever say that he may."""
    transport, _ = peer
    transport.hold()
    waiting, wait = threading.Event(), transport.wait

    def noted(event, limit):
        waiting.set()
        return wait(event, limit)

    transport.wait = noted
    sent = in_another_thread(lambda: transport._send_user_message(Message()))
    assert waiting.wait(SOON)
    transport._lose(None)
    assert sent() is None


def test_what_takes_its_time_elsewhere_is_done_while_another_reads(peer):
    """Whoever asks the database in the middle of a conversation leaves the connection to others, and reads on afterwards."""
    transport, host = peer
    transport.hold()

    def ask():
        host.sendall(packet(b"a"))
        in_another_thread(transport.attend)()
        return transport.came[ord("a")].is_set()

    assert transport.aside(ask)
    host.sendall(packet(b"b"))
    assert transport.wait(transport.came[ord("b")], Deadline.after(SOON))
    assert transport._attendant.told == ["leave", "watch", "watch", "leave"]


@pytest.mark.parametrize(
    ("strict", "kind"), [(True, paramiko.ssh_exception.MessageOrderError), (False, paramiko.SSHException)]
)
def test_another_message_than_the_key_exchange_has_next_is_an_attack_where_its_order_is_strict(
    strict, kind, peer
):
    """The same error as paramiko's, since one of them is tried again and the other is not."""
    transport, _ = peer
    transport._expected_packet, transport.agreed_on_strict_kex = (31,), strict
    with pytest.raises(paramiko.SSHException) as raised:
        transport._is_of_key_exchange(5, Message())
    assert type(raised.value) is kind


def channel(**changes):
    """What is looked at before a piece is sent."""
    return SimpleNamespace(
        **{"out_window_size": 0, "recv_ready": lambda: False, "eof_received": False, "closed": False}
        | changes
    )


@pytest.mark.parametrize(
    "changes",
    [{"out_window_size": 1}, {"recv_ready": lambda: True}, {"eof_received": True}, {"closed": True}],
)
def test_a_piece_may_be_sent_or_need_not(changes, peer):
    """Room, an answer or the end: none of these is waited for longer."""
    transport, _ = peer
    transport.hold()
    transport.make_room(channel(**changes), Deadline.after(0))


def test_an_answer_that_was_read_ahead_is_heard_before_the_next_piece(peer):
    """What came with the last packet is not in the socket any more: it counts all the same."""
    transport, host = peer
    transport.hold()
    host.sendall(packet(b"a") + packet(b"b"))
    transport.wait(transport.came[ord("a")], Deadline.after(SOON))
    assert not transport.came[ord("b")].is_set()
    transport.make_room(channel(out_window_size=1), Deadline.after(0))
    assert transport.came[ord("b")].is_set()


def test_a_host_that_takes_nothing_is_waited_for_until_the_limit(peer):
    """A full window sleeps until something comes, and no longer than it was told to."""
    transport, host = peer
    transport.hold()
    looks, readable = [], transport._wire.readable
    transport._wire.readable = lambda limit: looks.append(limit) or readable(limit)
    limit = Deadline.after(0.2)
    host.sendall(packet(b"a"))
    with pytest.raises(TimeoutError):
        transport.make_room(channel(), limit)
    assert limit.passed
    assert transport.came[ord("a")].is_set()
    assert len(looks) <= 3
