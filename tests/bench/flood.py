"""Ten thousand webhooks in a minute for fifty apps that are tested and shipped meanwhile.

Each app is told of each head, again and again; of ten webhooks one is of another branch, and one a report on a check.
"""

import contextlib
import json
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.bench import processes
from tests.bench.webhook import answers, request, share
from tests.support.system import System, wait_for

WEBHOOKS, SECONDS, APPS, HEADS = 10_000, 60, 50, 6
WANTED = {"202", "503 with retry-after"}
PATIENCE_S = 900


@dataclass(frozen=True)
class Flooded:
    """What came of it."""

    answers: dict[str, int]
    p50: float  # milliseconds, from the moment at which the request was due to the end of the answer
    p99: float
    most: float
    ran_s: float  # the web, while they came
    waited_s: float  # its threads, for a core: what a busy machine adds
    grown_mb: float  # the web's memory at its peak, beyond what it had before
    outcomes: dict[str, int]  # of all deliveries, when everything is decided
    lost: int  # 202, and without a number of its own, or with one that the store does not have
    crowded: int  # apps that had more than one rollout, or more than one that is next, at some time

    @property
    def otherwise(self) -> int:
        """Answers that are neither "stored" nor "come again"."""
        return sum(many for answer, many in self.answers.items() if answer not in WANTED)

    @property
    def unaccounted(self) -> int:
        """Deliveries that were answered 202 and are not in the store, or have no end."""
        return self.lost + self.outcomes.get("accepted", 0)


def measure() -> Flooded:
    """The whole system, with its workers at work on what the webhooks tell of."""
    with System(hosts=1, more_apps=APPS - 1, bake="2s", health_timeout="3s") as system:
        system.reaches(system.push("good"), "done")
        heads = [_to_every_app(system, f"change {number}") for number in range(HEADS)]
        (web,) = (pid for pid, name in processes.parts(system.up.pid).items() if name == "web")
        before = processes.memory_mb(web)[0]
        ran, waited = processes.ran_and_waited_s(web)
        told = _from_a_process_of_its_own(system, heads)
        ran, waited = (
            now - then for now, then in zip(processes.ran_and_waited_s(web), (ran, waited), strict=True)
        )
        grown = processes.peak_mb(web) - before
        crowded = set()

        def over():
            crowded.update(_rows(system, CROWDED))
            return not _rows(system, OPEN)

        with contextlib.suppress(AssertionError):  # then some have no end, which the figure says
            wait_for(over, seconds=PATIENCE_S, every=2, why="every delivery's end")
        outcomes = Counter(dict(_rows(system, "SELECT outcome, count(*) FROM deliveries GROUP BY outcome")))
        stored = {number for (number,) in _rows(system, "SELECT id FROM deliveries")}
        took = told["took"]
        return Flooded(
            told["answers"],
            share(took, 0.5),
            share(took, 0.99),
            round(took[-1], 1),
            round(ran, 1),
            round(waited, 1),
            round(grown, 1),
            dict(outcomes),
            told["answers"].get("202", 0) - len(set(told["numbers"]) & stored),
            len(crowded),
        )


OPEN = "SELECT 1 FROM deliveries WHERE settled_at IS NULL LIMIT 1"
CROWDED = """
SELECT app FROM rollouts WHERE ended_at IS NULL GROUP BY app, state = 'pending' HAVING count(*) > 1
"""


def _to_every_app(system, message):
    sha = system.commit(message)
    for app in system.apps:
        system._git("push", "-q", str(system.folder / f"{app}.git"), "main")
    return sha


def _rows(system, query):
    file = f"file:{system.folder}/state/rollout.db?mode=ro"
    with contextlib.closing(sqlite3.connect(file, uri=True)) as store:
        return store.execute(query).fetchall()


def _from_a_process_of_its_own(system, heads):
    words = [str(system.folder), str(system.web), ",".join(system.apps), ",".join(heads)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.flood", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout)


async def _flood(requests, port):
    found, took, numbers = Counter(), [], []
    async for answer, late in answers(requests, port, SECONDS / WEBHOOKS):
        took.append(late)
        head = answer.split(b"\r\n\r\n")[0].lower()
        again = " with retry-after" if b"\r\nretry-after: " in head else ""
        found[head[9:12].decode() + again if head else "no answer"] += 1
        numbers.extend(int(number) for number in re.findall(rb'"delivery": ?(\d+)', answer))
    return {"answers": found, "took": sorted(took), "numbers": numbers}


if __name__ == "__main__":
    _folder, _port, _apps, _heads = sys.argv[1:]
    _chance, _names = random.Random(1), _apps.split(",")
    _requests = [
        request(
            Path(_folder),
            _port,
            number,
            app=_names[number % len(_names)],
            sha=_chance.choice(_heads.split(",")),
            **_chance.choice([*[{}] * 8, {"branch": "other"}, {"event": "check_run"}]),
        )
        for number in range(WEBHOOKS)
    ]
    print(json.dumps(uvloop.run(_flood(_requests, int(_port)))))
