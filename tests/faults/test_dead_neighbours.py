"""Broker, database, web, beat and Flower die, stand still or forget, in the middle of a rollout: it ends all the same."""

import os
import shutil
import signal
import threading
import time

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.proxy import Proxy
from tests.support.rig import QUICK, Rig
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(400)]

PAUSED_S = 60.0


BROKER, WEB, BEAT, FLOWER = (
    ("valkey-server",),
    ("rollout", " web "),
    ("celery", " beat "),
    ("celery", "flower"),
)


def in_the_middle(rig, *, slow=0.5):
    """A commit whose fan-out has begun."""
    rig.sound = False
    sha = rig.change(slow=slow)
    wait_for(lambda: len(rig.switched(sha)) >= 2, seconds=90, why="the fan-out to begin")
    return sha, time.monotonic()


def is_done(rig, sha, moment, figures, what):
    ended = rig.ended(sha, moment)
    figures(test="neighbour", what=what, state=ended.state, recovery_s=round(ended.recovery_s, 1))
    assert ended.state == "done"
    assert set(rig.disks().values()) == {sha}
    rig.at_rest()


def test_the_broker_is_killed(rig, figures):
    """Kill -9 of the embedded broker costs nothing but time."""
    sha, moment = in_the_middle(rig)
    os.kill(rig.process(*BROKER), signal.SIGKILL)
    is_done(rig, sha, moment, figures, "broker killed")


@pytest.mark.faults
def test_the_broker_comes_back_without_its_file(rig, figures):
    """Every message is lost with the broker's file, and the rollout ends all the same."""
    sha, moment = in_the_middle(rig)
    os.kill(rig.process(*BROKER), signal.SIGKILL)
    shutil.rmtree(rig.folder / "state" / "broker")
    is_done(rig, sha, moment, figures, "broker killed, its file lost")


@pytest.mark.faults
def test_everything_in_the_broker_is_flushed_again_and_again(rig, figures):
    """FLUSHALL twice a second from the push to the end: queues, bindings and unacknowledged messages are gone, the work is done."""
    ended = threading.Event()
    broker = Redis(unix_socket_path=str(rig.folder / "state" / "broker.sock"), socket_timeout=5)

    def flush():
        while not ended.wait(0.5):
            try:
                broker.flushall()
            except RedisError:
                continue

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        moment = time.monotonic()
        is_done(rig, rig.change(), moment, figures, "FLUSHALL twice a second")
    finally:
        ended.set()
        thread.join()
        broker.close()


@pytest.mark.faults
def test_the_broker_stands_still_for_a_minute(rig, figures):
    """A broker that accepts and never answers for 60 s: hosts processes do the work themselves, or it waits; a stop does not."""
    sha, moment = in_the_middle(rig)
    broker = rig.process(*BROKER)
    os.kill(broker, signal.SIGSTOP)
    try:
        began = time.monotonic()
        code, stopped = rig.rollout("stop", "--reason", "in the silence")
        took = time.monotonic() - began
        assert code == 0
        assert stopped["unconfirmed"] == []
        rig.told_stopped(sha)
        time.sleep(max(0.0, PAUSED_S - (time.monotonic() - moment)))  # the fault itself
    finally:
        os.kill(broker, signal.SIGCONT)
    ended = rig.ended(sha, moment + PAUSED_S)
    figures(test="neighbour", what="broker paused 60 s", state=ended.state, acknowledged_s=round(took, 1))
    assert ended.state == "rolled_back"
    assert sha not in rig.disks().values()
    after = rig.change()
    assert rig.ended(after, 0.0).state == "done"
    rig.at_rest()


@pytest.mark.faults
@pytest.mark.parametrize("rig", ["with flower"], indirect=True)
@pytest.mark.parametrize(
    "words", [pytest.param(WEB, id="web"), pytest.param(BEAT, id="beat"), pytest.param(FLOWER, id="flower")]
)
def test_the_web_beat_or_flower_is_killed_again_and_again(rig, words, figures):
    """Nothing that runs hosts depends on them: killed as soon as they are back, from the push to the end."""
    sha, moment = in_the_middle(rig)
    ended = threading.Event()

    def kill():
        while not ended.wait(0.2):
            if pid := rig.process(*words):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        is_done(rig, sha, moment, figures, f"{' '.join(words).strip()} killed again and again")
    finally:
        ended.set()
        thread.join()


class Cutter(Proxy):
    """Lets a COMMIT through to the server, and then cuts the connection: nobody is told what came of it."""

    every = 0  # of so many COMMITs one is cut; 0: none
    seen = 0
    cuts = 0

    def _pump(self, way, source, sink, frozen):
        if way == "down":
            super()._pump(way, source, sink, frozen)
            return
        with_out = 0
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                if b"COMMIT" in data and self.every:
                    self.seen += 1
                    if self.seen % self.every == 0:
                        self.cuts += 1
                        break
                with_out += len(data)
        except OSError:
            pass
        for sock in (source, sink):
            sock.close()


@pytest.fixture(scope="module")
def on_postgresql(postgres):
    """A rig whose database is PostgreSQL, reached through a proxy."""
    proxy = Cutter(("127.0.0.1", postgres.port))
    direct = postgres.database()
    address = direct.replace(f":{postgres.port}/", f":{proxy.port}/")
    with Rig(environment=QUICK | {"ROLLOUT_DATABASE": address}) as rig:
        rig.database = direct  # the tests' own look is not disturbed
        rig.ended(rig.change(), 0.0)
        yield rig, proxy
    proxy.close()


@pytest.mark.faults
@pytest.mark.needs("postgresql")
def test_postgresql_is_killed_and_comes_back(on_postgresql, postgres, figures):
    """An immediate shutdown in the middle of a fan-out, 5 s without a database: no host is switched twice, all end."""
    rig, _ = on_postgresql
    sha, moment = in_the_middle(rig)
    postgres.stop("immediate")
    try:
        time.sleep(5)  # the fault itself
    finally:
        postgres.resume()
    is_done(rig, sha, moment, figures, "PostgreSQL killed for 5 s")


@pytest.mark.faults
@pytest.mark.needs("postgresql")
def test_connections_are_cut_during_commit(on_postgresql, figures):
    """Every seventh COMMIT is carried out and its answer lost: what was done is found out by reading, and never done twice."""
    rig, proxy = on_postgresql
    moment = time.monotonic()
    proxy.every = 7
    try:
        sha = rig.change()
        ended = rig.ended(sha, moment)
    finally:
        proxy.every = 0
    figures(
        test="neighbour",
        what="every 7th COMMIT's answer lost",
        state=ended.state,
        cuts=proxy.cuts,
        recovery_s=round(ended.recovery_s, 1),
    )
    assert proxy.cuts >= 3
    assert ended.state == "done"
    assert set(rig.disks().values()) == {sha}
    rig.at_rest()
