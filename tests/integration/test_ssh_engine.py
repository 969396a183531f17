"""The SSH engine against a real OpenSSH server and a network that misbehaves, with small programs on the host."""

import contextlib
import gc
import itertools
import os
import resource
import shutil
import socket
import subprocess
import threading
import time
import tracemalloc
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from paramiko.common import cMSG_CHANNEL_OPEN

from rollout.domain.model import Answer, PrepareOrder, Release, SwitchOrder
from rollout.errors import (
    AuthRefused,
    HostKeyRefused,
    LeaseLost,
    NoSpace,
    OutcomeUnknown,
    ReleaseError,
    StepFailed,
    Unreachable,
)
from rollout.fleet.commands import Program
from rollout.fleet.connection import HostConnection, RejectUnknownKeys
from rollout.fleet.conversation import Conversation
from rollout.fleet.deadline import Deadline
from rollout.fleet.limits import Limits
from rollout.fleet.ssh import SshFleet
from rollout.fleet.transport import PatientTransport
from tests.support.proxy import deaf_port, proxy
from tests.support.sshd import make_key, running_sshd

pytestmark = pytest.mark.needs("sshd", "ssh-keygen")

COMMIT, DIGEST = "a" * 40, "b" * 64
POLITE = """
root=${0%/.rollout/*}
while IFS= read -r line && [ -n "$line" ]; do
  case $line in size=*) size=${line#size=} ;; esac
done
case $1 in
  hello) echo rollout=1 ;;
  prepare) echo send=yes; head -c "$size" | wc -c >"$root/received" ;;
  activate | rollback)
    echo clock=12; echo boot=b; echo current=none
    IFS= read -r within || { echo reason=cut off; echo end=20; exit; }
    echo "$within" >"$root/permission"
    echo switched=yes ;;
esac
echo current=none
echo end=0
"""
SWITCH = SwitchOrder(5, 6, COMMIT, DIGEST, "true", "true", 60, 30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A fleet of 100 hosts; each test takes hosts that no other test has."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), 100) as running:
        yield running


@pytest.fixture(scope="module")
def numbers():
    """Hosts that nobody has used yet."""
    return itertools.count()


@pytest.fixture
def target(server, numbers):
    """A host of this test's own."""
    return server.target(next(numbers))


@pytest.fixture
def fleet_of():
    """Makes fleets that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(program=POLITE, **limits):
            fleet = SshFleet(replace(Limits(), **limits), program=Program(program))
            return stack.enter_context(contextlib.closing(fleet))

        yield make


@pytest.fixture
def through(server):
    """Makes proxies in front of a host, whose key is then known at the proxy's address too."""
    with contextlib.ExitStack() as stack:

        def make(target, **faults):
            running = stack.enter_context(proxy((target.address, target.port), **faults))
            server.know(running.address, running.port)
            return running, replace(target, address=running.address, port=running.port)

        yield make


def order_for(archive, size=100_000, **changes):
    """An order to prepare an archive of this size."""
    archive.write_bytes(os.urandom(size))
    return PrepareOrder(5, 6, replace(Release(COMMIT, DIGEST, str(archive), size), **changes), 5, ())


def test_prepare_sends_every_byte(target, fleet_of, tmp_path):
    """The host receives exactly the bytes of the archive."""
    order = order_for(tmp_path / "a", 3_000_000)
    outcome = fleet_of().prepare(target, order, timeout_s=20, go_on=lambda: True)
    assert outcome.answer is Answer.DONE
    assert (Path(target.path) / "received").read_text().strip() == "3000000"


def test_activation_greets_then_is_permitted(target, fleet_of):
    """The permission that the worker gives after the greeting is what the host reads."""
    outcome = fleet_of().activate(target, SWITCH, lambda greeting: greeting.clock + 1000, timeout_s=10)
    assert outcome.answer is Answer.DONE
    assert outcome.intent
    assert (Path(target.path) / "permission").read_text() == "within=1012\n"


def test_lost_lease_permits_nothing(target, fleet_of):
    """When the permission is not given, the host reads the end of its input and does nothing."""

    def refuse(greeting):
        raise LeaseLost

    fleet = fleet_of()
    with pytest.raises(LeaseLost):
        fleet.activate(target, SWITCH, refuse, timeout_s=10)
    assert fleet.status(target, timeout_s=20).current is None
    assert not (Path(target.path) / "permission").exists()


def test_a_slow_database_keeps_no_neighbour_waiting(target, fleet_of, tmp_path):
    """Whoever waits for a permission, or reports a switch, leaves the connection to others; none of them cuts it off."""
    fleet = fleet_of(warm_s=1, channel_s=1)
    with ThreadPoolExecutor(1) as neighbour:

        def answered():
            return neighbour.submit(fleet.status, target, timeout_s=20).result().current is None

        def permit(greeting):
            assert answered()
            return 1000

        seen = []
        outcome = fleet.activate(
            target, SWITCH, permit, on_switch=lambda: seen.append(answered()), timeout_s=20
        )
        assert (outcome.answer, seen) == (Answer.DONE, [True])
        order = order_for(tmp_path / "a", 40_000_000)
        assert fleet.prepare(target, order, go_on=answered, timeout_s=60).answer is Answer.DONE


def test_status_runs_while_an_activation_waits(target, fleet_of):
    """Several commands run over one connection at the same time."""
    fleet = fleet_of()
    seen = []

    def permit(greeting):
        seen.append(fleet.status(target, seal=(9, 9), timeout_s=20))
        return 1000

    assert fleet.activate(target, SWITCH, permit, timeout_s=10).answer is Answer.DONE
    assert len(seen) == 1
    assert len(fleet._pool) == 1


def test_program_is_installed_once(target, fleet_of):
    """The first call installs the program under its digest; later ones only run it."""
    fleet = fleet_of()
    fleet.status(target, timeout_s=20)
    installed = Path(target.path) / ".rollout/bin" / Program(POLITE).digest
    before = installed.stat()
    fleet.status(target, timeout_s=20)
    assert installed.read_text() == POLITE
    assert installed.stat().st_mtime_ns == before.st_mtime_ns
    assert [file.name for file in installed.parent.iterdir()] == [installed.name]


def test_check_times_the_login_shell(server, numbers, fleet_of):
    """A host whose start-up files are slow shows it in `sh_ms`."""
    number = next(numbers)
    server.hosts[number].login("sleep 0.3")
    found = fleet_of().check(server.target(number), timeout_s=10)
    assert found["rollout"] == "1"
    assert int(found["sh_ms"]) >= 300


def test_read_runs_a_program_with_lines(target, fleet_of):
    """A read-only program gets its lines on standard input, and its quotes and backslashes arrive as they are."""
    program = "while IFS= read -r l; do printf '<%s>\\n' \"$l\"; done; printf '%s' 'it'\"'\"'s \\\\'\n"
    assert fleet_of().read(target, program, ["a b", "$(id)"], timeout_s=20) == "<a b>\n<$(id)>\nit's \\\\"


def test_read_that_fails_says_why(target, fleet_of):
    """A program that exits non-zero is a failed step with its last words."""
    with pytest.raises(StepFailed, match=r"ended with 3.*no such log"):
        fleet_of().read(target, "echo no such log >&2; exit 3", [], timeout_s=20)


def test_noise_of_a_login_script_is_ignored(server, numbers, fleet_of):
    """What a login script prints before the first known key changes nothing."""
    number = next(numbers)
    server.hosts[number].login("echo Welcome; echo 'motd=1'; echo last=never")
    assert fleet_of().status(server.target(number), timeout_s=20).current is None


def test_noise_of_a_login_script_that_comes_first_ends_no_sending(server, numbers, fleet_of, monkeypatch):
    """It is there before the first byte of ours is sent: host.sh is installed all the same, and asked."""
    number, send = next(numbers), Conversation.send
    server.hosts[number].login("echo Welcome")

    def noise_has_come(talk):
        with contextlib.suppress(TimeoutError):
            talk._connection.transport.make_room(talk._channel, Deadline.after(0))
        return talk._channel.recv_ready()

    def send_late(talk, data):
        until(lambda: noise_has_come(talk))
        send(talk, data)

    monkeypatch.setattr(Conversation, "send", send_late)
    assert fleet_of().status(server.target(number), timeout_s=20).current is None


def test_unknown_host_key_is_refused_with_the_line_to_add(target, fleet_of, tmp_path):
    """A host that is not in known_hosts is refused, and the message says how to check and add it."""
    empty = tmp_path / "known"
    empty.write_text("")
    with pytest.raises(HostKeyRefused, match="unknown") as caught:
        fleet_of().status(replace(target, known_hosts=str(empty)), timeout_s=20)
    assert f"ssh-keyscan -p {target.port} {target.address} >> {empty}" in caught.value.remedy
    assert empty.read_text() == ""


def test_changed_host_key_is_refused(target, fleet_of, tmp_path):
    """Another key than the known one is refused, whatever else is right."""
    make_key(tmp_path / "other")
    kind, blob = (tmp_path / "other.pub").read_text().split()[:2]
    known = tmp_path / "known"
    known.write_text(f"[{target.address}]:{target.port} {kind} {blob}\n")
    with pytest.raises(HostKeyRefused, match="changed"):
        fleet_of().status(replace(target, known_hosts=str(known)), timeout_s=20)


def test_missing_known_hosts_is_said(target, fleet_of, tmp_path):
    """Without a known_hosts file no host is known, and the message names the file."""
    with pytest.raises(HostKeyRefused, match="nowhere"):
        fleet_of().status(replace(target, known_hosts=str(tmp_path / "nowhere")), timeout_s=20)


def test_hashed_known_hosts_are_understood(server, target, fleet_of, tmp_path):
    """A file that ssh-keygen has hashed is as good as a plain one."""
    hashed = tmp_path / "known"
    shutil.copy(server.known_hosts, hashed)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    assert target.address not in hashed.read_text()
    assert fleet_of().status(replace(target, known_hosts=str(hashed)), timeout_s=20).current is None


def test_refused_key_is_no_network_failure(target, fleet_of, tmp_path):
    """A key that the host does not know is AuthRefused, which is not worth trying again."""
    make_key(tmp_path / "stranger")
    with pytest.raises(AuthRefused, match="refused our key") as caught:
        fleet_of().status(replace(target, identity_file=str(tmp_path / "stranger")), timeout_s=10)
    assert not caught.value.retryable


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_work(kind, server, target, fleet_of, tmp_path):
    """RSA and ECDSA keys log in as well."""
    key = tmp_path / "key"
    make_key(key, kind)
    with (server.folder / "authorized_keys").open("a") as file:
        file.write(Path(f"{key}.pub").read_text())
    assert fleet_of().status(replace(target, identity_file=str(key)), timeout_s=10).current is None


def test_key_that_needs_a_passphrase_is_said(target, fleet_of, tmp_path):
    """Nobody is there to type a passphrase, and the message says so."""
    make_key(tmp_path / "locked", passphrase="secret words")
    with pytest.raises(AuthRefused, match="locked") as caught:
        fleet_of().status(replace(target, identity_file=str(tmp_path / "locked")), timeout_s=20)
    assert "passphrase" in caught.value.remedy


def test_old_algorithms_are_refused(tmp_path_factory, fleet_of):
    """A server that offers only CBC ciphers is refused."""
    folder = tmp_path_factory.mktemp("old")
    with (
        running_sshd(folder, 1, {"Ciphers": "aes128-cbc"}) as old,
        pytest.raises(AuthRefused, match="no algorithm in common"),
    ):
        fleet_of().status(old.target(), timeout_s=20)


def test_server_without_our_first_ciphers_is_served_by_others(tmp_path_factory, fleet_of):
    """AES-GCM is preferred, and not asked for: a server that has CTR alone is read all the same, by a thread of its own."""
    options = {"Ciphers": "aes128-ctr", "MACs": "hmac-sha2-256"}
    with running_sshd(tmp_path_factory.mktemp("ctr"), 1, options) as plain:
        fleet, before = fleet_of(), threading.active_count()
        for _ in range(3):
            assert fleet.status(plain.target(), timeout_s=20).sealed is False
        transport = the_transport(fleet)
        assert transport.is_alive()
        plain.hang_up()
        until(lambda: not transport.is_alive())
        assert not transport.active
        assert threading.active_count() <= before + 1  # the deadlines' one


@pytest.mark.parametrize("options", [{}, {"Ciphers": "aes128-ctr", "MACs": "hmac-sha2-256"}])
def test_keys_are_exchanged_anew_in_the_middle_of_anything(options, tmp_path_factory, fleet_of, tmp_path):
    """A server that wants new keys gets them while we send, while we wait and while nobody waits at all."""
    with running_sshd(tmp_path_factory.mktemp("rekey"), 1, {"RekeyLimit": "256K", **options}) as eager:
        fleet = fleet_of()
        for size in (3_000_000, 3_100_000):
            order = order_for(tmp_path / str(size), size)
            assert (
                fleet.prepare(eager.target(), order, timeout_s=60, go_on=lambda: True).answer is Answer.DONE
            )
            assert (Path(eager.target().path) / "received").read_text().strip() == str(size)
        assert fleet.status(eager.target(), timeout_s=20).sealed is False
        transport = the_transport(fleet)
        transport.renegotiate_keys()
        assert transport.active
        assert fleet.status(eager.target(), timeout_s=20).sealed is False
        assert the_transport(fleet) is transport


def test_idle_connections_cost_no_threads_and_answer_their_hosts(tmp_path_factory, fleet_of, monkeypatch):
    """A dozen connections that nobody uses have one thread together, which answers each host that asks whether we live."""
    asked = Counter()
    answer = PatientTransport._parse_global_request

    def count(self, message):
        asked[self] += 1
        answer(self, message)

    monkeypatch.setattr(PatientTransport, "_parse_global_request", count)
    options = {"ClientAliveInterval": "1", "ClientAliveCountMax": "1"}
    with running_sshd(tmp_path_factory.mktemp("alive"), 12, options) as server:
        fleet, before = fleet_of(), threading.active_count()
        for number in range(12):
            fleet.status(server.target(number), timeout_s=20)
        transports = [entry.connection.transport for entry in fleet._pool._entries.values()]
        # The first is about its host keys; who does not answer the second is cut before a third.
        until(lambda: all(asked[transport] >= 4 for transport in transports), seconds=40)
        assert all(transport.active for transport in transports)
        assert threading.active_count() <= before + 2  # the attendant's and the deadlines'


def test_a_host_that_hangs_up_is_noticed_while_nobody_waits(tmp_path_factory, fleet_of):
    """The end of an idle connection closes it at once, so that no file descriptor stays with a dead one."""
    with running_sshd(tmp_path_factory.mktemp("gone"), 1) as server:
        fleet = fleet_of()
        fleet.status(server.target(), timeout_s=20)
        transport = the_transport(fleet)
        assert transport.active
        server.hang_up()
        until(lambda: not transport.active)
        until(lambda: transport.number == -1)
        assert not fleet._engine.attendant._watched


TWO_AT_ONCE = """
folder=${0%/.rollout/*}
echo current=none
if mkdir "$folder/first"; then
    until [ -e "$folder/second" ]; do sleep .01; done
else
    touch "$folder/second"
    until [ -e "$folder/go" ]; do sleep .01; done
fi
echo end=0
"""


@pytest.mark.parametrize("end", ["the host hangs up", "it is closed"])
def test_a_connection_that_is_over_waits_for_no_garbage_collector(
    end, tmp_path_factory, fleet_of, monkeypatch
):
    """Collections are rare in a worker: a thousand dead connections would lie about until one comes."""
    made = []

    def remember(self, wire, attendant, **options):
        made.append(weakref.ref(self))
        begin(self, wire, attendant, **options)

    begin = PatientTransport.__init__
    monkeypatch.setattr(PatientTransport, "__init__", remember)
    with running_sshd(tmp_path_factory.mktemp("over"), 1) as server:
        fleet = fleet_of()
        gc.disable()
        try:
            fleet.status(server.target(), timeout_s=20)
            assert made[0]() is not None
            if end == "it is closed":
                fleet.close()
            else:
                server.hang_up()
                until(lambda: not made[0]() or not made[0]().active)
                fleet.status(server.target(), timeout_s=20)
            until(lambda: made[0]() is None)
        finally:
            gc.enable()


def test_another_reads_on_when_who_read_is_done(target, fleet_of):
    """Two wait at one host; the one that reads for both gets its answer first, and the other still gets its own."""
    fleet = fleet_of(TWO_AT_ONCE)
    folder = Path(target.path)
    with ThreadPoolExecutor(2) as pool:
        reads = pool.submit(fleet.status, target, timeout_s=30)
        until((folder / "first").exists)
        waits = pool.submit(fleet.status, target, timeout_s=30)
        assert reads.result().current is None
        assert not waits.done()
        (folder / "go").touch()
        assert waits.result().current is None
    assert len(fleet._pool) == 1


def test_host_without_sessions_is_unreachable(tmp_path_factory, fleet_of):
    """A server that logs us in and opens no session is unreachable, and says why."""
    folder = tmp_path_factory.mktemp("closed")
    with (
        running_sshd(folder, 1, {"MaxSessions": "0"}) as closed,
        pytest.raises(Unreachable, match="refuses another session"),
    ):
        fleet_of().status(closed.target(), timeout_s=20)


def test_closed_port_is_unreachable(target, fleet_of):
    """A refused connection says so and is worth trying again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unreachable, match="refuses the connection") as caught:
            fleet_of().status(replace(target, address="127.0.0.1", port=port), timeout_s=20)
    assert caught.value.retryable


def test_impossible_name_is_unreachable(target, fleet_of):
    """A name that cannot even be asked for is an unreachable host."""
    with pytest.raises(Unreachable):
        fleet_of().status(replace(target, address="web..example"), timeout_s=20)


def test_hang_at_connect(target, fleet_of):
    """A host that never takes the connection costs its connect deadline."""
    with deaf_port() as (address, port), pytest.raises(Unreachable, match=r"no connection within 0.6 s"):
        fleet_of(connect_s=0.6).status(replace(target, address=address, port=port), timeout_s=20)


def test_hang_before_the_banner(target, fleet_of, through):
    """A host that takes the connection and says nothing costs its banner deadline."""
    _, there = through(target, mute=True)
    with pytest.raises(Unreachable, match=r"no SSH banner within 0.6 s"):
        fleet_of(banner_s=0.6).status(there, timeout_s=20)


def test_hang_in_the_key_exchange(target, fleet_of, through):
    """A host that stops after its banner costs the same deadline, and the message tells the difference."""
    _, there = through(target, freeze_down_after=200)
    with pytest.raises(Unreachable, match=r"key exchange not finished within 6 s"):
        fleet_of(banner_s=6).status(there, timeout_s=20)


def test_hang_in_the_login(target, fleet_of, through, monkeypatch):
    """A host that stops after its key was accepted costs its login deadline, and is no refused key."""
    running, there = through(target)
    check = RejectUnknownKeys.missing_host_key

    def check_then_freeze(self, *given):
        check(self, *given)
        running.freeze()

    monkeypatch.setattr(RejectUnknownKeys, "missing_host_key", check_then_freeze)
    with pytest.raises(Unreachable, match=r"no answer to the login within 0.6 s"):
        fleet_of(auth_s=0.6).status(there, timeout_s=20)


def test_hang_at_the_first_session(target, fleet_of, through, monkeypatch):
    """A host that logs us in and then says nothing costs its channel deadline, and the connection with it."""
    running, there = through(target)
    opened = HostConnection.open_within

    def open_then_freeze(self, deadline):
        opened(self, deadline)
        running.freeze()

    monkeypatch.setattr(HostConnection, "open_within", open_then_freeze)
    fleet = fleet_of(channel_s=0.6)
    with pytest.raises(Unreachable, match="opens no session in time"):
        fleet.status(there, timeout_s=20)
    assert len(fleet._pool) == 0


def test_hang_before_the_exit_status(target, fleet_of):
    """A command that has said all and does not end costs the deadline of its exit status."""
    with pytest.raises(Unreachable, match="exit status did not come in time"):
        fleet_of(exec_s=0.6).read(target, "echo all; exec >&- 2>&-; sleep 60", [], timeout_s=20)


def test_connection_lost_in_the_login_is_no_refused_key(target, fleet_of, through, monkeypatch):
    """A connection that breaks while logging in is unreachable: a second attempt makes sense."""
    running, there = through(target)
    check = RejectUnknownKeys.missing_host_key

    def check_then_cut(self, *given):
        check(self, *given)
        running.cut()

    monkeypatch.setattr(RejectUnknownKeys, "missing_host_key", check_then_cut)
    with pytest.raises(Unreachable):
        fleet_of().status(there, timeout_s=20)


def test_frozen_warm_connection_is_replaced(target, fleet_of, through):
    """A warm connection that says nothing any more is given up for a new one, silently."""
    running, there = through(target)
    fleet = fleet_of(warm_s=0.5)
    fleet.status(there, timeout_s=20)
    running.freeze()
    assert fleet.status(there, timeout_s=20).current is None
    assert running.accepted == 2


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
def test_steps_of_the_clock_end_no_login_and_no_session(step, target, fleet_of, monkeypatch):
    """The library reads the wall clock while it waits for a session: a step of it at every look does not end the wait."""
    steps, send = itertools.count(), PatientTransport._send_user_message

    def slowly(transport, message):
        if message.asbytes()[0] == cMSG_CHANNEL_OPEN[0]:
            threading.Timer(0.3, send, (transport, message)).start()
        else:
            send(transport, message)

    monkeypatch.setattr(PatientTransport, "_send_user_message", slowly)
    stepping = SimpleNamespace(time=lambda: time.time() + step * next(steps), sleep=time.sleep)
    for module in ("transport", "auth_handler", "channel"):
        monkeypatch.setattr(f"paramiko.{module}.time", stepping)
    assert fleet_of().status(target, timeout_s=10).current is None


def test_dead_warm_connection_is_replaced(server, target, fleet_of):
    """A warm connection that the host has closed is opened again, silently."""
    fleet = fleet_of()
    fleet.status(target, timeout_s=20)
    server.hang_up()
    assert fleet.status(target, timeout_s=20).current is None


def test_connect_that_is_dropped_early_is_tried_once_more(target, fleet_of, through):
    """A connection that ends before the login is opened a second time."""
    running, there = through(target, drop_first=1)
    assert fleet_of().status(there, timeout_s=10).current is None
    assert running.accepted == 2


def test_connect_is_tried_twice_and_not_for_ever(target, fleet_of, through):
    """A host that always drops the connection is unreachable after the second time."""
    running, there = through(target, drop_first=100)
    with pytest.raises(Unreachable, match=r"closed the connection|SSH session failed"):
        fleet_of().status(there, timeout_s=10)
    assert running.accepted == 2


def test_command_without_an_answer(target, fleet_of):
    """A command that says nothing costs the deadline of its first line."""
    with pytest.raises(Unreachable, match="no answer in time"):
        fleet_of("sleep 60", exec_s=2).status(target, timeout_s=20)


def test_one_byte_at_a_time_is_no_way_to_live_for_ever(target, fleet_of):
    """A host that drips keeps its slot until the deadline and no longer."""
    with pytest.raises(Unreachable, match="no answer in time"):
        fleet_of("while :; do printf x; sleep 0.05; done").status(target, timeout_s=3)


def test_answer_that_stalls_half_way(target, fleet_of):
    """A reply without its end is no reply."""
    with pytest.raises(Unreachable, match="no answer in time"):
        fleet_of("echo current=none; sleep 60").status(target, timeout_s=3)


def test_torn_end_is_not_trusted(target, fleet_of):
    """`end=1` of a torn `end=10` is not an answer."""
    with pytest.raises(StepFailed, match=r"ended with 0.*it said: end=0"):
        fleet_of("echo current=none; printf end=0").status(target, timeout_s=20)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_64_megabytes_of_output_do_not_hurt(stream, target, fleet_of):
    """A host that prints 64 MB is cut, on either stream, in bounded memory."""
    fleet = fleet_of(f"head -c 64000000 /dev/zero >&{stream}; echo current=none; echo end=0")
    tracemalloc.start()
    try:
        with pytest.raises(StepFailed, match="printed more than 4096 KiB"):
            fleet.status(target, timeout_s=30)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_much_noise_below_the_cap_is_read_over(server, numbers, fleet_of):
    """A megabyte of noise before the answer, on both streams and without line ends, is read over."""
    number = next(numbers)
    server.hosts[number].login("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo")
    assert fleet_of().status(server.target(number), timeout_s=20).current is None


def test_cut_while_sending_leaves_nothing(target, fleet_of, through, tmp_path):
    """A connection that breaks before the last byte of the archive is Unreachable: the host keeps nothing of it."""
    _, there = through(target, cut_up_after=400_000)
    with pytest.raises(Unreachable):
        fleet_of().prepare(there, order_for(tmp_path / "a", 3_000_000), timeout_s=20, go_on=lambda: True)


def test_host_that_stops_reading(target, fleet_of, through, tmp_path):
    """A transfer that does not move costs its stall deadline."""
    _, there = through(target, freeze_up_after=400_000)
    with pytest.raises(Unreachable, match=r"stopped taking|did not take"):
        fleet_of(stall_s=1).prepare(
            there, order_for(tmp_path / "a", 30_000_000), timeout_s=10, go_on=lambda: True
        )


def test_program_that_reads_nothing(target, fleet_of, tmp_path):
    """A program that lets the window fill costs the stall deadline."""
    program = POLITE.replace('head -c "$size" | wc -c >"$root/received"', "sleep 60")
    with pytest.raises(Unreachable, match="stopped taking"):
        fleet_of(program, stall_s=1).prepare(
            target, order_for(tmp_path / "a", 9_000_000), timeout_s=20, go_on=lambda: True
        )


def test_go_on_cuts_a_transfer(target, fleet_of, tmp_path):
    """A prepare that is no longer wanted is cut while it sends."""
    program = POLITE.replace('head -c "$size" | wc -c >"$root/received"', "sleep 60")
    with pytest.raises(OutcomeUnknown, match="no longer wanted"):
        fleet_of(program, stall_s=60).prepare(
            target, order_for(tmp_path / "a", 9_000_000), timeout_s=60, go_on=lambda: False
        )


def test_early_answer_ends_a_transfer(target, fleet_of, tmp_path):
    """A host that says no while it is sent to is heard."""
    program = POLITE.replace(
        'head -c "$size" | wc -c >"$root/received" ;;', "echo reason=no room; echo end=30; exit ;;"
    )
    outcome = fleet_of(program).prepare(
        target, order_for(tmp_path / "a", 9_000_000), timeout_s=20, go_on=lambda: True
    )
    assert (outcome.answer, outcome.reason) == (Answer.BROKEN, "no room")


def test_missing_archive_is_our_own_fault(target, fleet_of, tmp_path):
    """An archive that is gone or torn is found before the host is asked."""
    order = order_for(tmp_path / "a", size=10)
    (tmp_path / "a").write_bytes(b"torn")
    with pytest.raises(ReleaseError, match="has 4"):
        fleet_of().prepare(target, order, timeout_s=5, go_on=lambda: True)


def test_cut_before_the_greeting_changes_nothing(target, fleet_of, through):
    """Without a permission the host cannot have switched, so a cut before it is Unreachable."""
    running, there = through(target)
    fleet = fleet_of(POLITE.replace("echo clock=12", "sleep 30; echo clock=12"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fleet.activate, there, SWITCH, lambda greeting: 1000, timeout_s=20)
        until((Path(target.path) / ".rollout/bin").exists)
        running.cut()
        with pytest.raises(Unreachable):
            waiting.result()


def test_cut_after_the_permission_is_unknown(target, fleet_of, through):
    """Once the permission was sent, no answer is no knowledge."""
    running, there = through(target)
    fleet = fleet_of(POLITE.replace("echo switched=yes", "sleep 30; echo switched=yes"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fleet.activate, there, SWITCH, lambda greeting: 1000, timeout_s=20)
        until((Path(target.path) / "permission").exists)
        running.cut()
        with pytest.raises(OutcomeUnknown, match="connection broke"):
            waiting.result()


def test_silence_after_the_permission_is_unknown(target, fleet_of):
    """A host that hangs after the permission costs the step's time, and its outcome is unknown."""
    fleet = fleet_of(POLITE.replace("echo switched=yes", "sleep 30"))
    with pytest.raises(OutcomeUnknown, match="no answer in time"):
        fleet.activate(target, SWITCH, lambda greeting: 1000, timeout_s=3)


def test_killed_after_the_permission_is_unknown(target, fleet_of):
    """A program that ends without an answer after the permission leaves the outcome unknown."""
    fleet = fleet_of(POLITE.replace("echo switched=yes", "kill -9 $$"))
    with pytest.raises(OutcomeUnknown):
        fleet.activate(target, SWITCH, lambda greeting: 1000, timeout_s=10)


def test_answer_counts_although_the_command_lives_on(target, fleet_of):
    """After `end=` nothing more is waited for, not even the exit status."""
    assert fleet_of("echo current=none; echo end=0; sleep 60").status(target, timeout_s=20).current is None


@pytest.mark.parametrize(("code", "answer"), [(10, Answer.FAILED), (20, Answer.REFUSED), (30, Answer.BROKEN)])
def test_answers_of_a_switch(code, answer, target, fleet_of):
    """Each code of `end=` is an outcome and no error."""
    program = POLITE.replace("echo switched=yes ;;", f"echo reason=why; echo end={code}; exit ;;")
    outcome = fleet_of(program).activate(target, SWITCH, lambda greeting: 1000, timeout_s=20)
    assert (outcome.answer, outcome.reason) == (answer, "why")


def test_hung_host_delays_nobody(server, numbers, fleet_of, through):
    """While one host hangs, all others are read."""
    running, hung = through(server.target(next(numbers)), mute=True)
    others = [server.target(next(numbers)) for _ in range(5)]
    fleet = fleet_of(banner_s=60)
    with ThreadPoolExecutor(6) as pool:
        waiting = pool.submit(fleet.status, hung, timeout_s=60)
        until(lambda: running.accepted)
        for reading in [pool.submit(fleet.status, there, timeout_s=30) for there in others]:
            assert reading.result().current is None
        assert not waiting.done()
        running.close()
        with pytest.raises(Unreachable):
            waiting.result()


def test_many_threads_share_connections(server, numbers, fleet_of):
    """Any number of threads read the same hosts over one connection each."""
    targets = [server.target(next(numbers)) for _ in range(5)]
    fleet = fleet_of()
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda n: fleet.status(targets[n % 5], timeout_s=30), range(150)))
    assert len(found) == 150
    assert len(fleet._pool) == 5


def test_pool_is_bounded(server, numbers, fleet_of):
    """More hosts than the pool holds: the ones used longest ago are closed."""
    targets = [server.target(next(numbers)) for _ in range(4)]
    fleet = fleet_of(pool_size=2)
    for there in targets:
        fleet.status(there, timeout_s=10)
    assert [key[0] for key in fleet._pool._entries] == [there.address for there in targets[-2:]]


def test_idle_connections_are_closed(target, fleet_of):
    """A connection that nobody has used for a while is closed by itself."""
    fleet = fleet_of(idle_s=0.4)
    fleet.status(target, timeout_s=20)
    until(lambda: len(fleet._pool) == 0)


def test_close_ends_what_waits(target, fleet_of):
    """Closing the fleet ends a running step at once, and its threads are gone."""
    before = set(threading.enumerate())
    fleet = fleet_of("echo current=none; touch ${0%/.rollout/*}/began; sleep 60")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fleet.status, target, timeout_s=60)
        until((Path(target.path) / "began").exists)
        fleet.close()
        with pytest.raises(Unreachable):
            waiting.result()
    until(lambda: set(threading.enumerate()) <= before)


def test_no_file_descriptor_left_is_said(target, fleet_of):
    """A worker that runs out of file descriptors says that it is the worker, and no lock stays held."""
    fleet = fleet_of()
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(socket.socket())
        with pytest.raises(Unreachable, match="no free file descriptor"):
            fleet.status(target, timeout_s=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in held:
            sock.close()
    assert fleet.status(target, timeout_s=20).current is None


@pytest.mark.needs("root", "mount")
def test_full_disk_at_the_first_visit(target, fleet_of, small_disk):
    """When not even our program fits, the error is NoSpace and names the folder."""
    with small_disk(target.path, kib=4) as folder:
        (folder / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(NoSpace, match="No space left"):
            fleet_of().status(target, timeout_s=20)


def test_folder_that_may_not_be_written(target, fleet_of):
    """A path that is no folder is NoSpace with what the host said."""
    Path(target.path).write_text("a file")
    with pytest.raises((NoSpace, StepFailed), match="could not be installed"):
        fleet_of().status(target, timeout_s=20)


@pytest.fixture
def small_disk():
    """Mounts a tmpfs of a few KiB."""

    @contextlib.contextmanager
    def mount(path, kib):
        Path(path).mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path], capture_output=True
        )
        if made.returncode:
            pytest.skip(f"may not mount here: {made.stderr.decode().strip()}")
        try:
            yield Path(path)
        finally:
            subprocess.run(["umount", "-l", path], check=True)

    return mount


def the_transport(fleet):
    """Of its only connection."""
    (entry,) = fleet._pool._entries.values()
    return entry.connection.transport


def until(condition, seconds=15):
    """Wait for a condition; fail after a deadline."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("the condition did not come true")


def test_slow_sender_never_speaks_after_the_end(target, fleet_of, monkeypatch):
    """A host that ends its command while we still send to it does not cost the connection and its other commands."""
    pause = threading.Event()
    send = PatientTransport._send_user_message

    def slowly(self, message):
        pause.wait(0.03)
        send(self, message)

    fleet = fleet_of("echo current=none; echo end=0")
    fleet.status(target, timeout_s=20)
    monkeypatch.setattr(PatientTransport, "_send_user_message", slowly)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: fleet.status(target, timeout_s=20), range(40)):
            pass
    assert [entry.connection.transport.is_active() for entry in fleet._pool._entries.values()] == [True]
