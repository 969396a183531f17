"""The demo's fleet: real SSH servers on loopback addresses, in one process, each with a folder for its host.

What a client asks for is run for real by /bin/sh, in the host's folder, as the user who plays the demo.
"""

import asyncio
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

USER = "demo"
LONGEST_LOGIN_S = 30
CHUNK = 65536


@dataclass(frozen=True, slots=True)
class DemoHost:
    """A host of the fleet."""

    name: str
    address: str
    root: Path


class Fleet:
    """Starts the servers and writes what a client needs: `id_ed25519` and `known_hosts`, in `folder`."""

    def __init__(self, folder: Path, count: int = 12) -> None:
        self.folder = folder
        self.port = 0
        network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        self.hosts = [
            DemoHost(f"shop{number:02}", f"{network}.{number}", folder / "hosts" / f"shop{number:02}")
            for number in range(1, count + 1)
        ]
        self._servers: list[asyncssh.SSHAcceptor] = []

    @property
    def identity_file(self) -> Path:
        """The key that opens every host."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The hosts' own keys."""
        return self.folder / "known_hosts"

    async def start(self) -> None:
        """Listen on one free port of every address."""
        client = asyncssh.generate_private_key("ssh-ed25519")
        _write_private(self.identity_file, client.export_private_key())
        allowed = asyncssh.import_authorized_keys(client.export_public_key().decode())
        known = []
        for host in self.hosts:
            host.root.mkdir(parents=True)
            key = asyncssh.generate_private_key("ssh-ed25519")
            self._servers.append(await self._listen(host, key, allowed))
            self.port = self._servers[-1].get_port()
            known.append(f"[{host.address}]:{self.port} {key.export_public_key().decode().strip()}\n")
        self.known_hosts.write_text("".join(known))

    async def stop(self) -> None:
        """Close every server and its connections."""
        for server in self._servers:
            server.close()
        for server in self._servers:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 2)

    async def _listen(
        self, host: DemoHost, key: asyncssh.SSHKey, allowed: asyncssh.SSHAuthorizedKeys
    ) -> asyncssh.SSHAcceptor:
        async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
            await _run(host, process)

        return await asyncssh.listen(
            host.address,
            self.port,
            server_host_keys=[key],
            authorized_client_keys=allowed,
            password_auth=False,
            kbdint_auth=False,
            gss_host=None,
            process_factory=run,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            x11_forwarding=False,
            login_timeout=LONGEST_LOGIN_S,
            backlog=64,
        )


async def _run(host: DemoHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run one command. When its connection goes away its input ends and it runs on, as with any sshd."""
    if process.command is None:
        process.stderr.write(b"this host runs commands; it has no interactive shell\n")
        process.exit(1)
        return
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=host.root,
        env=_environment(host),
        start_new_session=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    assert shell.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, shell.stdin))
    await asyncio.gather(_forward(shell.stdout, process.stdout), _forward(shell.stderr, process.stderr))
    status = await shell.wait()
    feeding.cancel()
    if status >= 0:
        process.exit(status)
    else:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))


async def _feed(client: asyncssh.SSHReader[bytes], stdin: asyncio.StreamWriter) -> None:
    """What the client sends becomes the command's input; its end, or the client's, the input's end."""
    with suppress(OSError, asyncssh.Error):
        while data := await client.read(CHUNK):
            stdin.write(data)
            await stdin.drain()
    stdin.close()


async def _forward(output: asyncio.StreamReader, client: asyncssh.SSHWriter[bytes]) -> None:
    """What the command prints goes to the client, or nowhere when that is gone."""
    while data := await output.read(CHUNK):
        with suppress(OSError, asyncssh.Error):
            client.write(data)
            await client.drain()


def _environment(host: DemoHost) -> dict[str, str]:
    return {
        "HOME": str(host.root),
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/sh",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def _write_private(path: Path, key: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
