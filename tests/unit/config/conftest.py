"""A folder to write rollout.toml into, and a small valid one."""

import pytest

from rollout.config.deploy_file import load

SMALL = """
[apps.shop]
repository = "../shop.git"
[apps.shop.release]
path = "/srv/shop"
[apps.shop.canary]
log = "/srv/shop/access.log"
[apps.shop.fleet]
hosts = ["web[1:3].example.com"]
"""


@pytest.fixture
def write(tmp_path):
    """Writes text as rollout.toml and returns its path."""

    def write(text=SMALL):
        path = tmp_path / "rollout.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def loaded(write):
    """Loads text as a rollout.toml, by default the small one, with an empty environment."""

    def loaded(text=SMALL, **environ):
        return load(write(text), environ)

    return loaded


@pytest.fixture
def with_line(loaded):
    """Loads the small rollout.toml with one line put into a table in place of one with the same key."""

    def with_line(table, line, **environ):
        key = line.split(" = ")[0]
        blocks = {}
        current = ""
        for existing in SMALL.splitlines():
            if existing.startswith("["):
                current = existing.strip("[]")
            blocks.setdefault(current, [])
            if existing and not existing.startswith("["):
                blocks[current].append(existing)
        lines = blocks.setdefault(table, [])
        lines[:] = [existing for existing in lines if existing.split(" = ")[0] != key] + [line]
        text = "\n".join(
            "\n".join([f"[{name}]", *content]) if name else "\n".join(content)
            for name, content in blocks.items()
        )
        return loaded(text, **environ)

    return with_line
