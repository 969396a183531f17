"""Calls host.sh on this machine, under a given shell and its tools, and talks to it line by line."""

import contextlib
import hashlib
import io
import os
import queue
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from rollout.releases import delta
from tests.support.processes import marked, until

PROGRAM = Path(__file__).parents[2] / "rollout" / "fleet" / "host.sh"
DIGEST = hashlib.sha256(PROGRAM.read_bytes()).hexdigest()
A, B, C = "a" * 40, "b" * 40, "c" * 40
DONE, FAILED, REFUSED, BROKEN = 0, 10, 20, 30
ROOMY_MS = 60_000

Keys = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Shell:
    """A POSIX shell, and where it finds its tools."""

    name: str
    command: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Release:
    """An archive, and the digest that docs/host.md says it has."""

    commit: str
    archive: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What a host with the release `base` lacks of another one."""

    base: Release
    archive: bytes

    @property
    def keys(self) -> dict[str, object]:
        """What a prepare says of it."""
        return {"base": self.base.commit, "base_digest": self.base.digest, "delta": len(self.archive)}


@dataclass(slots=True)
class Reply:
    """What host.sh said, and its last code."""

    lines: list[str]
    code: int | None  # None: it never said `end`
    stderr: str = ""

    def __getitem__(self, key: str) -> str | None:
        """The last value of that key."""
        return next((value for name, value in reversed(self.pairs) if name == key), None)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(key, value) for key, _, value in (line.partition("=") for line in self.lines)]

    @property
    def reason(self) -> str | None:
        return self["reason"]

    @property
    def output(self) -> str:
        return "\n".join(value for key, value in self.pairs if key == "output")

    @property
    def brief(self) -> tuple[int | None, str | None]:
        """The code and the reason, which most tests ask for."""
        return self.code, self.reason


class Talk:
    """One call under way: its lines as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr = b""
        self.heard: list[str] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._hear, self._grumble)]
        for thread in self._threads:
            thread.start()

    def _hear(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def _grumble(self) -> None:
        assert self.process.stderr
        with self.process.stderr as text:
            self._stderr = text.read()

    def send(self, text: str | bytes) -> None:
        """Send; a host that does not listen any more is no error here."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(text.encode() if isinstance(text, str) else text)
            self.process.stdin.flush()

    def hang_up(self) -> None:
        """Close what it reads."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def hear(self, key: str, timeout_s: float = 30) -> str:
        """Wait for the line with that key; its value."""
        while True:
            line = self._lines.get(timeout=timeout_s)
            assert line is not None, f"ended without {key}=: {self.heard} {self._stderr!r}"
            self.heard.append(line)
            if line.startswith(f"{key}="):
                return line.partition("=")[2]

    def greeted(self) -> "Talk":
        """Wait until it has greeted."""
        self.hear("current")
        return self

    def within(self, milliseconds: int = ROOMY_MS) -> "Talk":
        """Answer the greeting."""
        self.send(f"within={milliseconds}\n")
        return self

    def reply(self, timeout_s: float = 60) -> Reply:
        """Everything, once it has ended."""
        while (line := self._lines.get(timeout=timeout_s)) is not None:
            self.heard.append(line)
        self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        self.hang_up()
        end = self.heard[-1].removeprefix("end=") if self.heard else ""
        return Reply(self.heard, int(end) if end.isdigit() else None, self._stderr.decode(errors="replace"))

    def kill(self) -> None:
        """Kill -9 of host.sh alone: what it started is not told."""
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def header(keys: Keys) -> str:
    """The lines of a header: a list repeats its key, None leaves it out."""
    lines = []
    for key, value in keys.items():
        values = value if isinstance(value, list | tuple) else [value]
        lines += [f"{key}={one}\n" for one in values if one is not None]
    return "".join(lines) + "\n"


@dataclass
class Host:
    """A folder that is a host."""

    root: Path
    shell: Shell
    mark: str = field(default_factory=lambda: f"host-sh-{uuid4().hex}")
    shadows: Path = field(init=False)

    def __post_init__(self) -> None:
        self.shadows = self.root.with_name(self.root.name + "-shadows")
        self.shadows.mkdir()
        self.install()

    def install(self) -> None:
        """Put the program where it is called by its digest."""
        (self.root / ".rollout" / "bin").mkdir(parents=True)
        shutil.copy(PROGRAM, self.program)

    @property
    def program(self) -> Path:
        return self.root / ".rollout" / "bin" / DIGEST

    @property
    def fence(self) -> Path:
        return self.root / ".rollout"

    @property
    def current(self) -> str | None:
        """The text of the link, as it lies on the disk."""
        link = self.root / "current"
        return str(link.readlink()) if link.is_symlink() else None

    @property
    def releases(self) -> set[str]:
        """Whatever lies beside the releases, leftovers included."""
        folder = self.root / "releases"
        return {entry.name for entry in folder.iterdir()} if folder.exists() else set()

    def records(self) -> list[dict[str, str]]:
        """The whole records of the journal."""
        journal = self.fence / "journal"
        lines = journal.read_text(errors="replace").splitlines() if journal.exists() else []
        return [
            dict(word.partition("=")[::2] for word in line.split())
            for line in lines
            if line.startswith("op=") and line.endswith(" whole=1")
        ]

    def story(self) -> list[tuple[int, str]]:
        """The journal in brief: operation and what."""
        return [(int(record["op"]), record["what"]) for record in self.records()]

    def start(self, verb: str, keys: Keys | str | bytes) -> Talk:
        """Call it and send the header."""
        environment = {
            "PATH": f"{self.shadows}:{self.shell.path}",
            "HOME": str(self.root),
            "TEST_MARK": self.mark,
        }
        process = subprocess.Popen(
            [*self.shell.command, str(self.program), verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        talk = Talk(process)
        talk.send(keys if isinstance(keys, str | bytes) else header(keys))
        return talk

    def call(self, verb: str, keys: Keys | str | bytes | None = None) -> Reply:
        """Call it with nothing behind the header."""
        talk = self.start(verb, keys if keys is not None else {})
        talk.hang_up()
        return talk.reply()

    def prepare(
        self,
        release: Release,
        *,
        op: int,
        epoch: int = 1,
        keep: int = 5,
        spare: Sequence[str] = (),
        delta: Delta | None = None,
        **changed: object,
    ) -> Reply:
        """The whole of a prepare: what it asks for is sent."""
        keys = {
            "epoch": epoch,
            "op": op,
            "commit": release.commit,
            "digest": release.digest,
            "size": len(release.archive),
            "keep": keep,
            "spare": list(spare),
            **(delta.keys if delta else {}),
        }
        talk = self.start("prepare", keys | changed)
        while True:
            line = talk._lines.get(timeout=30)
            assert line is not None, talk._stderr
            talk.heard.append(line)
            if line == "send=delta" and delta:
                talk.send(delta.archive)
                continue
            if line == "send=yes":
                talk.send(release.archive)
            return talk.reply()

    def ask(self, verb: str, release: Release | str, *, op: int, epoch: int = 1, **changed: object) -> Talk:
        """Start an activation or a rollback; it waits for `within` then."""
        commit = release if isinstance(release, str) else release.commit
        keys = {
            "epoch": epoch,
            "op": op,
            "host": "web1.example",
            "commit": commit,
            "digest": "" if isinstance(release, str) else release.digest,
            "restart": "",
            "restart_limit": 30,
            "health": "",
            "health_timeout": 30,
        }
        return self.start(verb, keys | changed)

    def activate(
        self, release: Release, *, op: int, epoch: int = 1, within: int = ROOMY_MS, **changed: object
    ) -> Reply:
        """The whole of an activation."""
        return self.ask("activate", release, op=op, epoch=epoch, **changed).within(within).reply()

    def roll_back(
        self, release: Release | str, *, op: int, epoch: int = 1, within: int = ROOMY_MS, **changed: object
    ) -> Reply:
        """The whole of a rollback."""
        return self.ask("rollback", release, op=op, epoch=epoch, **changed).within(within).reply()

    def status(self, **keys: object) -> Reply:
        return self.call("status", keys)

    def shadow(self, tool: str, script: str) -> None:
        """Let host.sh find `script` in place of a tool; `$real` is the tool itself."""
        real = shutil.which(tool, path=self.shell.path)
        assert real, tool
        file = self.shadows / tool
        file.write_text(f"#!/bin/sh\nreal={real}\n{script}\n")
        file.chmod(0o755)

    def stop_at(self, tool: str, *, after: bool = False, when: str = "*") -> Path:
        """Let `tool` (called with words that match `when`) wait for ever, before or after its work.

        The file that appears when it waits.
        """
        here = self.shadows / f"{tool}-waits"
        wait = f'echo $$ >"{here}"; while :; do sleep 0.05; done'
        work = f'"$real" "$@"; {wait}' if after else wait
        self.shadow(tool, f'case "$*" in {when}) {work} ;; esac\nexec "$real" "$@"')
        return here

    def unshadow(self) -> None:
        for file in self.shadows.iterdir():
            file.unlink()

    def left(self) -> list[int]:
        """The processes that its calls left behind."""
        return marked(self.mark)

    def end_all(self) -> None:
        """Kill what its calls left behind."""
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def quiet(self) -> None:
        """Wait until no process of its calls is left."""
        until(lambda: not self.left(), what=f"no process left of {self.root}")


def a_release(commit: str, files: Mapping[str, str] | None = None, *, fill: int = 0) -> Release:
    """A release with these files: a path that ends in `*` is executable, a content `-> x` is a link to x."""
    files = {"app": commit, "bin/run*": "#!/bin/sh\n"} if files is None else files
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name, content in files.items():
            _write(tree / name.removesuffix("*"), content, executable=name.endswith("*"))
        if fill:
            (tree / "fill").write_bytes(os.urandom(fill))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for entry in sorted(tree.rglob("*")):
                archive.add(entry, f"./{entry.relative_to(tree)}", recursive=False)
        return Release(commit, packed.getvalue(), tree_digest(tree))


def a_delta(base: Release, target: Release) -> Delta:
    """What a host with `base` lacks of `target`, as the product makes it."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("base", "target", "delta")]
        files[0].write_bytes(base.archive)
        files[1].write_bytes(target.archive)
        delta.make(*files, limit=2**62)
        return Delta(base, files[2].read_bytes())


def _write(file: Path, content: str, *, executable: bool) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if content.startswith("-> "):
        file.symlink_to(content.removeprefix("-> "))
        return
    file.write_text(content)
    file.chmod(0o755 if executable else 0o644)


def tree_digest(tree: Path) -> str:
    """The digest of a tree, written down from docs/host.md."""
    plain: list[str] = []
    executable: list[str] = []
    links: list[str] = []
    for entry in sorted(tree.rglob("*"), key=lambda entry: os.fsencode(entry.relative_to(tree))):
        name = f"./{entry.relative_to(tree)}"
        if entry.is_symlink():
            links.append(f"{name} -> {entry.readlink()}")
        elif entry.is_file():
            line = f"{hashlib.sha256(entry.read_bytes()).hexdigest()}  {name}"
            (executable if entry.stat().st_mode & 0o100 else plain).append(line)
    listing = "\n".join(["files", *plain, "executables", *executable, "links", *links]) + "\n"
    return hashlib.sha256(os.fsencode(listing)).hexdigest()


def shell(name: str, folder: Path) -> Shell:
    """The shell called `name`; BusyBox brings its own tools, but for the flock that Debian leaves out."""
    usual = os.environ["PATH"]
    if name != "busybox":
        return Shell(name, (name,), usual)
    busybox = shutil.which("busybox")
    assert busybox
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    folder.mkdir()
    for applet in applets:
        (folder / applet).symlink_to(busybox)
    if "flock" not in applets:
        (folder / "flock").symlink_to(shutil.which("flock") or "/usr/bin/flock")
    return Shell(name, (busybox, "sh"), str(folder))


BOTH = ("dash", "busybox")


def hosts(*names: str) -> Callable[..., object]:
    """A fixture: an empty host under each of these shells; afterwards no process of it may be left.

    `make test` takes one of them for each test, `make faults` takes all.
    """
    chosen = [
        pytest.param(name, marks=[pytest.mark.needs(name, "flock", "setsid"), pytest.mark.one_of(name)])
        for name in names or BOTH
    ]

    @pytest.fixture(name="host", params=chosen)
    def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
        made = Host(tmp_path / "srv", shell(request.param, tmp_path / "applets"))
        try:
            yield made
            made.quiet()
        except BaseException:
            made.end_all()
            raise

    return host
