"""An inventory program: run with a time limit and a limit on what it prints, and killed whole."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.config.environment import for_programs
from rollout.errors import ConfigError

MOST_BYTES = 32 << 20
MOST_ERROR_BYTES = 4096
CHUNK = 1 << 16


class Program:
    """The executable at `path`. All its runs together take at most `timeout_s`."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def json(self, *arguments: str) -> Mapping[str, Any]:
        """The JSON object that it prints; ConfigError."""
        output = self._run(arguments)
        try:
            found = json.loads(output.decode())
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"printed no JSON: {str(error)[:200]}") from error
        if not isinstance(found, dict):
            raise self.wrong("printed JSON that is no object")
        return found

    def wrong(self, what: str) -> ConfigError:
        """The error to raise for this inventory."""
        return ConfigError(f"the inventory {self.path} {what}", remedy=f"try it: {self.path} --list")

    def _run(self, arguments: tuple[str, ...]) -> bytes:
        try:
            process = subprocess.Popen(
                [self.path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=for_programs(),
                cwd=self.path.parent,
                start_new_session=True,
            )
        except OSError as error:
            raise self.wrong(f"cannot be started: {error.strerror}") from error
        with process:
            try:
                output, complaint = self._read(process)
            finally:
                _kill(process)
        if process.returncode:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["and said nothing"]
            raise self.wrong(f"ended with status {process.returncode}: {_printable(last[0])}")
        return output

    def _read(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """What it printed on both channels until it ended, of the second the last lines only."""
        printed = {process.stdout: bytearray(), process.stderr: bytearray()}
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for stream in (process.stdout, process.stderr, ended):
                    selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]  # both are pipes
                while selector.get_map():
                    for key, _ in selector.select(self._left()):
                        chunk = b"" if key.fileobj == ended else os.read(key.fd, CHUNK)
                        if chunk:
                            self._keep(printed, process, key.fileobj, chunk)
                            continue
                        selector.unregister(key.fileobj)
                        if key.fileobj == ended:
                            _kill(process)  # whatever it left behind may hold the pipes open
        finally:
            os.close(ended)
        return bytes(printed[process.stdout]), bytes(printed[process.stderr])

    def _keep(
        self, printed: dict[Any, bytearray], process: subprocess.Popen[bytes], stream: Any, chunk: bytes
    ) -> None:
        printed[stream] += chunk
        del printed[process.stderr][:-MOST_ERROR_BYTES]
        if len(printed[process.stdout]) > MOST_BYTES:
            raise self.wrong(f"printed more than {MOST_BYTES >> 20} MiB")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.wrong(f"did not end within {self.timeout_s:g} s")
        return left


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it with what it started. Only before it is waited for: then its number may be somebody else's."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line[:300])
