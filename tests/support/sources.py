"""Git repositories to be shipped from, and the app that ships them."""

import os
import subprocess
from pathlib import Path
from typing import Any

from rollout.config.deploy_file import AppConfig

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


class Source:
    """A repository that commits are pushed to."""

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        subprocess.run(
            ["git", "init", "-q", "-b", branch, str(path)],
            check=True,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )

    def git(self, *words: str, given: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *words],
            input=given,
            capture_output=True,
            env=_ENVIRONMENT,
            check=True,
        )
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, str | bytes] | None = None, message: str = "Change") -> str:
        """Commit these files on top; the hash."""
        for name, content in (files or {}).items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "--no-verify", "--cleanup=verbatim", "-m", message)
        return self.git("rev-parse", "HEAD")

    def commit_tree(self, entries: list[tuple[str, str, bytes]]) -> str:
        """Commit a tree as given: (mode, name, content); also ones that no work tree could hold. The hash."""
        lines = b""
        for mode, name, content in entries:
            if mode in {"160000", "040000"}:
                sha = content.decode()
            else:
                sha = self.git("hash-object", "-w", "--stdin", given=content)
            kind = {"040000": "tree", "160000": "commit"}.get(mode, "blob")
            lines += f"{mode} {kind} {sha}\t".encode() + os.fsencode(name) + b"\0"
        tree = self.git("mktree", "-z", "--missing", given=lines)
        commit = self.git("commit-tree", tree, "-m", "By hand")
        self.git("update-ref", "HEAD", commit)
        return commit


def an_app(
    repository: Path | str,
    branch: str = "main",
    *,
    include: tuple[str, ...] = (".",),
    good=("2xx", "3xx"),
    **given: Any,
) -> AppConfig:
    """An app with defaults: `tests`, `timeout`, `build`, `log`; `canary` has further keys of its table."""
    return AppConfig.model_validate(
        {
            "name": "shop",
            "repository": str(repository),
            "branch": branch,
            "tests": {"command": given.get("tests", "true"), "timeout": given.get("timeout", "20s")},
            "release": {"path": "/srv/shop", "build": given.get("build", ""), "include": list(include)},
            "canary": {
                "log": given.get("log", "/srv/shop/shared/access.log"),
                "good": list(good),
                **given.get("canary", {}),
            },
            "fleet": {"hosts": ["web001"]},
        }
    )
