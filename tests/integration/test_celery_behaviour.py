"""What we rely on in Celery, on the real task shells, a real worker of threads and the embedded broker."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from rollout.config import deploy_file
from rollout.dispatch import CeleryBell, celery_app
from rollout.domain import pipeline
from rollout.domain.pipeline import Ring
from rollout.supervisor.broker import Broker

ENDS, LOOKS_LATER, AGAIN_S = 2, 7, 3.0  # as in tests/support/celery_stages.py
TOML = """
[server]
state_dir = "{state}"
[apps.shop]
repository = "{state}/shop.git"
[apps.shop.tests]
command = "true"
[apps.shop.release]
path = "/srv/shop"
[apps.shop.canary]
log = "/srv/shop/access.log"
[apps.shop.fleet]
hosts = ["web1"]
known_hosts = "{state}/known_hosts"
"""


class Probe:
    """A broker, a worker with two threads, and what its tasks wrote down."""

    def __init__(self, folder: Path):
        self.folder = folder
        state = folder / "s"
        file = folder / "rollout.toml"
        file.write_text(TOML.format(state=state))
        config = deploy_file.load(file, {})
        self.broker = Broker(state)
        self.broker.prepare()
        self.processes = [subprocess.Popen(self.broker.command(), stdout=subprocess.DEVNULL)]
        self.broker.wait()
        self.app = celery_app(config.server.broker_url)
        self.bell = CeleryBell(self.app)
        self.redis = redis.Redis(unix_socket_path=str(self.broker.socket), decode_responses=True)
        environment = os.environ | {"ROLLOUT_CONFIG": str(file), "PROBE": str(folder)}
        words = "-m celery -A tests.support.celery_stages worker --pool threads --concurrency 2 -n probe@here"
        with (folder / "log").open("w") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *words.split(), "-Q", "control,hosts", "--loglevel", "INFO"],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, condition, what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}; calls: {self.calls()}\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def finish(self, rollout: int) -> None:
        """Send a chain and wait for its last stage: whatever was sent before has had its turn."""
        self.bell.ring([pipeline.pipeline(rollout)])
        self.until(
            lambda: f"fan_out {rollout} stamp={rollout}" in self.calls(), f"chain {rollout} did not end"
        )

    def waiting(self) -> int:
        return sum(self.redis.llen(key) for key in self.redis.scan_iter() if self.redis.type(key) == "list")

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.redis.close()


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    probe = Probe(tmp_path_factory.mktemp("celery"))
    yield probe
    probe.end()


def deploy(rollout: int, host: int) -> Ring:
    return Ring(pipeline.DEPLOY_HOST, (rollout, host, f"web{host}"), rollout)


def test_a_retry_keeps_the_chain_and_the_stamp(probe):
    """A stage that looks again goes on with its chain, every task of it stamped with the rollout."""
    probe.finish(1)
    assert [call for call in probe.calls() if " 1 " in call] == [
        *["deploy_canary 1 stamp=1"] * 3,
        "evaluate_canary 1 stamp=1",
        "fan_out 1 stamp=1",
    ]


def test_a_stage_that_ends_ends_the_chain(probe):
    """After End the next task of the chain is not sent."""
    probe.bell.ring([pipeline.pipeline(ENDS)])
    probe.finish(3)
    probe.finish(4)
    assert [call for call in probe.calls() if f" {ENDS} " in call] == [f"deploy_canary {ENDS} stamp={ENDS}"]


def test_a_stop_empties_the_queue_of_its_rollout_and_of_no_other(probe):
    """Queued tasks and stages that wait for their next look are dropped; other rollouts' tasks and the stop's own run."""
    mine = LOOKS_LATER
    probe.bell.ring([pipeline.pipeline(mine)])
    probe.until(
        lambda: any(f"deploy_canary {mine} " in call for call in probe.calls()), "the stage did not begin"
    )
    probe.bell.ring([deploy(mine, host) for host in range(101, 111)])
    probe.until(lambda: sum("deploy_host" in call for call in probe.calls()) == 2, "no thread took a host")
    probe.bell.ring([deploy(8, 201)])
    assert probe.bell.revoke(mine)
    assert probe.app.control.ping(
        timeout=10
    )  # answered after the revoke: the worker's mailbox keeps its order
    (probe.folder / "let-go").touch()
    probe.bell.ring(
        [
            Ring(pipeline.ROLL_BACK_HOST, (mine, 101, "web101"), mine, revocable=False),
            pipeline.count_outcome(mine),
        ]
    )
    probe.until(lambda: "deploy_host 201" in probe.calls(), "another rollout's task was dropped")
    probe.until(lambda: "roll_back_host 101" in probe.calls(), "the rollback was dropped")
    probe.until(lambda: f"count_outcome {mine} stamp={mine}" in probe.calls(), "the counting was dropped")
    probe.until(lambda: probe.waiting() == 0, "the queue is not empty")
    deadline = time.monotonic() + AGAIN_S + 1  # the stage's next look would have been in this time
    while time.monotonic() < deadline:
        time.sleep(0.1)
    mine_called = [call for call in probe.calls() if call.startswith(("deploy_host 10", "deploy_host 110"))]
    assert len(mine_called) == 2
    assert sum(call.startswith(f"deploy_canary {mine} ") for call in probe.calls()) == 1


def test_a_worker_that_ends_puts_back_what_it_has(tmp_path):
    """A message under way is known to its worker alone, nowhere in Redis; a worker that ends in good order puts it back."""
    probe = Probe(tmp_path)
    try:
        probe.bell.ring([pipeline.pipeline(LOOKS_LATER)])
        probe.until(lambda: len(probe.calls()) == 1, "the first look was not taken")
        # The next look is under way: in the queue for a moment, then in the worker until its time has come.
        probe.until(lambda: probe.waiting() == 0, "the worker did not take its own message")
        assert not [key for key in probe.redis.scan_iter() if "unacked" in key]
        worker = probe.processes.pop()
        worker.terminate()
        worker.wait(60)
        assert probe.waiting() == 1
    finally:
        probe.end()


def test_a_row_knows_who_waits_for_its_place(tmp_path):
    """Crowded: a message waits in the broker; or one whose time has come waits in the worker; or the worker is to end. Else it is not."""
    probe = Probe(tmp_path)

    def row_says(*crowded):
        said = [f"row 1 crowded={one}" for one in crowded]
        probe.until(
            lambda: [call for call in probe.calls() if call.startswith("row")] == said, f"not {crowded}"
        )

    try:
        probe.bell.ring([Ring(pipeline.PREPARE_HOST, (1, 1, "web1"), 1)])
        row_says(False)
        probe.bell.ring([deploy(8, 201), deploy(8, 202), deploy(8, 203)])  # one of them has the other thread
        row_says(False, True)
        (tmp_path / "let-go").touch()
        row_says(False, True, False)
        probe.bell.ring([pipeline.pipeline(LOOKS_LATER)])
        probe.until(lambda: probe.calls()[-1].startswith("deploy_canary"), "the first look was not taken")
        (tmp_path / "let-go").unlink()
        probe.bell.ring([deploy(8, 204)])
        row_says(False, True, False, True)  # the next look has no thread
        assert probe.waiting() == 0
        (tmp_path / "let-go").touch()
        probe.until(lambda: probe.calls()[-1].endswith("crowded=False"), "the next look was not taken")
        probe.processes[-1].terminate()
        probe.until(lambda: probe.calls()[-1].endswith("crowded=True"), "it was not told that it is to end")
        (tmp_path / "row-may-end").touch()
        assert probe.processes.pop().wait(60) == 0
    finally:
        (tmp_path / "row-may-end").touch()
        probe.end()


def test_nobody_can_tell_who_waits_without_a_broker(tmp_path):
    """Then others may wait: a row ends as if they did."""
    assert CeleryBell(celery_app(f"redis+socket://{tmp_path}/nobody.sock")).crowded()


def test_only_json_is_read(probe):
    """I15: a pickled message is refused, what is in it does not run, and the worker goes on."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(probe.folder / "harm"),)

    with probe.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            ((Harm(),), {}, {}),
            exchange="control",
            routing_key="control",
            serializer="pickle",
            headers={"task": pipeline.COUNT_OUTCOME, "id": "harm"},
        )
    probe.finish(5)
    assert not (probe.folder / "harm").exists()
    assert not any(call.startswith("count_outcome") and "harm" in call for call in probe.calls())


def test_nothing_of_a_result_is_kept_in_the_broker(probe):
    """There is no result backend: tasks leave no keys behind."""
    probe.finish(6)
    assert [key for key in probe.redis.scan_iter() if "result" in key or "meta" in key] == []


def test_many_messages_are_sent_over_one_client(probe, monkeypatch):
    """A client for each message, as kombu makes it, would be an eighth of what a worker has to do."""
    made = []
    make = redis.Redis.__init__
    monkeypatch.setattr(
        redis.Redis, "__init__", lambda self, *a, **b: (made.append(1), make(self, *a, **b))[1]
    )
    assert probe.bell.ring([pipeline.count_outcome(9) for _ in range(20)])
    assert len(made) <= 2


def test_events_of_tasks_come_in_batches_and_none_is_missing(probe):
    """Flower hears of each task that was received, started and done, in fewer messages than there are events."""
    batches = []
    with probe.redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe("*celeryev/task*")
        probe.bell.ring([pipeline.count_outcome(10) for _ in range(12)])

        def of_ours(kind):
            while message := channel.get_message(timeout=0.1):
                body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                batches.append([body] if isinstance(body, dict) else body)
            events = [event for batch in batches for event in batch]
            ours = {event["uuid"] for event in events if event.get("args") in {"(10,)", "[10]"}}
            return [event["uuid"] for event in events if event["type"] == kind and event["uuid"] in ours]

        probe.until(lambda: len(of_ours("task-succeeded")) == 12, "not every task was told to be done")
        assert len(set(of_ours("task-received"))) == len(set(of_ours("task-started"))) == 12
    assert len(batches) < 12
