"""A network namespace of its own for some processes, joined to this machine by a cable that can be cut, one way or both.

Needs root, `ip` and `nft`. Everything has an address in a private network of its own, and is gone at the end.
"""

import os
import subprocess
from collections.abc import Sequence

_RULES = "add table inet cut; add chain inet cut {chain} {{ type filter hook {hook} priority 0; }}"
WAYS = {"to": ("out",), "from": ("in",), "both": ("out", "in")}  # as the one in the namespace sees it


class Cable:
    """This end has `near`, and every address below `hosts`; the namespace has `far`."""

    def __init__(self) -> None:
        for number in range(64, 128):
            self.name = f"rollout-{number}"
            if _ip("netns", "add", self.name, check=False) == 0:
                break
        else:
            raise RuntimeError(
                "no network is free; `ip netns` lists those in use, `ip netns del` removes one"
            )
        self.network, self.hosts = f"10.{number}.0.0/16", f"10.{number}"
        self.near, self.far = f"10.{number}.255.1", f"10.{number}.255.2"
        try:
            self._lay()
        except BaseException:
            self.remove()
            raise

    def inside(self, words: Sequence[str]) -> list[str]:
        """The same command, in the namespace, on a machine with a name of its own."""
        start = f'hostname {self.name}; exec "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", start, "sh", *words]

    def cut(self, port: int, way: str) -> None:
        """Drop what goes to this port here (`to`), what comes back (`from`), or both."""
        for chain in WAYS[way]:
            end = "dport" if chain == "out" else "sport"
            self._nft(f"add rule inet cut {chain} tcp {end} {port} drop")

    def heal(self) -> None:
        """Everything passes again."""
        for chain in ("out", "in"):
            self._nft(f"flush chain inet cut {chain}")

    def remove(self) -> None:
        """Take it all away; what still runs inside loses its network."""
        _ip("link", "del", f"{self.name}-n", check=False)
        _ip("netns", "del", self.name, check=False)

    def _lay(self) -> None:
        ours, theirs = f"{self.name}-n", f"{self.name}-f"
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        _ip("addr", "add", f"{self.near}/30", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("route", "add", "local", f"{self.hosts}.0.0/17", "dev", ours)
        inside = ("-n", self.name)
        _ip(*inside, "addr", "add", f"{self.far}/30", "dev", theirs)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "set", theirs, "up")
        _ip(*inside, "route", "add", self.network, "via", self.near)
        for chain, hook in (("out", "output"), ("in", "input")):
            self._nft(_RULES.format(chain=chain, hook=hook))

    def _nft(self, rules: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "nft", rules], check=True, env=_environment())


def _ip(*words: str, check: bool = True) -> int:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, env=_environment())
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.returncode


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
