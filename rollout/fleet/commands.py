"""What is typed on a host, and the one place where words are quoted."""

import re
import shlex
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import resources

from rollout.errors import ConfigError

NOT_INSTALLED = 96
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]+")
_VERB = re.compile(r"[a-z]*")

# Any login shell must read it the same way: no newline, no backslash, no quote, no exclamation mark.
_INSTALL = (
    "umask 022; d={folder}; t=$d/.new-$$; mkdir -p $d && cat >$t && "
    "s=$(sha256sum <$t) && test ${{s%% *}} = {digest} && sync $t && mv -f $t $d/{digest} && sync $d && echo installed=yes; "
    "r=$?; rm -f $t; exit $r"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A POSIX sh program of ours that is installed on hosts by its digest."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.text.encode()).hexdigest())

    def call(self, path: str, verb: str = "") -> str:
        """The command that runs it; it exits 96 when it is not installed."""
        if not _VERB.fullmatch(verb):
            raise ValueError(f"not a verb: {verb!r}")
        file = f"{_folder(path)}/{self.digest}"
        return "exec " + shlex.join(
            [
                "sh",
                "-c",
                " ".join(f"test -f {file} && exec sh {file} {verb}".split()) + f"; exit {NOT_INSTALLED}",
            ]
        )

    def install(self, path: str) -> str:
        """The command that installs it from its standard input; it prints `installed=yes`."""
        return "exec " + shlex.join(["sh", "-c", _INSTALL.format(folder=_folder(path), digest=self.digest)])


TRUE = shlex.join(["true"])


def host_program() -> Program:
    """`host.sh` as it lies beside this file."""
    return Program(resources.files("rollout.fleet").joinpath("host.sh").read_text(encoding="utf-8"))


def _folder(path: str) -> str:
    if not _PLAIN.fullmatch(path):
        raise ConfigError(
            f"release.path {path!r} has characters other than A-Z a-z 0-9 . _ / - or does not begin with /",
            remedy="choose a plain absolute path",
        )
    return f"{path}/.rollout/bin"
