"""One real OpenSSH server that plays a whole fleet: every address 127.1.x.y is a host with a folder of its own.

The forced command picks the folder by the address that the client connected to, makes it HOME and ROOT, and goes
there. Everything lies in one folder; at the end every process that it started is gone.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.domain.model import Target

_CONFIG = """\
Port {port}
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM {pam}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
PrintLastLog no
X11Forwarding no
AllowAgentForwarding no
MaxStartups 5000
MaxSessions 100
LoginGraceTime 60
LogLevel ERROR
SetEnv SHLVL=9
ForceCommand {folder}/as-host
"""
# SHLVL: bash reads ~/.bashrc in a session of sshd's, unless it is told that it is not the outermost shell.
_AS_HOST = """\
#!/bin/sh
set -- $SSH_CONNECTION
ROOT={folder}/hosts/$3 HOME=$ROOT SSHD_FOLDER={folder}
export ROOT HOME SSHD_FOLDER
cd "$ROOT" || exit 97
test -f .login && . ./.login
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


def path_of_sshd() -> str | None:
    """Where sshd is; it is started by its full path or not at all."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


@dataclass(frozen=True)
class SshHost:
    """One address and its folder."""

    name: str
    address: str
    root: Path
    door: tuple[str, int] | None = None  # where clients knock, when it is not the server itself

    @property
    def path(self) -> str:
        """`release.path` on this host."""
        return f"{self.root}/srv/shop"

    def login(self, script: str) -> None:
        """What this host's login shell does before each command; "" for nothing."""
        (self.root / ".login").write_text(script)


class Sshd:
    """A running server and the fleet that it plays."""

    def __init__(
        self, folder: Path, count: int, options: Mapping[str, str] | None = None, network: str = "127.1"
    ) -> None:
        """`network` is the beginning of every host's address."""
        self.folder = folder
        self.network = network
        self.options = dict(options or {})
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.identity_file = str(folder / "id_ed25519")
        self.known_hosts = str(folder / "known_hosts")
        self.hosts = [self._host(number) for number in range(count)]
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make keys and files, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "id_ed25519"):
            if not (self.folder / name).exists():
                make_key(self.folder / name)
        shutil.copy(self.folder / "id_ed25519.pub", self.folder / "authorized_keys")
        (self.folder / "as-host").write_text(_AS_HOST.format(folder=self.folder))
        (self.folder / "as-host").chmod(0o755)
        for host in self.hosts:
            (host.root / "srv").mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        for _ in range(5):
            self.port = self.port or _free_port()
            self._listen()
            if self._answers():
                break
            self.stop()
            self.port = 0
        else:
            raise RuntimeError(f"sshd does not start: {(self.folder / 'sshd.log').read_text()[-2000:]}")
        Path(self.known_hosts).write_text("")
        for host in self.hosts:
            self.know(host.address, self.port)

    def know(self, address: str, port: int) -> None:
        """Add this server's key to known_hosts under another address, as a proxy needs it."""
        kind, blob = (self.folder / "host_key.pub").read_text().split()[:2]
        with Path(self.known_hosts).open("a") as file:
            file.write(f"[{address}]:{port} {kind} {blob}\n")

    def target(self, number: int = 0, **changes) -> Target:
        """How rollout reaches this host."""
        host = self.hosts[number]
        target = Target(
            name=host.name,
            address=host.address,
            port=self.port,
            user=self.user,
            path=host.path,
            identity_file=self.identity_file,
            known_hosts=self.known_hosts,
        )
        return replace(target, **changes)

    def fleet_toml(self, app: str = "shop", hosts: Sequence[SshHost] | None = None) -> str:
        """The `[apps.X.fleet]` table of rollout.toml, all hosts unless some are given; use `{root}/srv/shop` as release.path."""
        mine = self.hosts if hosts is None else hosts
        doors = [(host, *(host.door or (host.address, self.port))) for host in mine]
        rows = ",\n".join(
            f'  {{name = "{host.name}", address = "{address}", port = {port}, vars = {{root = "{host.root}"}}}}'
            for host, address, port in doors
        )
        return (
            f'[apps.{app}.fleet]\nhosts = [\n{rows},\n]\nuser = "{self.user}"\n'
            f'identity_file = "{self.identity_file}"\nknown_hosts = "{self.known_hosts}"\n'
        )

    def hang_up(self) -> None:
        """Kill every connection; the server goes on listening."""
        assert self._process is not None
        for pid in _descendants(self._process.pid) - {self._process.pid}:
            if _command(pid).startswith("sshd"):
                _kill(pid)

    def sessions(self, host: SshHost) -> set[int]:
        """The processes that hold a connection of this host."""
        assert self._process is not None
        here = f"{socket.inet_aton(host.address)[::-1].hex().upper()}:{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == here}
        return {pid for pid in _descendants(self._process.pid) if sockets & _open_files(pid)}

    def pause(self) -> None:
        """Connections are taken by the kernel, and nobody says a word."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server, its sessions and whatever they left behind."""
        if self._process is None:
            return
        pids = _descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + 10
        while pids := {pid for pid in pids | _marked(self.folder) if _alive(pid)}:
            for pid in pids:
                _kill(pid)
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd left processes behind: {pids}")
            time.sleep(0.02)

    def _host(self, number: int) -> SshHost:
        address = f"{self.network}.{number // 250}.{number % 250 + 1}"
        return SshHost(f"web{number + 1:03d}", address, self.folder / "hosts" / address)

    def _listen(self) -> None:
        program = path_of_sshd()
        assert program is not None, "openssh-server is not installed"
        config = _CONFIG.format(folder=self.folder, port=self.port, pam="yes" if _locked(self.user) else "no")
        own = "".join(f"{key} {value}\n" for key, value in self.options.items())
        (self.folder / "sshd_config").write_text(own + config)  # the first value counts
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                if sock.recv(4) == b"SSH-":
                    return True
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def running_sshd(folder: Path, count: int, options: Mapping[str, str] | None = None) -> Iterator[Sshd]:
    """A server for `count` hosts in this folder (whose name is plain letters); gone at the end."""
    server = Sshd(folder, count, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> None:
    """A private key and its `.pub`."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(file)], check=True)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return sock.getsockname()[1]


def _locked(user: str) -> bool:
    """Without PAM, sshd refuses a user whose password field begins with an exclamation mark."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text().splitlines():
            if line.startswith(f"{user}:!"):
                return True
    return False


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found, left = set(), [root]
    while left:
        pid = left.pop()
        found.add(pid)
        left += children.get(pid, [])
    return found


def _marked(folder: Path) -> set[int]:
    """Processes that began as a command on one of our hosts, whoever their parent is now."""
    mark = f"SSHD_FOLDER={folder}".encode()
    found = set()
    for pid in _processes():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
