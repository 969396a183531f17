"""What our connection is made of: each repair can be seen without a network."""

import contextlib
import resource
import socket
import threading
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from rollout.domain.model import Target
from rollout.errors import HostKeyRefused, Unreachable
from rollout.fleet import dial, transport
from rollout.fleet import pool as pool_module
from rollout.fleet.connection import Engine, HostConnection, NoKeys, RejectUnknownKeys
from rollout.fleet.deadline import Alarms, Deadline
from rollout.fleet.dial import Pacer, Wire, resolve
from rollout.fleet.limits import Limits
from rollout.fleet.pool import Pool
from rollout.fleet.transport import Attendant, PatientTransport


@pytest.fixture
def engine():
    """What connections share; closed at the end."""
    made = Engine.of(Limits())
    yield made
    made.close()


@pytest.fixture
def target(tmp_path):
    """A target whose known_hosts has one line."""
    file = tmp_path / "known_hosts"
    file.write_text("web1 ssh-ed25519 AAAA\n")
    return Target("web1", "web1", 22, "deploy", "/srv/shop", None, str(file))


@pytest.fixture
def wire():
    """A connected socket without a network, and its other end."""
    ours, theirs = socket.socketpair()
    made = Wire(fileno=ours.detach())
    made.other_end = theirs
    yield made
    made.close()
    theirs.close()


def test_what_is_read_ahead_comes_in_order_and_then_the_end(wire):
    """However little is asked for at a time, every byte comes once, and the end of the stream after the last."""
    sent = bytes(range(256)) * 300
    wire.other_end.sendall(sent)
    wire.other_end.close()
    found, sizes = b"", [4, 1, 60_000, 7]
    while piece := wire.recv(sizes[len(found) % 4]):
        assert len(piece) <= sizes[len(found) % 4]
        found += piece
    assert found == sent


def test_a_packet_is_whole_when_its_last_byte_has_come(wire):
    """The length in front says how many bytes and their tail belong to it; where it cannot be read, anything will do."""
    packet = (20).to_bytes(4, "big") + bytes(20 + 16)
    for sent, whole in ((packet[:3], False), (packet[3:-1], False), (packet[-1:], True)):
        assert not wire.readable(Deadline(0))
        wire.other_end.sendall(sent)
        assert wire.readable(Deadline.after(10))
        wire.gather()
        assert wire.has_packet(16) is whole
        assert wire.has_packet(None)
    assert wire.recv(100) == packet
    assert not wire.has_packet(None)


def test_the_end_and_a_packet_without_end_are_errors(wire):
    """Who looks after many connections gives up one that sends a length that cannot be, and one that has ended."""
    wire.other_end.setblocking(False)

    def flood():
        while True:
            with contextlib.suppress(BlockingIOError):
                wire.other_end.send(b"\xff" * 65_536)
            wire.gather()

    with pytest.raises(OSError, match="longer than any"):
        flood()
    wire.other_end.close()
    with pytest.raises((EOFError, OSError)):
        flood()


class Watched:
    """What an attendant needs of a transport."""

    def __init__(self, wire):
        self.wire = wire
        self.active = True
        self.attended = threading.Semaphore(0)

    @property
    def number(self):
        return self.wire.fileno()

    def attend(self):
        self.attended.release()

    def hang_up(self):
        self.wire.hang_up()


class Answering(Watched):
    """One whose host asks for more than the network takes on the way back."""

    def attend(self):
        super().attend()
        with contextlib.suppress(OSError):
            while True:
                self.wire.sendall(b"x" * 65_536)


@pytest.fixture
def other():
    """A second one."""
    ours, theirs = socket.socketpair()
    with Wire(fileno=ours.detach()) as made, theirs:
        yield Watched(made)


@pytest.fixture
def attendant():
    """One whose thread is gone at the end."""
    alarms = Alarms()
    made = Attendant(alarms)
    yield made
    made.close()
    alarms.close()
    assert made._thread is None or not made._thread.is_alive()


def test_an_attendant_comes_once_for_each_time_it_is_asked_to_watch(wire, other, attendant):
    """What comes is told once; the next time only to who asks again, so that nobody reads beside the attendant."""
    watched = Watched(wire)
    wire.other_end.sendall(b"x")
    for _ in range(2):
        attendant.watch(watched)
        assert watched.attended.acquire(timeout=10)
    attendant.watch(other)
    other.wire.hang_up()
    assert other.attended.acquire(timeout=10)  # one round later, and nothing has come of the first
    assert not watched.attended.acquire(blocking=False)


def test_a_host_that_does_not_read_its_answers_keeps_no_others_waiting(wire, other, attendant, monkeypatch):
    """It is hung up on: others whom nobody attended would take us for gone."""
    monkeypatch.setattr(transport, "_ANSWER_S", 0.1)
    deaf = Answering(wire)
    attendant.watch(deaf)
    wire.other_end.sendall(b"x")
    assert deaf.attended.acquire(timeout=10)
    attendant.watch(other)
    other.wire.hang_up()
    assert other.attended.acquire(timeout=10)


@pytest.mark.parametrize("verb", ["leave", "forget"])
def test_an_attendant_lets_alone_what_somebody_reads_or_what_is_over(verb, wire, other, attendant):
    """Once it is told to, it does not come for that connection any more, and still comes for others."""
    watched = Watched(wire)
    attendant.watch(watched)
    getattr(attendant, verb)(watched)
    wire.other_end.sendall(b"x")
    attendant.watch(other)
    other.wire.hang_up()
    assert other.attended.acquire(timeout=10)
    assert not watched.attended.acquire(blocking=False)
    attendant.watch(watched)
    assert watched.attended.acquire(timeout=10)


def test_an_attendant_watches_nothing_that_is_over(wire, attendant):
    """A connection that ended just before is not kept, or its number would be another's."""
    watched = Watched(wire)
    watched.active = False
    attendant.watch(watched)
    assert not attendant._watched


def test_the_first_cipher_needs_no_mac():
    """Paramiko compares a MAC byte by byte: the one that we offer first has none of its own."""
    assert "gcm" in PatientTransport._preferred_ciphers[0]
    assert set(PatientTransport._preferred_ciphers) == set(paramiko.Transport._preferred_ciphers)


def test_paramikos_own_tables_of_keys_are_the_cheap_empty_one(engine, target):
    """It looks into these two before it asks our policy, and makes a class for each look where they are its own."""
    theirs, ours = vars(paramiko.SSHClient()), vars(HostConnection(target, engine).client)
    tables = {name for name, value in theirs.items() if isinstance(value, paramiko.HostKeys)}
    assert tables == {"_system_host_keys", "_host_keys"}
    assert all(type(ours[name]) is NoKeys for name in tables)


def test_unknown_keys_are_rejected_by_policy(engine, target):
    """The policy is ours, and no key is added to the known ones."""
    connection = HostConnection(target, engine)
    assert type(connection.client._policy) is RejectUnknownKeys
    with pytest.raises(HostKeyRefused):
        connection.client._policy.missing_host_key(connection.client, "web1", paramiko.ECDSAKey.generate())
    assert not connection.client.get_host_keys()
    assert Path(target.known_hosts).read_text() == "web1 ssh-ed25519 AAAA\n"


def test_no_agent_ever_and_key_files_only_without_identity(engine, target):
    """There is never an agent; the usual key files are tried only when no identity is configured."""
    login = HostConnection(target, engine)._login
    assert (login["allow_agent"], login["look_for_keys"], login["pkey"]) == (False, True, None)


def test_identity_is_loaded_once(engine, target, tmp_path):
    """Two connections use the same key object and look for no other."""
    file = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    own = replace(target, identity_file=str(file))
    first, second = HostConnection(own, engine)._login, HostConnection(own, engine)._login
    assert first["pkey"] is second["pkey"]
    assert first["look_for_keys"] is False


def test_connections_write_nothing_into_the_shared_configuration(engine, target):
    """Fabric keeps what it is told in the shared configuration unless the class has it: ours has all of it."""
    first, second = HostConnection(target, engine), HostConnection(target, engine)
    assert first.config is second.config
    assert not first.config._modifications
    assert first.inline_ssh_env is False


def test_reader_sleeps(wire):
    """An idle transport wakes every 20 s instead of ten times a second."""
    PatientTransport(wire, Attendant(Alarms()))
    assert wire.gettimeout() == 20
    assert paramiko.Transport._active_check_timeout == 0.1, (
        "paramiko has renamed or changed what repair 5 sets"
    )


def test_transport_starts_no_timer_threads(wire):
    """The handshake has our deadline and no thread of its own."""
    before = threading.active_count()
    PatientTransport(wire, Attendant(Alarms())).packetizer.start_handshake(15)
    assert threading.active_count() == before


def test_old_algorithms_are_off_and_strict_key_exchange_is_on(wire):
    """SHA-1 and CBC are not offered; strict key exchange is."""
    transport = PatientTransport(wire, Attendant(Alarms()))
    offered = [
        *transport.preferred_ciphers,
        *transport.preferred_macs,
        *transport.preferred_kex,
        *transport.preferred_keys,
    ]
    assert not [name for name in offered if "cbc" in name or name.endswith("sha1") or name == "ssh-rsa"]
    assert transport.advertise_strict_kex
    assert transport.preferred_kex[0] == paramiko.Transport._preferred_kex[0]


def test_known_key_type_is_asked_for_first(wire):
    """A host that is known by its RSA key is asked for that one, with SHA-2."""
    transport = PatientTransport(wire, Attendant(Alarms()))
    transport.prefer(["ssh-rsa"])
    assert transport.preferred_keys[:2] == ("rsa-sha2-512", "rsa-sha2-256")


def test_hang_up_wakes_a_waiting_reader(wire):
    """Shutting the socket down ends a receive in another thread at once."""
    wire.settimeout(60)
    got = []
    reader = threading.Thread(target=lambda: got.append(wire.recv(10)))
    reader.start()
    wire.hang_up()
    reader.join(10)
    assert got == [b""]


def test_pacer_lets_a_burst_through_and_then_spreads():
    """The burst waits for nothing; who comes after it waits for the deadline at most."""
    pacer = Pacer(burst=5, per_s=0.001)
    far, near = Deadline.after(60), Deadline.after(0.01)
    for _ in range(5):
        pacer.wait(far)
    pacer.wait(near)
    assert near.passed
    assert not far.passed


def test_closing_lets_waiting_connects_go():
    """Who waits for his turn does not hold up the end."""
    pacer = Pacer(burst=1, per_s=0.001)
    far = Deadline.after(60)
    pacer.wait(far)
    waiting = threading.Thread(target=pacer.wait, args=(far,))
    waiting.start()
    pacer.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_name_that_is_never_resolved_costs_its_deadline(monkeypatch):
    """The system's resolver may hang; we do not."""
    released = threading.Event()
    monkeypatch.setattr(dial.socket, "getaddrinfo", lambda *_, **__: released.wait(60) and [])
    with pytest.raises(TimeoutError, match="not resolved in time"):
        resolve("slow.example", 22, Deadline.after(0.05))
    released.set()


def test_name_that_does_not_exist_is_the_resolvers_error(monkeypatch):
    """What the resolver says is handed on."""

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(dial.socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror):
        resolve("unknown.example", 22, Deadline.after(5))


def test_numbers_are_not_asked_for():
    """An address needs no resolver and no thread."""
    before = threading.active_count()
    assert resolve("127.0.0.1", 22, Deadline.after(5)) == [(socket.AF_INET, ("127.0.0.1", 22))]
    assert threading.active_count() == before


def test_closed_pool_connects_to_nobody(engine, target):
    """After close every session is refused as unreachable."""
    pool = Pool(engine)
    pool.close()
    with pytest.raises(Unreachable, match="closing"), pool.session(target, Deadline.after(5)):
        pass


@pytest.mark.parametrize(
    ("limits", "raised", "room"),
    [
        ((1024, 524_288), 4000, 2000),
        ((1024, -1), 4000, 2000),
        ((1024, 3000), 3000, 1500),
        ((1024, 1024), None, 512),
        ((20_000, 524_288), None, 2000),
        ((-1, -1), None, 2000),
    ],
)
def test_a_pool_makes_room_for_its_connections(monkeypatch, limits, raised, room):
    """With the limit of 1,024 files that processes come with, none of a fleet's 1,000 hosts would be warm when its turn comes again."""
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    assert pool_module._room_for(2000) == room
    assert asked == ([] if raised is None else [(raised, limits[1])])
