"""Too much of everything: webhooks, output, and hosts that take their time. What docs/limits.md states is kept."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.processes import parts
from tests.support.checker.check import check
from tests.support.checker.history import Measured
from tests.support.system import SECRET, System, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.needs("sshd", "git"),
    pytest.mark.timeout(900),
]

WEBHOOKS, SECONDS = 10_000, 60
MEMORY_KB = 100_000  # that a process may grow by, whatever comes
THREADS = 160  # of a process: 40 slots, 64 sealers, a reader for each open connection, Celery's own
STATE_BYTES = 100_000_000  # of the state folder
OUTPUT_CHARACTERS = 8_192
# Beyond the canary a restart waits until the test says go.
WAITING_RESTART = """\
case $HOST in web001) ;; *) while test ! -e "$SSHD_FOLDER/go"; do sleep 0.1; done ;; esac
"""


class Processes:
    """The system's, and how big each was at first."""

    def __init__(self, system):
        self._first = {
            pid: (name, _status(pid, "VmRSS"))
            for pid, name in parts(system.up.pid).items()
            if name in {"web", "control", "hosts", "beat"}
        }
        assert {"web", "control", "hosts"} <= {name for name, _ in self._first.values()}

    def measured(self):
        """For the checker (I14): how much memory each has had in addition, at its peak, and its threads now."""
        return [
            one
            for pid, (name, before) in self._first.items()
            for one in (
                Measured("I14", f"memory of {name}, KB", _status(pid, "VmHWM") - before, MEMORY_KB),
                Measured("I14", f"threads of {name}", _status(pid, "Threads"), THREADS),
            )
        ]


class Flood(threading.Thread):
    """Sends requests at a steady rate, each over a connection of its own; `answers` counts them by status."""

    def __init__(self, requests, port, rate):
        super().__init__(daemon=True)
        self._requests, self._port, self._rate = requests, port, rate
        self.answers = Counter()
        self.took = []  # seconds from the moment at which each was due
        self.numbers = set()  # of the deliveries that are stored by the server's word

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(
            *(
                self._one(request, begin + number / self._rate)
                for number, request in enumerate(self._requests)
            )
        )

    async def _one(self, request, due):
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        answer = b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(request)
                answer = await reader.read()
            finally:
                writer.close()
        except OSError:
            self.answers["no answer"] += 1
        else:
            head = answer.split(b"\r\n\r\n")[0].lower()
            again = b" with retry-after" if b"\r\nretry-after: " in head else b""
            self.answers[(head[9:12] + again).decode()] += 1
            self.numbers |= {int(number) for number in re.findall(rb'"delivery": ?(\d+)', answer)}
            self.took.append(asyncio.get_running_loop().time() - due)

    def p99(self):
        """Seconds."""
        return sorted(self.took)[len(self.took) * 99 // 100]


def push(system, sha, number, branch="main", app="shop"):
    """The bytes of a signed push."""
    body = json.dumps(
        {
            "ref": f"refs/heads/{branch}",
            "after": sha,
            "deleted": False,
            "repository": {"full_name": f"acme/{app}", "clone_url": f"{system.folder}/{app}.git"},
        }
    ).encode()
    head = [
        "POST /webhooks/github HTTP/1.1",
        f"Host: 127.0.0.1:{system.web}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "X-GitHub-Event: push",
        f"X-GitHub-Delivery: flood-{number}",
        f"X-Hub-Signature-256: sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def a_mixture(system, known):
    """Most tell again of a commit that is known, some of another branch, and each hundredth of a commit that nobody has."""
    for number in range(WEBHOOKS):
        unknown = hashlib.sha1(str(number).encode()).hexdigest()
        yield push(
            system, known if number % 100 else unknown, number, branch="other" if number % 10 == 5 else "main"
        )


def stop_in_time(system, number):
    """`rollout stop`, acknowledged within the time that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "rollout", "stop", str(number), "--config", str(system.config)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    took = re.search(r"acknowledged after ([\d.]+) s", done.stdout)
    longest = re.search(r"takes at most (\d+) s", done.stdout)
    assert took, done.stdout + done.stderr
    assert longest, done.stdout
    print(f"acknowledged after {took[1]} s of at most {longest[1]} s")
    assert float(took[1]) <= float(longest[1])


def in_the_middle(system, sha, hosts):
    """Wait until so many hosts are switched to this commit; the number of its rollout."""
    wait_for(
        lambda: sum(disk == sha for disk in system.disks().values()) >= hosts,
        seconds=180,
        why="the fan-out to be in its middle",
    )
    return system.rollout_of(sha)["id"]


def history(system, processes):
    """Everything, with what was measured."""
    state = system.folder / "state"
    size = sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
    return replace(
        system.history(),
        measured=[*processes.measured(), Measured("I14", "bytes of the state folder", size, STATE_BYTES)],
    )


def test_ten_thousand_webhooks_in_a_minute():
    """Each is stored or told to come again, a stop in their middle is acknowledged in time, and nothing grows out of bounds."""
    with System(hosts=8, fan_out="max_failed = 4", bake="2s", health_timeout="3s") as system:
        good = system.push("good")
        system.reaches(good, "done")
        processes = Processes(system)
        sha = system.push("waits", restart_sh=WAITING_RESTART)
        flood = Flood(list(a_mixture(system, good)), system.web, WEBHOOKS / SECONDS)
        number = in_the_middle(system, sha, 3)
        flood.start()
        wait_for(lambda: flood.answers.total() > WEBHOOKS // 4, why="the flood to be in its middle")
        stop_in_time(system, number)
        assert flood.is_alive()
        (system.sshd.folder / "go").touch()
        flood.join()
        print(dict(flood.answers), [(one.name, one.value) for one in processes.measured()])
        assert set(flood.answers) <= {"202", "503 with retry-after"}
        assert flood.answers.total() == WEBHOOKS
        system.reaches(sha, "rolled_back")
        wait_for(
            lambda: no_tests_wait(system), seconds=300, why="the tests of unknown commits to have failed"
        )
        told = history(system, processes)
        assert check(told) == []
        stored = [row for row in told.rows("deliveries") if row["delivery"].startswith("flood-")]
        assert len(stored) == flood.answers["202"]
        assert len(told.rows("commits")) <= 2 + WEBHOOKS // 100


def no_tests_wait(system):
    return not [row for row in system.history().rows("commits") if row["state"] in {"received", "testing"}]


APPS = 50
UNFINISHED = """
SELECT 'delivery', app, head, reason FROM deliveries WHERE settled_at IS NULL
UNION ALL SELECT 'commit', app, sha, reason FROM commits WHERE state IN ('received', 'testing')
UNION ALL SELECT 'rollout', app, "commit", reason FROM rollouts WHERE ended_at IS NULL
"""


def to_every_app(system, message):
    """A commit on the branch of every app; its hash."""
    sha = system.commit(message)
    for app in system.apps:
        system._git("push", "-q", str(system.folder / f"{app}.git"), "main")
    return sha


def of_every_app(system, heads, first):
    """Half of the webhooks: each app is told of each head, again and again, in any order."""
    chance = random.Random(first)
    for number in range(first, first + WEBHOOKS // 2):
        app = list(system.apps)[number % APPS]
        yield push(system, chance.choice(heads), number, app=app)


def rows(system, query):
    """What the store says now."""
    with contextlib.closing(
        sqlite3.connect(f"file:{system.folder}/state/rollout.db?mode=ro", uri=True)
    ) as store:
        return store.execute(query).fetchall()


def too_many_rollouts(system):
    """Apps with more than one rollout that is active, or more than one that is planned; none at any time."""
    unfinished = Counter(
        (one["app"], one["state"] == "pending") for one in system.rollouts() if not one["ended_at"]
    )
    return [app for app, many in unfinished.items() if many > 1]


def test_ten_thousand_webhooks_of_fifty_apps_in_a_minute(figures):
    """Each is answered and comes to its end, nothing grows out of bounds, and no app has more than one rollout and a next one."""
    with System(hosts=1, more_apps=APPS - 1, bake="2s", health_timeout="3s") as system:
        system.reaches(system.push("good"), "done")
        processes, heads, numbers = Processes(system), [], set()
        for first in (0, WEBHOOKS // 2):
            heads += [to_every_app(system, f"change {first} {number}") for number in range(3)]
            flood = Flood(list(of_every_app(system, heads, first)), system.web, WEBHOOKS / SECONDS)
            flood.start()
            while flood.is_alive():
                assert too_many_rollouts(system) == []
                flood.join(2)
            figures(test=f"webhooks of {APPS} apps", **dict(flood.answers), p99_ms=round(flood.p99() * 1000))
            print(dict(flood.answers), f"p99 {flood.p99() * 1000:.0f} ms")
            assert set(flood.answers) <= {"202", "503 with retry-after"}
            assert flood.answers.total() == WEBHOOKS // 2
            numbers |= flood.numbers
        wait_for(
            lambda: not rows(system, UNFINISHED) and too_many_rollouts(system) == [],
            seconds=600,
            every=2,
            why="everything to be decided",
        )
        print([(one.name, one.value) for one in processes.measured()])
        told = history(system, processes)
        assert check(told) == []
        deliveries = told.rows("deliveries")
        print(Counter(row["outcome"] for row in deliveries))
        # What was answered 503 after 8 s may have been stored all the same.
        assert numbers <= {row["id"] for row in deliveries}
        own = {row["id"]: row for row in deliveries if row["outcome"] in {"started", "superseded"}}
        others = [row for row in deliveries if row["id"] not in own]
        assert len({(row["app"], row["head"]) for row in own.values()}) == len(own)
        for row in others:
            first_one = own.get(int((row["ref"] or "").removeprefix("delivery ") or 0))
            assert row["outcome"] == "duplicate", row
            assert first_one is None or (first_one["app"], first_one["head"]) == (row["app"], row["head"])
        assert {row["outcome"] for row in own.values() if row["head"] == heads[-1]} == {"started"}


def test_hosts_that_print_too_much_or_too_slowly():
    """64 MB from one host and a byte a second from another cost these hosts, and neither the others nor the stop."""
    with System(
        hosts=8, fan_out='max_failed = 3\nhost_timeout = "30s"', bake="2s", health_timeout="3s"
    ) as system:
        good = system.push("good")
        system.reaches(good, "done")
        processes = Processes(system)
        loud, slow, late = system.sshd.hosts[3], system.sshd.hosts[4], system.sshd.hosts[5]
        loud.login("head -c 64000000 /dev/zero\n")
        slow.login("while :; do printf x; sleep 1; done\n")
        print_much = 'case $HOST in web007) head -c 64000000 /dev/zero | tr "\\0" x ;; esac\n'
        sha = system.push("prints much", restart_sh=print_much)
        ended = system.reaches(sha, "done", seconds=240)
        assert ended["counts"]["failed"] == 2
        assert {name for name, disk in system.disks().items() if disk != sha} == {loud.name, slow.name}
        loud.login("")
        slow.login("")
        again = system.push("waits", restart_sh=WAITING_RESTART)
        number = in_the_middle(system, again, 2)
        for host in (slow, late):
            host.login("while :; do printf x; sleep 1; done\n")
        stop_in_time(system, number)
        (system.sshd.folder / "go").touch()
        slow.login("")
        late.login("")
        system.reaches(again, "rolled_back", seconds=240)
        print([(one.name, one.value) for one in processes.measured()])
        told = history(system, processes)
        assert check(told) == []
        assert max(len(row["text"]) for row in told.rows("outputs")) <= OUTPUT_CHARACTERS


def _status(pid, name):
    """A number of /proc/<pid>/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1])
