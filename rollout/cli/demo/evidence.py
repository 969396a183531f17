"""What the hosts themselves say: read from their disks over SSH and from their services over HTTP, not from the product."""

import asyncio
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import asyncssh

from rollout.cli.demo.fleet import USER, DemoHost
from rollout.cli.demo.world import World

ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What one host runs."""

    disk: str  # the release that `current` points to, "" for none
    answers: str  # the release that its service says it is, "" for no answer


def look(world: World) -> Mapping[str, Found]:
    """What every host runs, by name."""
    return asyncio.run(_look(world))


def ever_switched_to(world: World, commit: str) -> list[str]:
    """The hosts whose own journals say that they were switched to this commit at any time."""
    command = f"grep -c 'verb=activate .*what=intent commit={commit}' srv/shop/.rollout/journal"
    counts = asyncio.run(_everywhere(world, command))
    return [name for name, count in counts.items() if count not in {"", "0"}]


async def _look(world: World) -> Mapping[str, Found]:
    links = await _everywhere(world, "readlink srv/shop/current")
    answers = await asyncio.gather(*(_answer(host, world.http_port) for host in world.hosts))
    return {
        host.name: Found(links[host.name].rpartition("/")[2], answer)
        for host, answer in zip(world.hosts, answers, strict=True)
    }


async def _everywhere(world: World, command: str) -> dict[str, str]:
    async def ask(host: DemoHost) -> tuple[str, str]:
        async with asyncssh.connect(
            host.address,
            world.ssh_port,
            username=USER,
            client_keys=[str(world.identity_file)],
            known_hosts=str(world.known_hosts),
            config=None,
            agent_path=None,
        ) as connection:
            done = await connection.run(f"cd {shlex.quote(str(host.root))} && {command}", check=False)
            return host.name, str(done.stdout).strip()

    return dict(await asyncio.gather(*(ask(host) for host in world.hosts)))


async def _answer(host: DemoHost, port: int) -> str:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host.address, port)
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            text = (await reader.read()).decode(errors="replace")
            writer.close()
            return text.rpartition("release ")[2].strip()
    return ""
