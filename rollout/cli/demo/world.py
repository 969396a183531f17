"""The demo's world, a process of its own: the fleet and the traffic. It ends when its standard input does.

`python -m rollout.cli.demo.world FOLDER` writes `world.json` when everything listens, and `traffic.json` twice a second.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.cli.demo.fleet import DemoHost, Fleet
from rollout.cli.demo.traffic import Traffic

COUNT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """What the story needs to know of it."""

    folder: Path
    hosts: tuple[DemoHost, ...]
    ssh_port: int
    http_port: int

    @property
    def identity_file(self) -> Path:
        """The key that opens every host."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The hosts' own keys."""
        return self.folder / "known_hosts"

    def traffic(self) -> Mapping[str, int]:
        """How often each class was answered so far."""
        try:
            counts: dict[str, int] = json.loads((self.folder / "traffic.json").read_text())
        except FileNotFoundError:
            return {}
        return counts


def read_world(folder: Path) -> World | None:
    """The world in `folder`, as soon as it is there."""
    try:
        facts = json.loads((folder / "world.json").read_text())
    except FileNotFoundError:
        return None
    hosts = tuple(DemoHost(name, address, Path(root)) for name, address, root in facts["hosts"])
    return World(folder, hosts, facts["ssh_port"], facts["http_port"])


async def live(folder: Path) -> None:
    """Be the world until standard input ends."""
    fleet = Fleet(folder)
    await fleet.start()
    http_port = _free_port([host.address for host in fleet.hosts])
    facts = {
        "hosts": [(host.name, host.address, str(host.root)) for host in fleet.hosts],
        "ssh_port": fleet.port,
        "http_port": http_port,
    }
    _write(folder / "world.json", facts)
    traffic = Traffic([host.address for host in fleet.hosts], http_port)
    tasks = [asyncio.create_task(traffic.run()), asyncio.create_task(_count(traffic, folder))]
    await _end_of_input()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await fleet.stop()


async def _count(traffic: Traffic, folder: Path) -> None:
    while True:
        _write(folder / "traffic.json", dict(traffic.counts))
        await asyncio.sleep(COUNT_EVERY_S)


async def _end_of_input() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def _free_port(addresses: list[str]) -> int:
    """A port that is free on all of them now."""
    for _ in range(50):
        with socket.create_server((addresses[0], 0)) as first:
            port: int = first.getsockname()[1]
            if all(_is_free(address, port) for address in addresses[1:]):
                return port
    raise OSError("no port is free on all the demo's addresses")


def _is_free(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_server((address, port)):
        return True
    return False


def _write(path: Path, facts: object) -> None:
    """In one piece, for a reader who looks at any time."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(facts))
    draft.replace(path)


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
