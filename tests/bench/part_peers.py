"""Other programs that speak to many hosts, saying the same to the same host.sh, each in turn with us on the same server."""

import hashlib
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rollout.domain.model import Release
from tests.bench.ask import Ask, say
from tests.bench.floor import AT_ONCE, Floor, Run
from tests.bench.installation import Installation, running
from tests.bench.peers import environment
from tests.bench.report import Figure, Found
from tests.bench.rounds import Round, Rounds, restart_of
from tests.support.sshd import SshHost

HOSTS = 200
ANSIBLE_CPU = 0.2  # ours is at most so much of it


@dataclass(frozen=True)
class Peer:
    """A program in `peers`, and on how many hosts each of its ways is measured; 0 for not at all."""

    name: str
    program: str
    ship: int = HOSTS
    activate: int = HOSTS


PEERS = [
    Peer("asyncssh", "with_asyncssh.py"),
    Peer("parallel-ssh", "with_parallel_ssh.py"),
    Peer("Fabric as it comes", "with_fabric.py"),
    Peer("pyinfra", "with_pyinfra.py", activate=0),
    Peer("Ansible", "with_ansible.py", ship=30, activate=100),
]


class Contest:
    """The peers' fleet (other folders, the same hosts), and what each of them took on it."""

    def __init__(self, system: Installation, base: Release, python: Path) -> None:
        self._system = system
        self._base = base
        self._python = python
        floor = Floor(system.sshd, system.folder / "peers", "peers")
        self._sayings = floor.sayings
        system.install_host_program(self._sayings.path_of)
        floor.ship(base, None)
        self._number = 0
        self.runs: dict[str, list[tuple[int, Run]]] = {}  # name and way → hosts, and what they took

    def one(self, peer: Peer) -> None:
        """Ship a new release to cold hosts; then activate the first one, over warm connections."""
        self._number += 1
        release = replace(self._base, commit=hashlib.sha1(b"peers %d" % self._number).hexdigest())
        self._sayings.ship(release, self._base)
        self._run(peer, "ship", peer.ship, release)
        if peer.activate:
            self._sayings.switch("activate", self._base)
            self._run(peer, "activate", peer.activate, self._base)

    def _run(self, peer: Peer, way: str, most: int, release: Release) -> None:
        hosts = self._system.sshd.hosts[:most]
        self._system.go_cold()
        job = self._system.folder / "job.json"
        job.write_text(json.dumps(self._job(hosts, ship=way == "ship")))
        program = Path(environment.__file__).parent / peer.program
        done = subprocess.run(
            [str(self._python), str(program), str(job)], capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise AssertionError(f"{peer.name}, {way}: {done.stderr.strip()[-1500:]}")
        self._sayings.check(release.commit, hosts)
        run = Run(**json.loads(done.stdout.splitlines()[-1]))
        self.runs.setdefault(f"{peer.name}, {way}", []).append((len(hosts), run))

    def _job(self, hosts: list[SshHost], *, ship: bool) -> dict[str, Any]:
        sshd, folder = self._system.sshd, self._sayings.folder
        return {
            "port": sshd.port,
            "user": sshd.user,
            "key": sshd.identity_file,
            "known_hosts": sshd.known_hosts,
            "at_once": AT_ONCE,
            "ship": ship,
            "warm": not ship,
            "hosts": [
                {
                    "address": host.address,
                    "root": str(host.root),
                    "command": (folder / "command" / host.address).read_text().strip(),
                    "input": str(folder / "input" / host.address),
                }
                for host in hosts
            ],
        }


def measure(ask: Ask) -> Found:
    """Rounds of us and of each peer."""
    python = environment.python()
    if python is None:
        return Found(missing={"peers": "they could not be installed"})
    hosts = ask.few(HOSTS)
    broken: dict[str, str] = {}
    with running(hosts, bake_s=8 + hosts // 20, restart=restart_of(hosts)) as system:
        say(f"peers: a first release on {hosts} hosts")
        rounds = Rounds(system)
        contest = Contest(system, rounds.base, python)
        ours = []
        for number in range(1, ask.rounds + 1):
            say(f"peers: round {number} of {ask.rounds}")
            ours.append(rounds.one())
            for peer in PEERS:
                if peer.name in broken:
                    continue
                say(f"  {peer.name}")
                try:
                    contest.one(peer)
                except AssertionError as error:
                    broken[peer.name] = str(error)
    figures = [figure for peer in PEERS for figure in _figures(peer, ours, contest.runs, hosts)]
    notes = [
        f"ours is the whole system on {hosts} hosts, claims, fences and journals included; they know everything beforehand",
        "ship is a cold connection, 100 KB, prepare and activate; activate is on warm connections and prepared hosts",
        f"on fewer hosts: {', '.join(f'{peer.name} {peer.ship} and {peer.activate}' for peer in PEERS if peer.ship < HOSTS)}",
    ]
    return Found(figures, notes, {"ours": ours, "peers": contest.runs}, broken)


def _figures(
    peer: Peer, ours: list[Round], runs: dict[str, list[tuple[int, Run]]], hosts: int
) -> list[Figure]:
    figures = []
    for way, span in (("ship", "cold"), ("activate", "fan_out")):
        theirs = runs.get(f"{peer.name}, {way}", [])
        if not theirs:
            continue
        mine = [getattr(one, span) for one in ours]
        rate, its_rate = (
            median(hosts / one.seconds for one in mine),
            median(n / one.seconds for n, one in theirs),
        )
        cpu, its_cpu = (
            median(one.cpu_s * 100 / hosts for one in mine),
            median(one.cpu_s * 100 / n for n, one in theirs),
        )
        limit = ANSIBLE_CPU if peer.name == "Ansible" else None
        figures += [
            Figure(f"{peer.name}, {way}: hosts/s", "", rate, its_rate, rate / its_rate),
            Figure(
                f"  client CPU for 100 hosts, {peer.name}, {way}",
                "s",
                cpu,
                its_cpu,
                cpu / its_cpu,
                at_most=limit,
            ),
        ]
    return figures
