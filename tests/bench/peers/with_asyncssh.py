"""asyncssh: one event loop, so many hosts at once; the input through the command's standard input."""

import asyncio
from pathlib import Path

import asyncssh
from job import JOB, Clock


async def _connect(host):
    return await asyncssh.connect(
        host["address"],
        JOB["port"],
        username=JOB["user"],
        client_keys=_KEYS,
        known_hosts=_KNOWN,
        agent_path=None,
        config=None,
    )


async def _say(connection, host):
    done = await connection.run(host["command"], input=_INPUTS[host["address"]], encoding=None)
    return done.stdout.decode()


async def main():
    gate = asyncio.Semaphore(JOB["at_once"])
    warm = {}

    async def one(host):
        async with gate:
            if host["address"] in warm:
                return await _say(warm[host["address"]], host)
            async with await _connect(host) as connection:
                return await _say(connection, host)

    async def open_one(host):
        async with gate:
            warm[host["address"]] = await _connect(host)

    if JOB["warm"]:
        await asyncio.gather(*map(open_one, JOB["hosts"]))
    clock = Clock()
    clock.tell(await asyncio.gather(*map(one, JOB["hosts"])))
    for connection in warm.values():
        connection.close()


_KEYS = [asyncssh.read_private_key(JOB["key"])]
_INPUTS = {host["address"]: Path(host["input"]).read_bytes() for host in JOB["hosts"]}
_KNOWN = asyncssh.read_known_hosts(JOB["known_hosts"])
asyncio.run(main())
