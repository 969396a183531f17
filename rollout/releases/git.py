"""Git, hardened: no hooks, no filters, no configuration but ours, one transport, a time limit, killed whole.

The user's ssh (keys, agent, ~/.ssh/config) and ~/.netrc stay in use: they are how a git server knows us.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rollout.errors import ServiceUnavailable
from rollout.releases.limits import LOCAL_LIMIT_S
from rollout.releases.repository import Repository, masked

_PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR",
    "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
)  # fmt: skip
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=10 -oServerAliveCountMax=3"
_CREDENTIAL = '!f() { echo "username=$ROLLOUT_GIT_USER"; echo "password=$ROLLOUT_GIT_PASSWORD"; }; f'
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.quotePath": "false",
    "transfer.fsckObjects": "true",
    "fetch.fsckObjects": "true",
    # Old repositories are full of these, and they harm nobody.
    "fetch.fsck.badTimezone": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "protocol.allow": "never",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "credential.helper": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
    "advice.detachedHead": "false",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What git said: its exit status, its output, and its complaint with secrets masked."""

    status: int
    output: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Git:
    """Git on one bare repository of ours."""

    directory: Path
    environment: Mapping[str, str]  # of this process: what git and ssh need of it is passed on

    @property
    def settings(self) -> Path:
        """What takes the place of the user's own configuration, for every mirror."""
        return self.directory.parent / "git.config"

    def run(self, *words: str, repository: Repository | None = None, limit_s: float = LOCAL_LIMIT_S) -> Done:
        """Run to the end; ServiceUnavailable when git is missing or slower than `limit_s`."""
        with self._started(words, repository, limit_s) as process:
            output, complaint = process.communicate()
        return Done(process.returncode, output.decode(errors="replace").strip(), _why(complaint))

    def records(self, *words: str, longest: int, limit_s: float = LOCAL_LIMIT_S) -> Iterator[bytes]:
        """The NUL-separated records of its output, each cut to `longest` bytes, whatever their number and size."""
        with self._started(words, None, limit_s, stderr=subprocess.DEVNULL) as process:
            yield from _records(process, longest)
            if process.wait():
                raise ServiceUnavailable(
                    f"git {words[0]} failed on the mirror {self.directory}",
                    remedy="is it damaged? It may be deleted: it is fetched again",
                )

    @contextmanager
    def talk(self, *words: str, limit_s: float) -> Iterator[subprocess.Popen[bytes]]:
        """A git that is spoken to over its standard input."""
        with self._started(words, None, limit_s, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            yield process

    @contextmanager
    def _started(
        self,
        words: tuple[str, ...],
        repository: Repository | None,
        limit_s: float,
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.PIPE,
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = self._start(words, repository, stdin, stderr)
        late = threading.Event()
        timer = threading.Timer(limit_s, _end_late, (process, late))
        timer.daemon = True
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            _end(process)
        if late.is_set():
            raise ServiceUnavailable(
                f"git {words[0]} did not end within {limit_s:.0f} s{_of(repository)}",
                remedy="is the git server slow, or the disk?",
            )

    def _start(
        self, words: tuple[str, ...], repository: Repository | None, stdin: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", "--no-pager", "--no-replace-objects", f"--git-dir={self.directory}", *words],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._environment(repository),
                cwd=self.directory.parent,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ServiceUnavailable(
                f"git could not be started: {error}", remedy="install git on this machine"
            ) from error

    def _environment(self, repository: Repository | None) -> dict[str, str]:
        """Settings go by environment, not by argument: some hold a password."""
        passed = {name: self.environment[name] for name in _PASSED_ON if name in self.environment}
        settings = list(_SETTINGS.items())
        secret: dict[str, str] = {}
        if repository is not None:
            settings.append((f"protocol.{repository.scheme}.allow", "always"))
            if repository.scheme in {"http", "https"}:
                settings += self._credentials(repository, passed)
            secret = {"ROLLOUT_GIT_USER": repository.user, "ROLLOUT_GIT_PASSWORD": repository.password}
        numbered = {f"GIT_CONFIG_KEY_{i}": key for i, (key, _) in enumerate(settings)}
        numbered |= {f"GIT_CONFIG_VALUE_{i}": value for i, (_, value) in enumerate(settings)}
        return {
            "PATH": os.defpath,
            **passed,
            **secret,
            **numbered,
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.settings),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": self.environment.get("GIT_SSH_COMMAND", _SSH),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }

    def _credentials(self, repository: Repository, passed: Mapping[str, str]) -> list[tuple[str, str]]:
        """The address's own login, else the credential helpers that the user of this process has set up."""
        if repository.password:
            return [("credential.helper", _CREDENTIAL)]
        listed = subprocess.run(
            ["git", "config", "-z", "--get-regexp", r"^credential\."],
            env=dict(passed),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOCAL_LIMIT_S,
            check=False,
        )
        pairs = [
            entry.partition("\n") for entry in listed.stdout.decode(errors="replace").split("\0") if entry
        ]
        own = [("credential.username", repository.user)] if repository.user else []
        return [(key, value) for key, _, value in pairs] + own


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    if process.poll() is None:
        late.set()
        _kill(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of it is left: git, its ssh, its helpers."""
    if process.poll() is None:
        _kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            _close(pipe)
    process.wait()


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _records(process: subprocess.Popen[bytes], longest: int) -> Iterator[bytes]:
    assert process.stdout is not None
    record = b""
    while chunk := process.stdout.read(64 * 1024):
        *whole, rest = chunk.split(b"\0")
        for part in whole:
            yield (record + part)[:longest]
            record = b""
        record = (record + rest)[:longest]
    if record:
        yield record


def _why(complaint: bytes) -> str:
    """What git said up to its first complaint; what follows is advice for people at a keyboard."""
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    ends = [number for number, line in enumerate(lines) if line.startswith(("fatal:", "error:"))]
    told = lines[: ends[0] + 1] if ends else lines
    return masked("; ".join(told[-2:]) or "git did not say why")[:500]


def _of(repository: Repository | None) -> str:
    return f" ({masked(repository.address)})" if repository else ""
